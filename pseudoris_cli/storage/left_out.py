"""What the last listing of the source passed over, by kind: kept in the work directory, so that `status` can say it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pseudoris_cli.storage import files

NAME = "left_out.json"


def save(work: Path, kinds: dict[str, dict[str, Any]]) -> None:
    """Remember `{kind: {"count", "example"}}`; the file is gone where nothing was passed over. Call it while planning is locked."""
    path = work / NAME
    if load(work) == kinds:
        return
    if kinds:
        files.replace_json(path, kinds)
    else:
        path.unlink(missing_ok=True)


def load(work: Path) -> dict[str, dict[str, Any]]:
    """What was remembered; empty where there is nothing, or nothing readable."""
    try:
        found = json.loads((work / NAME).read_text(encoding="utf-8"))
        return {str(kind): {"count": int(row["count"]), "example": str(row["example"])} for kind, row in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def described(work: Path) -> list[str]:
    """A line for each kind."""
    return [
        f"left out: {row['count']:,} {kind}, e.g. {row['example']}"
        for kind, row in sorted(load(work).items(), key=lambda item: (-item[1]["count"], item[0]))
    ]
