"""Image-text similarity by CLIP (Radford et al., 2021) and every other model of open_clip: SigLIP 2, PE-Core, EVA02, MetaCLIP ...

DoC is a ratio of cosines, so a model's logit scale and the bias of a sigmoid model (SigLIP) are read with its weights and do not
enter. What differs between models is the range of their cosines (docs/models.md).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from pseudoris_cli import watching
from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.halving import Halving
from pseudoris_cli.method.protocols import Scorer
from pseudoris_cli.settings.models import BackendSettings, Numerics, added_later
from pseudoris_cli.settings.resources import PACKAGE
from pseudoris_cli.weights import clip_files, model_folders
from pseudoris_cli.weights import registry as weights

if TYPE_CHECKING:
    import torch

    from pseudoris_cli.networks.memory import Memory, Work

ROLE = "scorer"


class Settings(BackendSettings):
    """The scorer; the defaults are the paper's."""

    backend: Literal["clip"] = Field("clip", description="who compares captions and crops")
    model: str = Field(default="RN50", description="open_clip model name, `demo` or `tiny`")
    checkpoint: str = Field(default="clip_rn50", description="registry name, path, open_clip tag, or random:SEED")
    pretrained: str | None = Field(
        default=None, description="open_clip tag of the weights in the checkpoint, where their activation is in doubt"
    )
    interpolation: Literal["bilinear", "model"] = added_later(
        "bilinear", description="how crops are resized: as the paper's, or as the weights' own preprocessing"
    )
    tokenizer: str | None = added_later(
        None, description="folder of the tokenizer, for models whose open_clip configuration names one on the hub"
    )
    image_chunk: int = Field(default=128, ge=1, description="crops in one call of the image tower; bounds memory")
    text_chunk: int = Field(default=256, ge=1, description="texts in one call of the text tower; bounds memory")

    @classmethod
    def tiny(cls) -> Settings:
        return cls(model="tiny", checkpoint="random:0")


def load(settings: Settings, numerics: Numerics, device: str) -> ClipScorer:
    """Build the model, read its weights strictly, and put it on the device.

    Raises MissingDependency (exit 3) for a missing checkpoint; UsageError (exit 2) for an unknown model, weights of
    another model, weights whose activation only `pretrained` can tell, or a TorchScript archive whose sha256 is not one
    that OpenAI published.
    """
    import torch

    from pseudoris_cli.networks.clip.architecture import fill
    from pseudoris_cli.networks.numerics import set_up

    checkpoint = weights.resolve(settings.checkpoint, settings.model)
    state = None if checkpoint.path is None else clip_files.read_state(checkpoint.path, checkpoint.digest)
    set_up(numerics)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(checkpoint.seed or 0)
        towers = _build(settings, state)
    if state is not None:
        weights_alone = {name: value for name, value in state.items() if name not in clip_files.OPENAI_EXTRAS}
        fill(towers.model, weights_alone, settings.checkpoint, settings.model)
    return ClipScorer(towers, settings, numerics, device)


def memory(settings: Settings, work: Work) -> Memory:
    """What `load` and one call need of a device."""
    from pseudoris_cli.networks.clip.memory import memory as of_network
    from pseudoris_cli.networks.memory import on_meta

    network = on_meta(
        f"clip {settings.model} {settings.pretrained}", lambda: _network(settings, _traits_of(settings, None))
    )
    return of_network(network, settings.image_chunk, settings.text_chunk, work)


@dataclass(frozen=True, slots=True)
class Towers:
    """A network with what belongs to it: tokenizer, and mean and std of RGB in [0, 1]."""

    model: Any
    tokenizer: Any
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


