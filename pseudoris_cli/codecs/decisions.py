"""Decisions made by hand: which texts of which masks to keep or drop, as the report saves them (JSON) or a person writes (CSV)."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudoris_cli.codecs import foreign_text
from pseudoris_cli.errors import UsageError

MOST_BYTES = 1_000_000_000
FORMAT = "pseudoris-decisions-1"
_WORDS = {"keep": True, "drop": False}
_NAMES = ("image", "mask", "text", "decision")

Key = tuple[str, int, str]
"""Image key, mask id, and the text without outer spaces."""


@dataclass(frozen=True)
class Decisions:
    """What was decided, the versions of masks and captions that were looked at (None where the file does not say), and a digest."""

    keep: dict[Key, bool]
    masks: str | None
    captions: str | None
    digest: str


def read_decisions(path: Path) -> Decisions:
    """The decisions of a file. UsageError (exit 2) says what is wrong with it and where; nothing is guessed."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(
                f"{path} is larger than {MOST_BYTES:,} bytes; a file of decisions has a short line for each"
            )
        data = path.read_bytes()
        text = foreign_text.decode(data)
    except OSError as error:
        raise UsageError(f"cannot read the decisions {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path} is no file of decisions: {error}") from error
    header, rows = _json_rows(path, text) if text.lstrip()[:1] in ("{", "[") else _csv_rows(path, text)
    decided: dict[Key, bool] = {}
    for where, row in rows:
        key, keep = _decision(path, where, row)
        if decided.setdefault(key, keep) != keep:
            raise UsageError(
                f"{path}, {where}: {key[2]!r} of mask {key[1]} of {key[0]} is kept in one place and dropped in another"
            )
    return Decisions(decided, header.get("masks"), header.get("captions"), hashlib.sha256(data).hexdigest())


def _json_rows(path: Path, text: str) -> tuple[dict[str, Any], Iterator[tuple[str, Any]]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not whole JSON: {error}; save the decisions again from the report") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT or not isinstance(value.get("decisions"), list):
        raise UsageError(f'{path} is no file of decisions: it needs "format": "{FORMAT}" and a list "decisions"')
    header = {name: value[name] for name in ("masks", "captions") if isinstance(value.get(name), str)}
    return header, ((f"decision {number}", row) for number, row in enumerate(value["decisions"], 1))


def _csv_rows(path: Path, text: str) -> tuple[dict[str, Any], Iterator[tuple[str, Any]]]:
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise UsageError(f"{path} is not whole CSV: {error}") from error
    names = set(rows[0]) if rows else set(_NAMES)
    if not set(_NAMES) <= names:
        raise UsageError(
            f"{path} is no file of decisions: as CSV it needs a first line with the columns {', '.join(_NAMES)}"
        )
    header: dict[str, Any] = {}
    for name in ("masks", "captions"):
        found = {value for row in rows if (value := row.get(name))}
        if len(found) > 1:
            raise UsageError(
                f"{path} has decisions on several versions of {name}: {', '.join(sorted(found))}; one file, one version"
            )
        header |= {name: found.pop()} if found else {}
    return header, ((f"row {number}", row) for number, row in enumerate(rows, 2))


def _decision(path: Path, where: str, row: Any) -> tuple[Key, bool]:
    if not isinstance(row, dict):
        raise UsageError(f"{path}, {where}: not a mapping with {', '.join(_NAMES)}")
    image, mask, text, word = (row.get(name) for name in _NAMES)
    if not isinstance(image, str) or not image or not isinstance(text, str) or not text.strip():
        raise UsageError(f"{path}, {where}: `image` and `text` must be texts that are not empty")
    if isinstance(mask, bool) or not (isinstance(mask, int) or (isinstance(mask, str) and mask.strip().isdecimal())):
        raise UsageError(f"{path}, {where}: `mask` must be the number of a mask, not {mask!r}")
    if not isinstance(word, str) or word.strip().lower() not in _WORDS:
        raise UsageError(f"{path}, {where}: `decision` must be keep or drop, not {word!r}")
    return (image, int(mask), text.strip()), _WORDS[word.strip().lower()]
