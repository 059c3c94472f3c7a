"""Tables and help at 60, 80 and 160 columns: all figures are there, none is cut, and nothing is wider than the terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invoking import invoke

from pseudoris_cli.cli import console
from pseudoris_cli.cli.tables import Column, table_lines
from pseudoris_cli.storage.stage_table import commands

WIDTHS = (60, 80, 160)
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CELL = st.text("ab, -9.±", max_size=30).map(lambda text: " ".join(text.split()))


@given(st.integers(1, 6), st.integers(20, 200), st.data())
def test_no_cell_is_cut_at_any_width(columns: int, width: int, data: st.DataObject) -> None:
    heads = [Column(f"heading {n} of it", data.draw(st.booleans()), data.draw(st.booleans())) for n in range(columns)]
    rows = data.draw(st.lists(st.lists(CELL, min_size=columns, max_size=columns), min_size=1, max_size=4))
    lines = table_lines(heads, rows, width)
    words = [word.strip(",") for line in lines for word in line.split()]
    for row in rows:
        for word in " ".join(row).split():
            assert word.strip(",") in words
    longest = max(len(word) for row in rows for cell in row for word in cell.split() or [""])
    assert max(map(len, lines)) <= max(width, longest + 3), "a word that is too wide, indented, with a comma"


def test_a_column_that_folds_is_as_wide_as_its_longest_word() -> None:
    heads = [Column("heading 0", right=False), Column("heading 1", False), Column("heading 2", False, folds=True)]
    assert table_lines(heads, [["", "", "9" * 25]], 35) == ["", "  heading 2", "  " + "9" * 25]


def test_cells_of_a_column_stand_below_each_other_and_below_the_heading() -> None:
    heads = [Column("name", right=False), Column("well-formed"), Column("with a referring one")]
    rows = [["plain sampling", "100.0", "7"], ["beam", "9.5", "66.7"]]
    assert table_lines(heads, rows, 80) == [
        "name            well-formed  with a referring one",
        "plain sampling        100.0                     7",
        "beam                    9.5                  66.7",
    ]
    assert table_lines(heads, rows, 36) == [
        "                           with a",
        "                 well-  referring",
        "name            formed        one",
        "plain sampling   100.0          7",
        "beam               9.5       66.7",
    ]
    assert table_lines(heads, rows, 22) == [
        "name",
        "             with a",
        "   well-  referring",
        "  formed        one",
        "plain sampling",
        "   100.0          7",
        "beam",
        "     9.5       66.7",
    ]


def lines_at(width: int, monkeypatch: pytest.MonkeyPatch, *call: str | Path) -> list[str]:
    """What a terminal of that width is given."""
    monkeypatch.setattr(console.out, "_force_terminal", True)
    monkeypatch.setattr(console.out, "_width", width)
    done = invoke(*call)
    assert done.code == 0, done.stderr
    return CODES.sub("", done.stdout).splitlines()


def figures(lines: list[str]) -> list[str]:
    """All that has a digit in it, sorted."""
    return sorted(word.strip(",;:()") for word in " ".join(lines).split() if any(c.isdigit() for c in word))


@pytest.mark.parametrize(
    "call",
    [
        ("evaluate", "--work", "{demo}/work", "--truth", "{demo}/scenes/truth.json"),
        ("filter", "--work", "{demo}/work", "--profile", "demo", "--device", "cpu"),
        ("weights", "list"),
    ],
    ids=lambda call: call[0],
)
def test_every_table_has_all_its_figures_at_every_width(
    demo_run: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, call: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PSEUDORIS_WEIGHTS", "/w")  # its path is in the list
    filled = [part.replace("{demo}", str(demo_run[0])) for part in call]
    shown = {width: lines_at(width, monkeypatch, *filled) for width in WIDTHS}
    for width, lines in shown.items():
        assert "…" not in "".join(lines)
        assert "..." not in "".join(lines)
        wide = [line for line in lines if len(line) > width and str(demo_run[0]) not in line]
        assert not wide, (width, wide)
    assert figures(shown[60]) == figures(shown[80]) == figures(shown[160])
    assert len(figures(shown[60])) > 10


@pytest.mark.parametrize("width", WIDTHS)
def test_help_is_as_wide_as_the_terminal_and_cuts_no_sentence(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    longest = 0
    for command in ((), *((name,) for name in commands()), ("run",), ("weights",), ("config",), ("weights", "fetch")):
        lines = invoke(*command, "--help").stdout.splitlines()
        longest = max(longest, *map(len, lines))
        assert not [line for line in lines if line.endswith("...") and not line.startswith("Usage: ")]
    assert width * 0.85 < longest <= width


def test_a_real_terminal_of_80_columns(tmp_path: Path) -> None:
    """The command itself asks the terminal how wide it is."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    call = [sys.executable, "-m", "pseudoris_cli", "weights", "list"]
    with subprocess.Popen(call, stdout=follower, stderr=follower, env=environment, cwd=tmp_path) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                data = os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
            if not data:
                break
            shown += data
    os.close(leader)
    assert process.returncode == 0
    lines = CODES.sub("", shown.decode()).splitlines()
    table = [line for line in lines if "fetched files" not in line]
    assert 70 < max(map(len, table)) <= 80
    assert "coca_laion2b_b32" in shown.decode()
