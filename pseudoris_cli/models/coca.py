"""Captions by CoCa (Yu et al., 2022) on open_clip weights, decoded by `pseudoris_cli.decoding`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pseudoris_cli.config import CaptionSettings


class Settings(CaptionSettings):
    """The captions stage with CoCa; the defaults are the paper's."""

    backend: Literal["coca"] = "coca"
    model: str = Field("coca_ViT-L-14", description="open_clip model name, `demo` or `tiny`")
    checkpoint: str = Field("coca_cc3m", description="registry name, path, open_clip tag, or random:SEED")

    @classmethod
    def tiny(cls) -> Settings:
        return cls(model="tiny", checkpoint="random:0", max_length=10)
