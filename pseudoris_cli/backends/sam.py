"""Automatic masks by Segment Anything (Kirillov et al., 2023) through segment_anything's modules and checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field

from pseudoris_cli.backends import automatic_masks
from pseudoris_cli.backends.automatic_masks import AutomaticMaskSection, AutomaticSegmenter
from pseudoris_cli.errors import UsageError
from pseudoris_cli.settings.models import Numerics
from pseudoris_cli.weights import registry as weights
from pseudoris_cli.weights import tensors
from pseudoris_cli.weights.unwrapping import unwrapped

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from pseudoris_cli.networks.memory import Memory, Work
    from pseudoris_cli.networks.sam.decoder import PromptDecoder

ROLE = "segmenter"


class Settings(AutomaticMaskSection):
    """Automatic mask generation; the defaults are the paper's."""

    backend: Literal["sam"] = Field("sam", description="who makes every mask")
    model: Literal["vit_h", "vit_l", "vit_b", "demo", "tiny"] = Field("vit_h", description="size of the image encoder")
    checkpoint: str = Field("sam_vit_h", description="registry name, path, or random:SEED")
    decoder: Literal["auto", "official", "absorb", "lowrank"] = Field(
        "auto", description="form of the mask decoder, same masks; auto: lowrank on a CPU, absorb on a GPU"
    )

    @classmethod
    def tiny(cls) -> Settings:
        """Thresholds that let random masks through, so that every photograph has some."""
        return cls(
            model="tiny",
            checkpoint="random:0",
            points_per_side=4,
            pred_iou_thresh=0.0,
            stability_score_thresh=0.3,
            box_nms_thresh=0.95,
        )


def load(settings: Settings, numerics: Numerics, device: str) -> AutomaticSegmenter:
    """Build SAM on a device.

    Raises MissingDependency if the checkpoint is missing, UsageError if it is not one of this model or if the settings
    contradict each other.
    """
    import torch

    from pseudoris_cli.networks import numerics as arithmetic
    from pseudoris_cli.networks.sam.automatic import AutomaticMasks
    from pseudoris_cli.networks.sam.segment_anything_network import SegmentAnything

    automatic_masks.check_grid(settings)
    arithmetic.set_up(numerics)
    sam = _weights(settings).to(torch.device(device))
    for part in (sam.image_encoder, sam.mask_decoder):  # prompts are sines of large angles and stay in float32
        part.to(arithmetic.dtype_of(numerics))
    on_gpu = torch.device(device).type != "cpu"
    form, chunk = _resolve(settings, on_gpu)
    network = SegmentAnything(sam, _decoder(form, sam, chunk))
    if numerics.compile:
        network.compile()
    generator = AutomaticMasks(network, automatic_masks.generation(settings), gather=on_gpu and form != "official")
    return AutomaticSegmenter(generator, settings.channels, {"decoder": form, "prompt_chunk": chunk})


def memory(settings: Settings, work: Work) -> Memory:
    """What `load` and one call need of a device, for pictures of 640 x 480."""
    from pseudoris_cli.networks.memory import on_meta
    from pseudoris_cli.networks.sam.memory import memory as of_network
    from pseudoris_cli.networks.sam.sizes import SIZES, empty

    size = SIZES[settings.model]
    network = cast("Sam", on_meta(f"sam {settings.model}", lambda: empty(size)))
    return of_network(size, network, *_resolve(settings, work.on_gpu), work, pixels=640 * 480)


def _weights(settings: Settings) -> Sam:
    """SAM on the CPU in float32 with the checkpoint's weights."""
    from pseudoris_cli.networks.sam.sizes import SIZES, empty, randomise

    checkpoint = weights.resolve(settings.checkpoint)
    sam = empty(SIZES[settings.model])
    if checkpoint.path is None:
        assert checkpoint.seed is not None
        return randomise(sam, tensors.torch_generator(checkpoint.seed))
    state = unwrapped(tensors.load_tensors(checkpoint.path), sam.state_dict(), str(checkpoint.path))
    try:
        sam.load_state_dict(state, strict=True, assign=True)
    except (RuntimeError, AttributeError) as error:
        raise UsageError(
            f"{checkpoint.path} is no checkpoint of masks.sam.model={settings.model}: {_difference(sam, state)}\n"
            "set masks.sam.model to the size that the file holds (vit_h, vit_l or vit_b), or give another file"
        ) from error
    return sam.float().requires_grad_(False)


def _difference(sam: Sam, state: dict[str, Any]) -> str:
    """Which tensors a checkpoint lacks, has too many, or has in another shape, the first few of each by name."""
    wanted = {name: tuple(tensor.shape) for name, tensor in sam.state_dict().items()}
    found = {name: tuple(getattr(tensor, "shape", ())) for name, tensor in state.items()}
    groups = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [str(name) for name in found if name not in wanted],
        "of another shape": [
            f"{name} {found[name]}, not {shape}" for name, shape in wanted.items() if found.get(name, shape) != shape
        ],
    }
    said = [
        f"{len(names)} tensors {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in groups.items()
        if names
    ]
    return "; ".join(said) or "its values are not tensors"


def _resolve(settings: Settings, on_gpu: bool) -> tuple[str, int]:
    """The form of the mask decoder and the points in one call of it, where the settings leave them to the device."""
    form = settings.decoder if settings.decoder != "auto" else "absorb" if on_gpu else "lowrank"
    return form, settings.prompt_chunk or (64 if on_gpu or form == "official" else 4)


def _decoder(form: str, sam: Sam, chunk: int) -> PromptDecoder:
    """A mask decoder in one of its forms."""
    from pseudoris_cli.networks.sam.decoder import OfficialDecoder
    from pseudoris_cli.networks.sam.decoder_absorbed import AbsorbedDecoder
    from pseudoris_cli.networks.sam.decoder_lowrank import LowRankDecoder

    forms: dict[str, Callable[[Sam, int], PromptDecoder]] = {
        "official": OfficialDecoder,
        "absorb": AbsorbedDecoder,
        "lowrank": LowRankDecoder,
    }
    return forms[form](sam, chunk)
