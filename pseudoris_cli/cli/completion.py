"""What the shell offers after Tab: values of options. Nothing here may fail or print: a broken work directory offers nothing."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel

from pseudoris_cli.errors import PseudorisError
from pseudoris_cli.export.base import ImageMode
from pseudoris_cli.settings import plugins
from pseudoris_cli.settings.resolve import PROFILES
from pseudoris_cli.storage.stage_table import NAMES, stages_of, upstream_of

Offers = list[tuple[str, str]]
"""(value, what it is)."""
_MEANINGS = {
    "paper": "the method of the paper, the release's defects mended",
    "reference": "what the released code computes, defects included",
    "fast": "a quarter of the work",
    "demo": "the embedded networks, for rendered scenes",
    "random": "random weights: shows the steps, no download",
}


def profiles(incomplete: str) -> Offers:
    """The profiles."""
    return _beginning(incomplete, ((name, _MEANINGS.get(name, "")) for name in PROFILES))


def formats(incomplete: str) -> Offers:
    """The export formats, ours and those of installed packages."""
    return _beginning(incomplete, ((name, "") for name in plugins.names(plugins.FORMATS)))


def source_kinds(incomplete: str) -> Offers:
    """The kinds of source."""
    return _beginning(incomplete, ((name, "") for name in plugins.names(plugins.SOURCES)))


def image_modes(incomplete: str) -> Offers:
    """How image files come into an export."""
    return _beginning(incomplete, ((name, "") for name in get_args(ImageMode)))


def devices(incomplete: str) -> Offers:
    """Devices; which of them are there is not looked up, as that loads torch."""
    return _beginning(incomplete, (("cpu", ""), ("cuda:0", "first NVIDIA GPU"), ("mps", "GPU of a Mac")))


def weights(incomplete: str) -> Offers:
    """The registered checkpoints."""
    from pseudoris_cli.weights.registry import registry

    return _beginning(incomplete, ((name, entry.purpose) for name, entry in registry().items()))


def versions(ctx: typer.Context, incomplete: str) -> Offers:
    """The versions in the work directory: of the stage that the command reads, if there is one, else of all."""
    from pseudoris_cli.cli.options import WorkOptions

    offers: Offers = []
    with suppress(PseudorisError, OSError, ValueError, KeyError):
        work = ctx.params.get("work")
        workspace = WorkOptions(Path(work) if work else None).workspace
        own = stages_of(ctx.info_name or "")
        before = upstream_of(own[0].name) if own else None
        for stage in (before,) if before else NAMES:
            current = workspace.current(stage)
            for made in workspace.versions(stage):
                now = ", current" if made.version == current else ""
                offers.append((made.version, f"{stage} of {made.header.get('created', '?')}{now}"))
    return _beginning(incomplete, offers)


def assignments(incomplete: str) -> Offers:
    """NAME=VALUE of every setting: with its choices where these are few, else with its default, to be edited."""
    from pseudoris_cli.settings.models import Settings, backend_sections

    roles = {".".join((*path, "backend")): role for path, role in backend_sections(Settings)}
    offers = []
    for name, info, value in _settings(Settings()):
        choices = plugins.backends_of(roles[name]) if name in roles else _choices(info.annotation)
        for choice in choices or [value]:
            offers.append((f"{name}={_written(choice)}", info.description or ""))
    return _beginning(incomplete, offers)


def _settings(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info, value


def _choices(annotation: Any) -> list[Any]:
    """The values that a type allows, where it lists them."""
    if annotation is bool:
        return [True, False]
    origin = get_origin(annotation)
    if origin is Literal:
        return list(get_args(annotation))
    if origin is Annotated:
        return _choices(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        inside = [_choices(part) for part in get_args(annotation) if part is not type(None)]
        return [*(choice for part in inside for choice in part), None] if all(inside) else []
    return []


def _written(value: Any) -> str:
    """A value as YAML takes it on a command line, without spaces."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), default=str)


def _beginning(incomplete: str, offers: Any) -> Offers:
    return [(value, meaning) for value, meaning in offers if value.startswith(incomplete)]
