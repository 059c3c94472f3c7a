"""From backend settings to a loaded backend, and to what identifies it in a version."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.method.protocols import PROTOCOLS
from pseudoris_cli.settings import plugins
from pseudoris_cli.settings.models import BackendSettings, Numerics, versioned
from pseudoris_cli.weights import registry as weights

_NO_RESULT = {"checkpoint"}
"""A checkpoint counts by its digest, wherever its file lies."""


def load(settings: BackendSettings, numerics: Numerics, device: str) -> Any:
    """Build the backend on a device; imports torch.

    MissingDependency (exit 3) if a checkpoint or package is missing, UsageError (exit 2) if what the module returns lacks
    something that its role needs.
    """
    module = plugins.load(plugins.BACKENDS, settings.backend)
    backend = module.load(settings, numerics, device)
    for protocol in (PROTOCOLS[role] for role in plugins.roles_of(module)):
        if backend is not None and not isinstance(backend, protocol):
            lacking = [name for name in sorted(_members(protocol)) if not hasattr(backend, name)]
            raise UsageError(
                f"the backend {settings.backend!r} gives a {type(backend).__name__} that lacks {', '.join(lacking)}; derive its "
                f"class from pseudoris_cli.method.protocols.{protocol.__name__}"
            )
    return backend


def _members(protocol: type) -> set[str]:
    """The names that a protocol asks for."""
    own = {*vars(protocol), *getattr(protocol, "__annotations__", {})}
    return {name for name in own if not name.startswith("_")}


def identify(settings: BackendSettings, setting: str) -> dict[str, str]:
    """Name and digest of the weights that the settings stand for, without importing torch; `setting` is their dotted name.

    A backend without weights of its own may tell what identifies it by `version(settings)`. Of a backend that is not ours
    the package and its number are told as well. MissingDependency (exit 3) if the checkpoint is not here.
    """
    found = _weights(settings, setting)
    plug_in = plugins.identity(plugins.BACKENDS, settings.backend)
    if plug_in is None:
        return found
    return {"name": settings.backend, "digest": plug_in} | found | {"plug_in": plug_in}


def _weights(settings: BackendSettings, setting: str) -> dict[str, str]:
    module = plugins.load(plugins.BACKENDS, settings.backend)
    if version := getattr(module, "version", None):
        return {"name": settings.backend, "digest": version(settings)}
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


def check_images(settings: BackendSettings, keys: Iterable[str]) -> list[str]:
    """What of a backend's own data does not fit the images of a work directory, in lines; nothing of most backends.

    A backend that reads data of the user's may define `check_images(settings, keys)`, which raises UsageError (exit 2) where the
    work would be in vain.
    """
    check = getattr(plugins.load(plugins.BACKENDS, settings.backend), "check_images", None)
    return check(settings, keys) if check else []


def check_reachable(settings: BackendSettings) -> None:
    """Ask the server of a backend that runs elsewhere whether it answers and takes the key; raises as its `load` does."""
    if check := getattr(plugins.load(plugins.BACKENDS, settings.backend), "check", None):
        check(settings)


def results_of(settings: BackendSettings) -> dict[str, Any]:
    """The settings that change results, as JSON."""
    return versioned(settings, exclude=_NO_RESULT | settings.NO_RESULT)
