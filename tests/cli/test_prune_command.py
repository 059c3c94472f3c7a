"""`pseudoris prune`: it asks, and deletes only what nothing refers to."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from command_server import SMALL
from invoking import draw_pictures, invoke, rows_of


class Terminal(io.StringIO):
    """Standard input of somebody who types this."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Two versions of the masks, of which the second is current."""
    draw_pictures(tmp_path / "images", 1)
    for most in (1, 2):
        more = ["--images", tmp_path / "images", *SMALL, "--set", f"masks.max_per_image={most}"]
        assert invoke("masks", "-q", "--work", tmp_path / "work", *more).code == 0
    return tmp_path / "work"


def test_prune_asks_and_keeps_what_is_current(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    current = (work / "masks" / "current").read_text().strip()
    rows, folders = rows_of(work, "masks"), {path.name for path in (work / "masks").iterdir() if path.is_dir()}
    (old,) = folders - {current}

    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    refused = invoke("prune", "--work", work)
    assert (refused.code, old in refused.stdout) == (2, True)
    assert "--yes" in refused.stderr
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert invoke("prune", "--work", work).code == 0
    assert (work / "masks" / old).is_dir()

    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert "deleted 1" in invoke("prune", "--work", work).stdout
    assert {path.name for path in (work / "masks").iterdir() if path.is_dir()} == {current}
    assert rows_of(work, "masks") == rows
    assert invoke("prune", "--work", work, "--yes").stdout == "nothing to prune\n"


def test_yes_deletes_without_a_question(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert "deleted 1" in invoke("prune", "--work", work, "--yes").stdout
    assert sum(path.is_dir() for path in (work / "masks").iterdir()) == 1
