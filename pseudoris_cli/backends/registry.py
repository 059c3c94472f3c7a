"""From backend settings to a loaded backend, and to what identifies its weights in a version."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pseudoris_cli.errors import MissingDependency
from pseudoris_cli.settings.models import BackendSettings, Numerics
from pseudoris_cli.weights import registry as weights

_NO_RESULT = {"checkpoint"}
"""A checkpoint counts by its digest, wherever its file lies."""


def load(settings: BackendSettings, numerics: Numerics, device: str) -> Any:
    """Build the backend on a device; imports torch. MissingDependency (exit 3) if a checkpoint or package is missing."""
    return import_module(f"pseudoris_cli.backends.{settings.backend}").load(settings, numerics, device)


def identify(settings: BackendSettings, setting: str) -> dict[str, str]:
    """Name and digest of the weights that the settings stand for, without importing torch; `setting` is their dotted name.

    MissingDependency (exit 3) if the checkpoint is not here.
    """
    module = import_module(f"pseudoris_cli.backends.{settings.backend}")
    if hasattr(module, "version"):
        return {"name": settings.backend, "digest": module.version(settings)}
    name = getattr(settings, "checkpoint", None)
    if name is None:
        return {}
    try:
        checkpoint = weights.resolve(name, getattr(settings, "model", ""))
    except MissingDependency as error:
        raise MissingDependency(
            f"{error}\nor, for a first look without it, take random weights:  --set {setting}.checkpoint=random:0"
        ) from None
    return {"name": checkpoint.name, "digest": checkpoint.digest}


def results_of(settings: BackendSettings) -> dict[str, Any]:
    """The settings that change results, as JSON."""
    return settings.model_dump(mode="json", exclude=_NO_RESULT | settings.NO_RESULT)
