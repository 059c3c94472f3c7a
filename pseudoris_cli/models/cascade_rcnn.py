"""Object proposals by CutLER (Wang et al., 2023): Cascade Mask R-CNN R50-FPN without detectron2."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pseudoris_cli.config import BackendSettings, Channels, Fraction


class Settings(BackendSettings):
    """Detection settings; the defaults are the paper's."""

    backend: Literal["cascade_rcnn"] = "cascade_rcnn"
    model: Literal["r50_fpn", "demo", "tiny"] = "r50_fpn"
    checkpoint: str = Field("cutler_cascade", description="registry name, path, or random:SEED")
    channels: Channels = Field("rgb", description="colour order into the network (release: bgr)")
    score_thresh: Fraction = 0.5
    min_size: int = Field(800, ge=32, description="shortest edge of the network's input")
    max_size: int = Field(1333, ge=32, description="longest edge of the network's input")

    @classmethod
    def tiny(cls) -> Settings:
        return cls(model="tiny", checkpoint="random:0", min_size=128, max_size=256)
