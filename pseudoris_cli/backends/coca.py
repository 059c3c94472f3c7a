"""Captions by CoCa (Yu et al., 2022) on open_clip weights, decoded by `pseudoris_cli.decoding`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from pseudoris_cli import watching
from pseudoris_cli.errors import UsageError
from pseudoris_cli.method.protocols import Captioner
from pseudoris_cli.records import CROP_KINDS, Caption, MaskedImage
from pseudoris_cli.settings.models import CaptionSettings, CropStyle, Numerics, added_later
from pseudoris_cli.settings.resources import PACKAGE
from pseudoris_cli.weights import registry as weights
from pseudoris_cli.weights import tensors
from pseudoris_cli.weights.unwrapping import unwrapped

if TYPE_CHECKING:
    from pseudoris_cli.decoding.engine import CropGroup
    from pseudoris_cli.decoding.rules import DecodingRules, Generated
    from pseudoris_cli.networks.memory import Memory, Work


ROLE = "captioner"
Rank = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(gt=0, le=1)]


class Settings(CaptionSettings):
    """Distinctive caption sampling with CoCa (paper §3.2); the defaults are the paper's."""

    backend: Literal["coca"] = Field("coca", description="who writes the captions")
    model: str = Field("coca_ViT-L-14", description="open_clip model name, `demo` or `tiny`")
    checkpoint: str = Field("coca_cc3m", description="registry name, path, open_clip tag, or random:SEED")
    crop_style: CropStyle = Field("mended", description="boxes, fill and antialiasing of the crops")
    top_k: tuple[Rank, ...] = Field((5, 7, 9, 11, 13), description="top-k samplers, one caption each per crop")
    top_p: tuple[Probability, ...] = Field(
        (0.4, 0.5, 0.6, 0.7, 0.8), description="top-p samplers, one caption each per crop"
    )
    beams: int = Field(2, ge=0, description="beam width of the one beam caption per crop; 0 for none")
    contrast: float = Field(1.0, ge=0, description="strength of the contrast; 0 is plain sampling")
    contrast_form: Literal["literal", "scale_preserving"] = Field(
        "literal",
        description="literal: the formula of the paper; scale_preserving: the same contrast with the logits' own scale",
    )
    contrast_max_masks: int | None = Field(None, ge=2, description="more masks than this: no contrast (release: 30)")
    similarity_clamp: float | None = Field(None, description="lower bound of the similarities in the contrast")
    pad_ends_row: bool = Field(False, description="a sampled token 0 ends the caption, as in the release")
    min_length: int = Field(5, ge=1, description="tokens (start included) before a caption may end")
    max_length: int = Field(30, ge=3, description="tokens of a caption, start and end included")
    sampling: Literal["auto", "host", "device"] = added_later(
        "auto", description="where tokens are chosen, same captions; auto: device on a GPU, host on a CPU"
    )
    cuda_graphs: bool = added_later(
        False, description="replay the device's steps as CUDA graphs; not tried on a GPU yet"
    )
    row_chunk: int = Field(1024, ge=1, description="(row, crop) pairs in one decoder call; bounds memory")

    @classmethod
    def tiny(cls) -> Settings:
        return cls(model="tiny", checkpoint="random:0", max_length=10)


def load(settings: Settings, numerics: Numerics, device: str) -> CocaCaptioner:
    """Build the network, read its weights strictly and put it on the device.

    Raises MissingDependency (exit 3) for a missing checkpoint; UsageError (exit 2) for an unknown model, weights of another
    model, or captions longer than the network's context.
    """
    import torch

    from pseudoris_cli.networks.coca.build import build_coca, load_weights
    from pseudoris_cli.networks.numerics import set_up

    checkpoint = weights.resolve(settings.checkpoint, settings.model)
    set_up(numerics)
    network = build_coca(settings.model, checkpoint.seed or 0)
    if checkpoint.path is not None:
        state = unwrapped(tensors.load_tensors(checkpoint.path), network.state_dict(), settings.checkpoint)
        load_weights(network, state, settings.checkpoint, settings.model)
    return CocaCaptioner(network.to(torch.device(device)), _tokenizer(settings.model), settings, numerics)


def memory(settings: Settings, work: Work) -> Memory:
    """What `load` and one call need of a device."""
    import open_clip

    from pseudoris_cli.networks.coca.build import coca_config
    from pseudoris_cli.networks.coca.memory import memory as of_network
    from pseudoris_cli.networks.memory import on_meta

    config = coca_config(settings.model)
    config.pop("custom_text", None)
    network = on_meta(f"coca {settings.model}", lambda: open_clip.CoCa(**config))
    samplers = len(settings.top_k) + len(settings.top_p)
    return of_network(network, settings.row_chunk, settings.max_length - 1, samplers, work)


def _tokenizer(model: str) -> Any:
    """The tokenizer of a model: text of token ids, and the ids of its start and end."""
    import open_clip

    if model in ("demo", "tiny"):
        merges = PACKAGE / "demo" / "weights" / "bpe.txt.gz"
        return open_clip.SimpleTokenizer(bpe_path=str(merges), context_length=24)
    return open_clip.get_tokenizer(model)