class ClipScorer(Scorer):
    """A `Scorer`: crops and texts to unit vectors in float32, whatever the precision of the towers."""

    def __init__(self, towers: Towers, settings: Settings, numerics: Numerics, device: str) -> None:
        import torch

        from pseudoris_cli.networks.clip.text import is_causal
        from pseudoris_cli.networks.numerics import dtype_of

        self._dtype = dtype_of(numerics)
        self._model = towers.model.eval().requires_grad_(False).to(device=device, dtype=self._dtype)
        visual = self._model.visual
        self.size: int = _side(visual.image_size, settings.model)
        self.mean, self.std = towers.mean, towers.std
        self.interpolation = towers.interpolation if settings.interpolation == "model" else "bilinear"
        self.device = device
        self._visual = torch.compile(visual) if numerics.compile else visual  # text lengths vary: not worth compiling
        self._tokenizer = towers.tokenizer
        self._halving = Halving()
        self._chunks = settings.image_chunk, settings.text_chunk
        self._causal = is_causal(self._model)

    @property
    def halvings(self) -> int:
        """How often memory ran out and a chunk was halved."""
        return self._halving.times

    def encode_images(self, crops: torch.Tensor) -> torch.Tensor:
        """Normalised crops [N, 3, size, size], N > 0, to unit vectors [N, D], float32 on the device."""
        import torch

        with torch.inference_mode():

            def encode(part: slice) -> torch.Tensor:
                watching.tell(part.start / len(crops))
                features: torch.Tensor = self._visual(crops[part].to(device=self.device, dtype=self._dtype)).float()
                return features

            features = [*self._halving.chunks(len(crops), self._chunks[0], encode)]
            return torch.nn.functional.normalize(torch.cat(features), dim=-1)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts, at least one, to unit vectors [N, D], float32 on the device.

        A text beyond the model's context (77 tokens for OpenAI's, start and end included) is cut there, its end token
        put last. Texts of like length share a call, so that little is spent on padding.
        """
        import torch

        from pseudoris_cli.networks.clip.text import encode_causal, text_lengths

        tokens = self._tokenizer(list(texts))
        lengths = text_lengths(tokens) if self._causal else torch.full((len(texts),), tokens.shape[1])
        order = lengths.argsort(stable=True)

        def encode(part: slice) -> torch.Tensor:
            watching.tell(part.start / len(order))
            rows = order[part]
            chunk = tokens[rows, : int(lengths[rows].max())].to(self.device)
            encoded = encode_causal(self._model, chunk) if self._causal else self._model.encode_text(chunk)
            features: torch.Tensor = encoded.float()
            return features

        with torch.inference_mode():
            features = [*self._halving.chunks(len(order), self._chunks[1], encode)]
            back = order.argsort().to(self.device)
            return torch.nn.functional.normalize(torch.cat(features)[back], dim=-1)


def _build(settings: Settings, state: dict[str, Any] | None) -> Towers:
    """The network with random weights, its tokenizer and its normalisation."""
    import open_clip
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    from pseudoris_cli.networks.clip import configs

    if settings.model in ("demo", "tiny"):
        config = configs.DEMO if settings.model == "demo" else configs.TINY
        merges = {"bpe_path": str(PACKAGE / "demo" / "weights" / "bpe.txt.gz")} if settings.model == "demo" else {}
        tokenizer = open_clip.SimpleTokenizer(context_length=config["text_cfg"]["context_length"], **merges)
        return Towers(_network(settings, _Traits()), tokenizer, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    traits = _traits_of(settings, state)
    return Towers(
        _network(settings, traits),
        _tokenizer(settings),
        traits.mean or OPENAI_DATASET_MEAN,
        traits.std or OPENAI_DATASET_STD,
        "bilinear" if traits.interpolation == "bilinear" else "bicubic",
    )


def _traits_of(settings: Settings, state: dict[str, Any] | None) -> _Traits:
    """What the weights need; UsageError if open_clip has no such model."""
    import open_clip

    if settings.model in ("demo", "tiny"):
        return _Traits()
    if settings.model not in open_clip.list_models():
        listing = "python -c 'import open_clip; print(*open_clip.list_models())'"
        raise UsageError(f"open_clip has no model {settings.model!r}; filter.scorer.model is one of:  {listing}")
    return _traits(settings, state)


def _network(settings: Settings, traits: _Traits) -> torch.nn.Module:
    """The network with random weights."""
    import open_clip

    from pseudoris_cli.networks.clip import configs
    from pseudoris_cli.networks.clip.architecture import build

    if settings.model in ("demo", "tiny"):
        return open_clip.CLIP(**(configs.DEMO if settings.model == "demo" else configs.TINY))
    return build(open_clip.get_model_config(settings.model), traits.quick_gelu)


def _side(image_size: int | tuple[int, int], model: str) -> int:
    """The side of the square that the image tower sees; crops are padded to squares, so squashing or cutting them does nothing."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if height != width:
        raise UsageError(
            f"filter.scorer.model={model} sees pictures of {height} x {width}, and crops are squares; choose another"
        )
    return height


