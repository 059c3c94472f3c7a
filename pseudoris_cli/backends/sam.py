"""Automatic masks by Segment Anything (Kirillov et al., 2023) through segment_anything's modules and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from pseudoris_cli.errors import UsageError
from pseudoris_cli.method.protocols import Segment, Segmenter
from pseudoris_cli.settings.models import BackendSettings, Channels, Fraction, Numerics
from pseudoris_cli.weights import registry as weights
from pseudoris_cli.weights import tensors
from pseudoris_cli.weights.unwrapping import unwrapped

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from pseudoris_cli.networks.sam.automatic import AutomaticMasks, MaskCandidate
    from pseudoris_cli.networks.sam.decoder import PromptDecoder

ROLE = "segmenter"


class Settings(BackendSettings):
    """Automatic mask generation; the defaults are the paper's."""

    backend: Literal["sam"] = Field("sam", description="who makes every mask")
    model: Literal["vit_h", "vit_l", "vit_b", "demo", "tiny"] = Field("vit_h", description="size of the image encoder")
    checkpoint: str = Field("sam_vit_h", description="registry name, path, or random:SEED")
    channels: Channels = Field("rgb", description="colour order into the network (release: bgr)")
    points_per_side: int = Field(32, ge=1, description="points of the grid along each side; time grows with the square")
    pred_iou_thresh: float = Field(0.5, description="keep masks predicted above this; 0 or less keeps all")
    stability_score_thresh: Fraction = Field(0.95, description="masks must be as stable against the threshold")
    stability_score_offset: float = Field(1.0, description="shift of the threshold by which stability is measured")
    box_nms_thresh: Fraction = Field(0.7, description="box IoU above which the worse of two masks goes")
    crop_n_layers: int = Field(0, ge=0, description="layers of crops that are segmented too; 0 for none")
    crop_nms_thresh: Fraction = Field(0.7, description="box IoU above which a mask of a larger crop goes")
    crop_overlap_ratio: float = Field(512 / 1500, ge=0, lt=1, description="fraction by which crops overlap")
    crop_n_points_downscale_factor: int = Field(1, ge=1, description="each layer of crops has points fewer by this")
    min_mask_region_area: int = Field(
        0, ge=0, description="holes of fewer pixels are filled, islands removed; 0 keeps masks as they are"
    )
    decoder: Literal["auto", "official", "absorb", "lowrank"] = Field(
        "auto", description="form of the mask decoder, same masks; auto: lowrank on a CPU, absorb on a GPU"
    )
    prompt_chunk: int | None = Field(
        None, ge=1, description="points in one decoder call; null: 4 on a CPU, 64 on a GPU or with the official decoder"
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


class SamSegmenter(Segmenter):
    """A Segmenter (method/protocols.py)."""

    def __init__(self, generator: AutomaticMasks, channels: Channels, resolved: Mapping[str, Any]) -> None:
        self.generator, self.channels, self.resolved = generator, channels, resolved

    def segment(self, images_rgb: Sequence[np.ndarray]) -> list[list[Segment]]:
        """See Segmenter. Empty masks, which SAM's generator keeps where stability is not asked for, are left out."""
        images = [image if self.channels == "rgb" else image[..., ::-1] for image in images_rgb]
        found = self.generator.generate(images)
        return [
            [_segment(mask, *image.shape[:2]) for mask in masks if len(mask.edges)]
            for image, masks in zip(images, found, strict=True)
        ]


def load(settings: Settings, numerics: Numerics, device: str) -> SamSegmenter:
    """Build SAM on a device.

    Raises MissingDependency if the checkpoint is missing, UsageError if it is not one of this model or if the settings
    contradict each other.
    """
    import torch

    from pseudoris_cli.networks import numerics as arithmetic
    from pseudoris_cli.networks.sam.automatic import AutomaticMasks, AutomaticMaskSettings
    from pseudoris_cli.networks.sam.segment_anything_network import SegmentAnything

    points = settings.points_per_side // settings.crop_n_points_downscale_factor**settings.crop_n_layers
    if not points:
        raise UsageError(
            f"masks.sam: {settings.points_per_side} points a side, divided by "
            f"{settings.crop_n_points_downscale_factor} per crop layer, leave none in layer {settings.crop_n_layers}; "
            "raise points_per_side or lower crop_n_points_downscale_factor"
        )
    arithmetic.set_up(numerics)
    sam = _weights(settings).to(torch.device(device))
    for part in (sam.image_encoder, sam.mask_decoder):  # prompts are sines of large angles and stay in float32
        part.to(arithmetic.dtype_of(numerics))
    names = AutomaticMaskSettings.__dataclass_fields__
    generation = AutomaticMaskSettings(**{name: getattr(settings, name) for name in names})
    on_gpu = torch.device(device).type != "cpu"
    form, chunk = _resolve(settings, on_gpu)
    network = SegmentAnything(sam, _decoder(form, sam, chunk))
    if numerics.compile:
        network.compile()
    generator = AutomaticMasks(network, generation, gather=on_gpu and form != "official")
    return SamSegmenter(generator, settings.channels, {"decoder": form, "prompt_chunk": chunk})


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


def _segment(mask: MaskCandidate, height: int, width: int) -> Segment:
    from pseudoris_cli.networks.sam import run_lengths
    from pseudoris_cli.rle import rle_from_counts

    x_min, y_min, x_max, y_max = mask.box_xyxy
    return Segment(
        rle=rle_from_counts(run_lengths.counts(mask.edges, height * width), height, width),
        area=run_lengths.area(mask.edges),
        bbox=(float(x_min), float(y_min), float(x_max - x_min + 1), float(y_max - y_min + 1)),
        predicted_iou=mask.predicted_iou,
        stability_score=mask.stability_score,
    )
