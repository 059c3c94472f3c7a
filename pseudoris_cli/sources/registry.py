"""From `--images PATH`, or from what a work directory remembers, to a source."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.sources.base import Source
from pseudoris_cli.sources.detect import sniff


def sniffed(path: Path) -> dict[str, Any]:
    """Kind and place of a source. UsageError if there is nothing at `path`."""
    if not path.exists():
        raise UsageError(f"--images {path}: there is no such file or folder")
    return {"kind": sniff(path), "root": str(path.resolve())}


def describe(path: Path, options: dict[str, str], image_root: Path | None) -> dict[str, Any]:
    """What `source.json` remembers of a source: also what was chosen in it, by the user (`options`) or by default.

    UsageError if it cannot be opened so, or has nothing to choose from.
    """
    found = {**sniffed(path), "options": options, "image_root": str(image_root.resolve()) if image_root else None}
    chosen = getattr(open_source(found), "options", {})
    for name in options.keys() - chosen.keys():
        flag = f"--source-{name.replace('_', '-')} {options[name]}"
        raise UsageError(f"{flag}: {path} is read as {found['kind']!r}, where there is nothing to choose by that")
    return {**found, "options": chosen}


def open_source(description: dict[str, Any]) -> Source:
    """The source that a work directory remembers."""
    kind = str(description.get("kind", ""))
    try:
        opener = import_module(f"pseudoris_cli.sources.{kind}").open_source if kind.isidentifier() else None
    except (ModuleNotFoundError, AttributeError):
        opener = None
    if opener is None:
        raise UsageError(f"source.json names the kind of source {kind!r}, which this pseudoris does not know")
    image_root = description.get("image_root")
    return opener(Path(description["root"]), description["options"], Path(image_root) if image_root else None)
