"""Head nouns by spaCy's dependency parse, as the release finds them (DCS: head noun of a caption)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pseudoris_cli.config import BackendSettings


class Settings(BackendSettings):
    """The spaCy pipeline that parses captions."""

    backend: Literal["nouns"] = "nouns"
    pipeline: str = Field("en_core_web_lg", description="spaCy package or folder; `demo` for the embedded one; `blank` without parser")

    @classmethod
    def tiny(cls) -> Settings:
        return cls(pipeline="blank")
