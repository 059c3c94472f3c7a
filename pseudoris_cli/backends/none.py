"""No detector: the masks stage then keeps SAM's own masks by its `rules`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pseudoris_cli.settings.models import BackendSettings, Numerics

ROLE = "proposer"


class Settings(BackendSettings):
    """There is nothing to set."""

    backend: Literal["none"] = Field("none", description="who says which masks are objects")

    @classmethod
    def tiny(cls) -> Settings:
        return cls()


def load(settings: Settings, numerics: Numerics, device: str) -> Any:
    """No proposer; the stage knows what to do without one."""
    return None
