"""Where an export may go: what a folder holds that we did not make stays, whatever the flags say of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.sources.base import is_text

MARKER = "pseudoris-export.json"


def check(out: Path, overwrite: bool, kept: Sequence[tuple[str, Path]]) -> None:
    """UsageError (exit 2) if `out` may not be replaced: before hours of work, not after.

    `kept` are folders, with what they are, that no export replaces or writes into, not even with `overwrite`.
    """
    if out.name in ("", ".."):
        raise UsageError(f"--out {out} has no name of its own; name a new folder, e.g. --out {out / 'pseudo'}")
    if not is_text(str(out)):
        raise UsageError(f"--out {out} is no UTF-8, which some formats cannot be written below; choose another folder")
    place = out.resolve()
    for what, folder in kept:
        if folder.resolve().is_relative_to(place):
            raise UsageError(f"--out {out} would replace {what}, {folder}; choose another folder")
        if place.is_relative_to(folder.resolve()):
            raise UsageError(f"--out {out} lies within {what}, {folder}; choose another folder")
    if out.exists() and made_by_us(out) is None and not overwrite and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out} exists and was not made by pseudoris; choose another --out, or replace it with --overwrite"
        )


def made_by_us(out: Path) -> dict[str, Any] | None:
    """What an export that we made there says of itself."""
    try:
        made: dict[str, Any] | None = json.loads((out / MARKER).read_text(encoding="utf-8")).get("export")
    except (OSError, ValueError, AttributeError):
        return None
    return made
