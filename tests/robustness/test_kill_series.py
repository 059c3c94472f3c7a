"""A few kills at random moments of each stage of the real command; `benchmarks/soak.py` does hundreds."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from command_server import CommandServer
from kill_series import BEFORE, KINDS, Series, Unbroken, run_series

from pseudoris_cli.storage.workspace import Workspace


@pytest.fixture(scope="module")
def unbroken(command_server: CommandServer, ram: Path) -> Unbroken:
    """The states after each command of an unbroken run."""
    return Unbroken.make(ram / "kill series", command_server, images=3)


def test_kills_at_random_moments_lose_nothing(command_server: CommandServer, unbroken: Unbroken) -> None:
    plan = [(command, kind, 2) for command in BEFORE if command != "run" for kind in KINDS[:3]]
    for series in run_series(command_server, unbroken, plan, seed=0):
        assert series.found["kills"] == 2
        assert series.found["checked to the end"] >= 1


def test_a_series_whose_kills_made_an_image_look_deadly_ends_well_too(
    command_server: CommandServer, unbroken: Unbroken
) -> None:
    """Three kills in a row in one part: the image is given up, and done again in a new generation of its part."""
    one = Series(unbroken.base / "given up", "captions", KINDS[0], 1, random.Random(0))
    one.begin(unbroken)
    made = Workspace(unbroken.base / "captions" / "work").latest("captions").folder
    folder = one.case / made.relative_to(unbroken.base / "captions")
    folder.mkdir(parents=True)
    crumb = {"deaths": {"0": 2}, "killers": {"0.png": 0}, "working": [], "image": None}
    (folder / "running-main.json").write_text(json.dumps(crumb))
    one.finish(command_server, unbroken)
    assert one.found == {"images given up, done by --retry-failed": 1, "checked to the end": 1}
