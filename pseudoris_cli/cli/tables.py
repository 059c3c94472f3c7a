"""Tables that fit the terminal: no cell is ever cut. Where the columns have no room side by side they go below each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pseudoris_cli.cli.console import out
from pseudoris_cli.text import visible

GAP = 2
_NO_BREAK = "\u00a0"
_HYPHEN = re.compile(r"-(?=\w)")
NARROWEST = 24
"""Columns that a folding cell must have for a table to be readable side by side."""


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, on which side its cells stand, and whether they may be folded at words."""

    heading: str
    right: bool = True
    folds: bool = False


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout, as wide as the terminal at most."""
    for line in table_lines(columns, [[visible(cell) for cell in row] for row in rows], out.width):
        out.print(line, markup=False)


def print_text(text: str) -> None:
    """Print a text on stdout, broken between words on a terminal; elsewhere it stays one line."""
    for line in _fold(visible(text), out.width) if out.is_terminal else [text]:
        out.print(line, markup=False)


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The lines of a table that is at most `width` columns wide, unless a single word is wider.

    Side by side if that fits; else the first cell of a row on a line of its own, the others below it; else as a
    paragraph of headings and values.
    """
    widths = _widths(columns, rows, width)
    if _total(widths) <= width:
        return [*_heading(columns, widths), *(line for row in rows for line in _line(columns, row, widths))]
    below = columns[1:]
    indented = _widths(below, [row[1:] for row in rows], width - GAP)
    if below and _total(indented) + GAP <= width:
        lines = [columns[0].heading, *_indent(_heading(below, indented))]
        for first, *others in rows:
            lines += [*_fold(first, width), *_indent(_line(below, others, indented))]
        return lines
    return [line for row in rows for line in _record(columns, row, width)]


def _record(columns: Sequence[Column], row: Sequence[str], width: int) -> list[str]:
    """A row as a paragraph of `heading value` below its first cell."""
    items = [f"{column.heading} {cell}" for column, cell in zip(columns[1:], row[1:], strict=True) if cell]
    kept_whole = [item.replace(" ", _NO_BREAK) if _length(item) < width - GAP else item for item in items]
    return [*_fold(row[0], width), *_indent(_fold(", ".join(kept_whole), width - GAP))]


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The width of each column: its widest cell or word of the heading; those that fold share what is left.

    Headings stay on one line where there is room for that.
    """
    cells = [max((_length(row[at]) for row in rows), default=0) for at in range(len(columns))]
    words = [max(map(_length, _HYPHEN.sub("- ", column.heading).split()), default=0) for column in columns]
    whole = [max(cell, _length(column.heading)) for cell, column in zip(cells, columns, strict=True)]
    if _total(whole) <= width:
        return whole
    found = [max(pair) for pair in zip(cells, words, strict=True)]
    for at in sorted((at for at, column in enumerate(columns) if column.folds), key=lambda at: -found[at]):
        room = width - (_total(found) - found[at])
        longest = max((_length(word) for row in rows for word in row[at].split()), default=0)
        found[at] = min(found[at], max(room, NARROWEST, words[at], longest))
    return found


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _line(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """A row of cells side by side; as many lines as its longest cell needs."""
    return _side_by_side(columns, [_fold(cell, width) for cell, width in zip(cells, widths, strict=True)], widths)


def _heading(columns: Sequence[Column], widths: Sequence[int]) -> list[str]:
    """The headings, the last line of each just above its cells; they may also be broken after a hyphen."""
    folded = []
    for column, width in zip(columns, widths, strict=True):
        text = column.heading if _length(column.heading) <= width else _HYPHEN.sub("- ", column.heading)
        folded.append([line.replace("- ", "-") for line in _fold(text, width)])
    height = max(map(len, folded))
    return _side_by_side(columns, [[""] * (height - len(lines)) + lines for lines in folded], widths)


def _side_by_side(columns: Sequence[Column], folded: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
    height = max(map(len, folded))
    lines = []
    for number in range(height):
        texts = [lines_of[number] if number < len(lines_of) else "" for lines_of in folded]
        padded = [
            " " * (width - _length(text)) + text if column.right else text + " " * (width - _length(text))
            for column, text, width in zip(columns, texts, widths, strict=True)
        ]
        lines.append((" " * GAP).join(padded).rstrip())
    return lines


def _fold(text: str, width: int) -> list[str]:
    """A text as lines, broken between words only."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if _length(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [line.replace(_NO_BREAK, " ") for line in lines]


def _indent(lines: Sequence[str]) -> list[str]:
    return [" " * GAP + line for line in lines]


def _length(text: str) -> int:
    """Columns of a terminal that a text takes."""
    from rich.cells import cell_len

    return cell_len(text)
