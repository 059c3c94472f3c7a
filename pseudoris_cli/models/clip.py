"""Image-text similarity by CLIP (Radford et al., 2021) through open_clip."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pseudoris_cli.config import BackendSettings


class Settings(BackendSettings):
    """The scorer; the defaults are the paper's."""

    backend: Literal["clip"] = "clip"
    model: str = Field("RN50", description="open_clip model name, `demo` or `tiny`")
    checkpoint: str = Field("clip_rn50", description="registry name, path, open_clip tag, or random:SEED")

    @classmethod
    def tiny(cls) -> Settings:
        return cls(model="tiny", checkpoint="random:0")
