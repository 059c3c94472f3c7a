"""Nobody in that role. Without a detector the masks stage keeps SAM's own masks by its `rules`; without a listener there is no
judge stage."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pseudoris_cli.settings.models import BackendSettings, Numerics

ROLE = ("proposer", "listener")


class Settings(BackendSettings):
    """There is nothing to set."""

    backend: Literal["none"] = Field("none", description="nobody in this role")

    @classmethod
    def tiny(cls) -> Settings:
        return cls()


def load(settings: Settings, numerics: Numerics, device: str) -> Any:
    """Nobody; the stages know what to do without."""
    return None
