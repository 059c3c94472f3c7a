"""From `--images PATH`, or from what a work directory remembers, to a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.settings import plugins
from pseudoris_cli.sources.base import Source
from pseudoris_cli.sources.detect import detect


def identify(path: Path, kind: str | None = None) -> dict[str, Any]:
    """Kind and location of a source; `kind` is what the user says it is. UsageError if there is nothing at `path`."""
    if not path.exists():
        raise UsageError(f"--images {path}: there is no such file or folder")
    if kind is not None:
        plugins.locate(plugins.SOURCES, kind)
    return {"kind": kind or detect(path), "root": str(path.resolve())}


def describe(path: Path, options: dict[str, str], image_root: Path | None, kind: str | None = None) -> dict[str, Any]:
    """What `source.json` remembers of a source: also what was chosen in it, by the user (`options`) or by default.

    UsageError if it cannot be opened so, or has nothing to choose from.
    """
    found = {
        **identify(path, kind),
        "options": options,
        "image_root": str(image_root.resolve()) if image_root else None,
    }
    chosen = open_source(found).options
    for name in options.keys() - chosen.keys():
        flag = f"--source-{name.replace('_', '-')} {options[name]}"
        raise UsageError(f"{flag}: {path} is read as {found['kind']!r}, where there is nothing to choose by that")
    plug_in = plugins.identity(plugins.SOURCES, found["kind"])
    return {**found, "options": chosen} | ({"plug_in": plug_in} if plug_in else {})


def open_source(description: dict[str, Any]) -> Source:
    """The source that a work directory remembers."""
    kind = str(description.get("kind", ""))
    try:
        module = plugins.load(plugins.SOURCES, kind)
    except UsageError as error:
        raise UsageError(f"source.json names a kind of source that cannot be opened: {error}") from error
    image_root = description.get("image_root")
    root, relocated = Path(description["root"]), Path(image_root) if image_root else None
    source: Source = module.open_source(root, description["options"], relocated)
    if not isinstance(source, Source):
        raise UsageError(
            f"the kind of source {kind!r} gives a {type(source).__name__}, which is no Source; derive its class from "
            "pseudoris_cli.sources.base.Source or FileReader"
        )
    return source
