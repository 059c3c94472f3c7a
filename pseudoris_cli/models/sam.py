"""Automatic masks by Segment Anything (Kirillov et al., 2023) through segment_anything's modules and checkpoints."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pseudoris_cli.config import BackendSettings, Channels, Fraction


class Settings(BackendSettings):
    """Automatic mask generation; the defaults are the paper's."""

    backend: Literal["sam"] = "sam"
    model: Literal["vit_h", "vit_l", "vit_b", "demo", "tiny"] = "vit_h"
    checkpoint: str = Field("sam_vit_h", description="registry name, path, or random:SEED")
    channels: Channels = Field("rgb", description="colour order into the network (release: bgr)")
    points_per_side: int = Field(32, ge=1)
    pred_iou_thresh: float = 0.5
    stability_score_thresh: Fraction = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: Fraction = 0.7
    crop_n_layers: int = Field(0, ge=0)
    crop_nms_thresh: Fraction = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = Field(1, ge=1)

    @classmethod
    def tiny(cls) -> Settings:
        return cls(model="tiny", checkpoint="random:0", points_per_side=4, pred_iou_thresh=-100.0, stability_score_thresh=0.0)
