"""`pseudoris report` as a command."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner
from work_maker import WorkMaker

from pseudoris_cli.cli.app import app
from pseudoris_cli.cli.report_command import report_on_pilot
from pseudoris_cli.errors import UsageError

Maker = Callable[..., WorkMaker]


def invoke(*arguments: str | Path) -> str:
    """stdout; what the command raises is raised."""
    done = CliRunner().invoke(app, ["report", *map(str, arguments)])
    if done.exception:
        raise done.exception
    return done.stdout


def test_it_prints_the_path_and_nothing_else(maker: Maker, tmp_path: Path) -> None:
    made = maker(2)
    made.all()
    work = made.workspace.root
    assert invoke("--work", work) == f"{work / 'report.html'}\n"
    other = tmp_path / "deep" / "other.html"
    assert invoke("--work", work, "--best", "1", "--out", other, "--quiet") == f"{other}\n"
    assert other.read_text().count('<article class="card"') == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--worst", "2", "--best", "2"), "--worst and --best choose images in different ways"),
        (("--sample", "2", "--ids", "a"), "--sample and --ids choose"),
        (("--ids", ","), "--ids is empty"),
        (("--search", " "), "--search is empty"),
        (("--from", "abc"), "--from abc: there is no such version"),
        (("--out", "."), "is a folder; name a file in it"),
    ],
)
def test_a_foreseeable_mistake_is_named(maker: Maker, arguments: tuple[str, ...], says: str) -> None:
    made = maker(2)
    made.masks()
    with pytest.raises(UsageError, match=says):
        invoke("--work", made.workspace.root, *arguments)


def test_no_work_directory_yet(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no work directory yet"):
        invoke("--work", tmp_path / "absent")


def test_a_pilot_reports_on_its_own_versions(maker: Maker) -> None:
    made = maker(3)
    made.all()
    made.begin_pilot(2)
    pilot = made.masks()
    path = report_on_pilot(made.workspace, made.plan.path.name, quiet=True)
    assert path.name == "report-pilot-2.html"
    text = path.read_text()
    assert pilot.version in text
    assert str(made.workspace.current("filter")) not in text
    assert text.count('<article class="card"') == 2


@pytest.mark.parametrize(
    ("what", "says"),
    [("text", "is no report of pseudoris"), ("null", "is no file that could"), ("pipe", "is no file that could")],
)
def test_a_report_takes_the_place_of_a_report_only(what: str, says: str, maker: Maker, tmp_path: Path) -> None:
    place = Path("/dev/null") if what == "null" else tmp_path / "notes.html"
    if what == "text":
        place.write_text("mine")
    elif what == "pipe":
        os.mkfifo(place)
    work = maker(2).all().root
    with pytest.raises(UsageError, match=says):
        invoke("--work", work, "--out", place)
    assert what != "text" or place.read_text() == "mine"
    for _ in range(2):
        assert invoke("--work", work, "--out", tmp_path / "report.html", "-q") == f"{tmp_path / 'report.html'}\n"