class CocaCaptioner(Captioner):
    """CoCa at work. `halvings` counts how often memory ran out and a chunk of rows, or of crops to encode, was halved."""

    def __init__(self, coca: Any, tokenizer: Any, settings: Settings, numerics: Numerics) -> None:
        from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

        from pseudoris_cli.decoding.engine import Decoder
        from pseudoris_cli.decoding.network import CaptionNetwork
        from pseudoris_cli.method.crops import CropSpec
        from pseudoris_cli.networks.numerics import dtype_of

        self._network = CaptionNetwork(coca, dtype_of(numerics), numerics.compile)
        self._rules = caption_rules(settings, tokenizer.sot_token_id, tokenizer.eot_token_id, coca.pad_id)
        if settings.max_length - 1 > self._network.positions:
            raise UsageError(
                f"captions.max_length is {settings.max_length}, but {settings.model} reads "
                f"{self._network.positions} tokens: at most {self._network.positions + 1}"
            )
        side = coca.visual.image_size
        side = side if isinstance(side, int) else side[0]
        self._spec = CropSpec(side, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, settings.crop_style)
        form = settings.sampling
        if form == "auto":
            form = "device" if self._network.device.type == "cuda" else "host"
        self._decoder = Decoder(
            self._network, self._rules, settings.beams, settings.row_chunk, form, settings.cuda_graphs
        )
        self._tokenizer, self._settings = tokenizer, settings
        self._samplers = [f"top_k={k}" for k in settings.top_k] + [f"top_p={p}" for p in settings.top_p]

    def caption(self, images: Sequence[MaskedImage]) -> list[list[Caption]]:
        """Captions of every mask: crop kinds in the order of CROP_KINDS, the beam's before the samplers'.

        `tokens` counts what was generated, the end token included.
        """
        import torch

        with torch.inference_mode():
            groups = self._groups(images) if any(image.masks for image in images) else []
            with watching.span(0.1, 1):
                found = iter(self._decoder.decode(groups))
        self.halvings = self._decoder.halvings + self._network.halving.times
        captions: list[list[Caption]] = []
        for image in images:
            by_kind = [next(found) for _ in CROP_KINDS] if image.masks else []
            captions.append(self._records(image, by_kind))
        return captions

    def _groups(self, images: Sequence[MaskedImage]) -> list[CropGroup]:
        """The encoded crops of every image that has masks, kind by kind."""
        from pseudoris_cli.decoding.engine import CropGroup
        from pseudoris_cli.method.crops import make_crops

        crops = make_crops(images, CROP_KINDS, self._spec, self._network.device)
        batch = max(4, self._settings.row_chunk // 16 * 4)
        encoded = {kind: self._network.encode(crops.pop(kind), batch) for kind in CROP_KINDS}
        groups, first = [], 0
        for image in images:
            here = slice(first, first + len(image.masks))
            first = here.stop
            for kind in CROP_KINDS if image.masks else ():
                latents, tokens = encoded[kind][0][here], encoded[kind][1][here]
                groups.append(CropGroup(tokens, (latents @ latents.T).cpu().numpy(), self._uniforms(image, kind)))
        return groups

    def _uniforms(self, image: MaskedImage, kind: str) -> np.ndarray:
        from pseudoris_cli.decoding.sampling import uniforms

        seed, count = self._settings.seed, self._settings.max_length
        numbers = [
            [uniforms(seed, image.drawn_as, mask.mask_id, kind, sampler, count) for sampler in self._samplers]
            for mask in image.masks
        ]
        return np.array(numbers).reshape(len(image.masks), len(self._samplers), count)

    def _records(self, image: MaskedImage, by_kind: list[list[list[Generated]]]) -> list[Caption]:
        """The captions of one image, mask by mask."""
        names = ["beam"] * bool(self._settings.beams) + self._samplers
        records = []
        for place, mask in enumerate(image.masks):
            number = 0
            for kind, of_masks in zip(CROP_KINDS, by_kind, strict=True):
                for name, generated in zip(names, of_masks[place], strict=True):
                    text, count = self._text(generated), len(generated.tokens)
                    records.append(Caption(mask.mask_id, number, text, kind, name, generated.logprob, count))
                    number += 1
        return records

    def _text(self, generated: Generated) -> str:
        """The words: without start and end tokens and outer spaces."""
        ids = [token for token in generated.tokens if token not in (self._rules.start, self._rules.end)]
        return self._tokenizer.decode(ids).strip()


def caption_rules(settings: Settings, start: int, end: int, pad: int) -> DecodingRules:
    """The decoder's rules from the settings and the vocabulary's special tokens."""
    from pseudoris_cli.decoding.rules import DecodingRules

    return DecodingRules(
        start=start,
        end=end,
        pad=pad,
        top_k=settings.top_k,
        top_p=settings.top_p,
        contrast=settings.contrast,
        contrast_form=settings.contrast_form,
        contrast_max_masks=settings.contrast_max_masks,
        similarity_clamp=settings.similarity_clamp,
        pad_ends_row=settings.pad_ends_row,
        min_length=settings.min_length,
        max_length=settings.max_length,
    )