def _tokenizer(settings: Settings) -> Any:
    """open_clip's tokenizer of a model, cut to its context length; a tokenizer of the hub's is read from its cache or a folder.

    MissingDependency (exit 3) with the command that gets it where it is not here.
    """
    import open_clip

    text = open_clip.get_model_config(settings.model)["text_cfg"]
    name = settings.tokenizer or text.get("hf_tokenizer_name")
    if not name:
        return open_clip.get_tokenizer(settings.model)
    try:
        folder = model_folders.tokenizer_folder(name, "filter.scorer.tokenizer")
        return open_clip.tokenizer.HFTokenizer(
            str(folder),
            context_length=text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
            tokenizer_mode=text.get("tokenizer_mode"),
            **text.get("tokenizer_kwargs", {}),
        )
    except ImportError as error:
        raise MissingDependency(
            f"filter.scorer.model={settings.model} needs transformers for its tokenizer (missing: {error.name}); install it with:  "
            "pip install 'pseudoris[hf]'"
        ) from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"filter.scorer.tokenizer: {name} cannot be read as a tokenizer: {reason}") from error


class _Traits(NamedTuple):
    """What weights need and their tensors do not tell."""

    quick_gelu: bool = False
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    interpolation: str | None = None


def _traits(settings: Settings, state: dict[str, Any] | None) -> _Traits:
    """The traits of the tag that the settings name or the file tells, else what all weights of the model share."""
    from open_clip import pretrained

    known = {}
    for tag in pretrained.list_pretrained_tags_by_model(settings.model):
        entry = pretrained.get_pretrained_cfg(settings.model, tag)
        known[tag] = _Traits(
            bool(entry.get("quick_gelu")), entry.get("mean"), entry.get("std"), entry.get("interpolation")
        )
    wanted = settings.pretrained or _tag_of(settings, state, known)
    if wanted in known:
        return known[wanted]
    distinct = set(known.values())
    if wanted is None and (state is None or len(distinct) <= 1):
        return distinct.pop() if len(distinct) == 1 else _Traits()
    name = settings.model
    problem = (
        f"open_clip has no weights {wanted!r} of {name}" if wanted else f"weights of {name} need various activations"
    )
    raise UsageError(
        f"{problem}; set filter.scorer.pretrained to what {settings.checkpoint} holds, one of: {', '.join(known)}"
    )


def _tag_of(settings: Settings, state: dict[str, Any] | None, known: Collection[str]) -> str | None:
    """The open_clip tag of the weights where the checkpoint tells: a tag itself, a registered file, OpenAI's format."""
    entry = weights.registry().get(settings.checkpoint)
    if entry and entry.open_clip and entry.open_clip[0] == settings.model:
        return entry.open_clip[1]
    tag = settings.checkpoint.lower().replace("-", "_")  # open_clip's own spelling
    if tag in known:
        return tag
    return "openai" if state is not None and any(name in state for name in clip_files.OPENAI_EXTRAS) else None
