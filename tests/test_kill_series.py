"""A few kills at random moments of each stage of the real command; `benchmarks/soak.py` does hundreds."""

from __future__ import annotations

from pathlib import Path

from command_server import CommandServer
from kill_series import BEFORE, KINDS, Unbroken, run_series


def test_kills_at_random_moments_lose_nothing(command_server: CommandServer, ram_path: Path) -> None:
    unbroken = Unbroken.make(ram_path / "commands", command_server, images=3)
    plan = [(command, kind, 2) for command in BEFORE if command != "run" for kind in KINDS[:3]]
    for series in run_series(command_server, unbroken, plan, seed=0):
        assert series.found["kills"] == 2
        assert series.found["checked to the end"] >= 1
