"""SIGKILL after every durable step of the real command, in every stage; tiny random networks."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from command_server import Call, CommandServer, Job
from kill_series import ARTIFACTS, BEFORE, EXIT, Unbroken, words


@pytest.fixture(scope="module")
def unbroken(command_server: CommandServer, ram: Path) -> Unbroken:
    """The states after each command of an unbroken run."""
    return Unbroken.make(ram / "commands", command_server, images=2)


@pytest.mark.parametrize("name", list(ARTIFACTS))
def test_a_kill_at_any_step_loses_and_leaves_nothing(
    command_server: CommandServer, unbroken: Unbroken, name: str
) -> None:
    steps = unbroken.steps[name]
    deaths = [0] + [number for number, step in enumerate(steps) if step.startswith("after")]
    assert len(deaths) >= 20
    cases = [unbroken.base / f"{name}-{number}" for number in deaths]
    jobs = []
    for case, number in zip(cases, deaths, strict=True):
        shutil.copytree(unbroken.base / BEFORE[name], case)
        jobs.append(Job(str(case), [Call(words(name), kill_at=number), Call(words(name))]))
    for case, number, (killed, resumed) in zip(cases, deaths, command_server.run(jobs), strict=True):
        step = f"{steps[number]}, step {number}"
        assert killed.code == -signal.SIGKILL, (step, killed.err)
        assert resumed.code == EXIT.get(name, 0), (step, resumed.err)
        unbroken.check(case, name)
        shutil.rmtree(case)
