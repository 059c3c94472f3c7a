"""The table of versions: at any width it says which are current, how far each is, and in what it differs from the one before."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pseudoris_cli.cli.console import duration, out, rate, size
from pseudoris_cli.cli.tables import Column, table_lines

if TYPE_CHECKING:
    from pseudoris_cli.storage.status import VersionState
    from pseudoris_cli.storage.versions import Difference

MARK = "*"
SHOWN = 4
"""Differences that a line names; `pseudoris diff` and `status --json` have all."""
_DROPPED = ("size", "parts", "img/s", "begun", "gone", "empty", "left", "rows")
"""What goes first where a terminal is narrow. Stage, version, images and failures always stay."""
_LEFT = ("stage", "version", "begun")


def print_states(states: Sequence[VersionState]) -> None:
    """One row per version, stage by stage and by date, and below it what differs."""
    rows = [_cells(state) for state in states]
    names = [name for name in rows[0] if name not in _OPTIONAL or any(row[name] not in ("", "0") for row in rows)]
    for name in ("", *_DROPPED):
        names = [kept for kept in names if kept != name]
        lines = _lines(names, rows)
        if max(map(len, lines)) <= out.width:
            break
    out.print(lines[0], markup=False)
    for line, state in zip(lines[1:], states, strict=True):
        out.print(line, markup=False)
        if told := details(state):
            for folded in textwrap.wrap(told, max(out.width - 4, 20), break_on_hyphens=False):
                out.print(f"    {folded}", markup=False)


_OPTIONAL = ("failed", "empty", "gone", "img/s", "left")


def details(state: VersionState) -> str:
    """What else is to be said of a version: whether it is a pilot's, and what differs from the one before it."""
    parts = [f"pilot of {state.images:,} images"] if state.pilot else []
    changes = [one for one in state.differs if one.name != "images"]
    return "; ".join([*parts, *([differences_text(changes)] if changes else [])])


def differences_text(differs: Sequence[Difference], most: int = SHOWN) -> str:
    """Differences in one line."""
    more = len(differs) - most
    return ", ".join(map(str, differs[:most])) + (f" and {more} more" if more > 0 else "")


def date_of(state: VersionState) -> str:
    """When a version was begun, in local time."""
    try:
        return datetime.fromisoformat(state.created or "").astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return ""


def _lines(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[str]:
    columns = [Column(name, right=name not in _LEFT) for name in names]
    return table_lines(columns, [[row[name] for name in names] for row in rows], 10_000)


def _cells(state: VersionState) -> dict[str, str]:
    return {
        "stage": state.stage,
        "version": f"{state.version} {MARK}" if state.current else state.version,
        "images": f"{state.images - state.pending:,}/{state.images:,}",
        "failed": f"{state.counts['failed']:,}",
        "empty": f"{state.counts['empty']:,}",
        "gone": f"{state.counts['gone']:,}",
        "rows": f"{state.rows:,}",
        "begun": date_of(state),
        "parts": f"{state.parts:,}/{state.parts_planned:,}",
        "size": size(state.bytes),
        "img/s": rate(state.images_per_second) if state.images_per_second and state.pending else "",
        "left": duration(state.seconds_left) if state.seconds_left else "",
    }
