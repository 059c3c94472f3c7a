"""What segmenters by automatic masks share: the settings of the generator, and its masks as segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from pseudoris_cli.errors import UsageError
from pseudoris_cli.method.protocols import Segment, Segmenter
from pseudoris_cli.settings.models import BackendSettings, Channels, Fraction

if TYPE_CHECKING:
    from pseudoris_cli.networks.sam.automatic import AutomaticMasks, AutomaticMaskSettings, MaskCandidate


class AutomaticMaskSection(BackendSettings):
    """The generator's settings; the defaults are the paper's. A backend says which models and checkpoints there are."""

    model: str = ""
    checkpoint: str = ""
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
    prompt_chunk: int | None = Field(
        None, ge=1, description="points in one decoder call; null: 4 on a CPU, 64 on a GPU or with the official decoder"
    )


class AutomaticSegmenter(Segmenter):
    """A Segmenter (method/protocols.py)."""

    def __init__(self, generator: AutomaticMasks, channels: Channels, resolved: Mapping[str, Any]) -> None:
        self.generator, self.channels, self.resolved = generator, channels, resolved

    @property
    def halvings(self) -> int:
        """How often memory ran out and a chunk of points was halved."""
        return self.generator.halving.times

    def segment(self, images_rgb: Sequence[np.ndarray]) -> list[list[Segment]]:
        """See Segmenter. Empty masks, which SAM's generator keeps where stability is not asked for, are left out."""
        images = [image if self.channels == "rgb" else image[..., ::-1] for image in images_rgb]
        found = self.generator.generate(images)
        return [
            [_segment(mask, *image.shape[:2]) for mask in masks if len(mask.edges)]
            for image, masks in zip(images, found, strict=True)
        ]


def check_grid(settings: AutomaticMaskSection) -> None:
    """UsageError if the smallest crops would have no point."""
    points = settings.points_per_side // settings.crop_n_points_downscale_factor**settings.crop_n_layers
    if not points:
        raise UsageError(
            f"masks.sam: {settings.points_per_side} points a side, divided by "
            f"{settings.crop_n_points_downscale_factor} per crop layer, leave none in layer {settings.crop_n_layers}; "
            "raise points_per_side or lower crop_n_points_downscale_factor"
        )


def generation(settings: AutomaticMaskSection) -> AutomaticMaskSettings:
    """The settings of the generator."""
    from pseudoris_cli.networks.sam.automatic import AutomaticMaskSettings

    names = AutomaticMaskSettings.__dataclass_fields__
    return AutomaticMaskSettings(**{name: getattr(settings, name) for name in names})


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
