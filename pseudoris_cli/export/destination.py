"""Check where an export may be written, so that it never replaces the images, the work directory, or foreign files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudoris_cli.codecs.foreign_names import is_text
from pseudoris_cli.errors import UsageError

MARKER = "pseudoris-export.json"


@dataclass(frozen=True, slots=True)
class ProtectedFolder:
    """A folder that no export replaces or writes into; `description` names it in messages (`the work directory`)."""

    description: str
    path: Path


def check(out: Path, overwrite: bool, protected: Sequence[ProtectedFolder] = ()) -> None:
    """Raise UsageError (exit 2) if an export may not be written to `out`. Call it before the work begins.

    `overwrite` allows to replace a folder that no export made, but none of the `protected` ones.
    """
    if out.name in ("", ".."):
        raise UsageError(f"--out {out} has no name of its own; name a new folder, e.g. --out {out / 'pseudo'}")
    if not is_text(str(out)):
        raise UsageError(
            f"--out {out} is not valid UTF-8, and some formats cannot be written there; choose another folder"
        )
    target = out.resolve()
    for folder in protected:
        if folder.path.resolve().is_relative_to(target):
            raise UsageError(f"--out {out} would replace {folder.description}, {folder.path}; choose another folder")
        if target.is_relative_to(folder.path.resolve()):
            raise UsageError(f"--out {out} lies within {folder.description}, {folder.path}; choose another folder")
    if out.exists() and export_identity(out) is None and not overwrite and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out} exists and was not made by pseudoris; choose another --out, or replace it with --overwrite"
        )


def export_identity(out: Path) -> dict[str, Any] | None:
    """The identity of the export in `out` (`ExportJob.identity`); None where no export of ours is there."""
    try:
        made: dict[str, Any] | None = json.loads((out / MARKER).read_text(encoding="utf-8")).get("export")
    except (OSError, ValueError, AttributeError):
        return None
    return made
