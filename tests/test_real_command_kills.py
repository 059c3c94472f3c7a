"""SIGKILL after every durable step of the real command, in every stage; tiny random networks."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_server import SMALL, Call, CommandServer, Job
from trivial_stages import check_whole, file_set, paint, rows

ARTIFACTS = {"masks": ["masks"], "captions": ["captions"], "filter": ["scores", "filter"], "export": ["export"]}
BEFORE = {"masks": "nothing", "captions": "masks", "filter": "captions", "export": "filter"}


@pytest.fixture(scope="module")
def server(ram: Path) -> Iterator[CommandServer]:
    with CommandServer(ram / "server") as started:
        yield started


def command(name: str) -> list[str]:
    """The words of a command, to be called in a folder beside the images."""
    more = {"masks": ["--images", "../images"], "export": ["--out", "out", "--format", "refcoco", "--format", "jsonl"]}
    return [name, "--work", "work", *more.get(name, []), *SMALL]


@pytest.fixture(scope="module")
def unbroken(server: CommandServer, ram: Path) -> tuple[Path, dict[str, list[str]]]:
    """A folder with the states after each command of an unbroken run, and the durable steps that each came past."""
    base, steps = ram / "commands", {}
    for number in (1, 2):
        paint(base / "images" / f"{number}.png", number, (48, 36))
    (base / "images" / "2.png").write_bytes(b"no picture")
    (base / "nothing").mkdir()
    for name, before in BEFORE.items():
        shutil.copytree(base / before, base / name)
        done = server.call(base / name, *command(name))
        assert done.code == (4 if name == "masks" else 0), done.err
        steps[name] = done.steps
    return base, steps


def exported(folder: Path) -> dict[str, bytes]:
    """The rendered files, less the marker: it holds when the artifacts were made."""
    files = (path for path in (folder / "out").rglob("*") if path.is_file() and path.name != "pseudoris-export.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", list(ARTIFACTS))
def test_a_kill_at_any_step_loses_and_leaves_nothing(
    server: CommandServer, unbroken: tuple[Path, dict[str, list[str]]], name: str
) -> None:
    base, steps = unbroken[0], unbroken[1][name]
    expected = {stage: rows(base / name / "work", stage) for stage in ARTIFACTS[name]}
    assert all(expected.values())
    deaths = [0] + [number for number, step in enumerate(steps) if step.startswith("after")]
    assert len(deaths) >= 20
    cases = [base / f"{name}-{number}" for number in deaths]
    jobs = []
    for case, number in zip(cases, deaths, strict=True):
        shutil.copytree(base / BEFORE[name], case)
        jobs.append(Job(str(case), [Call(command(name), kill_at=number), Call(command(name))]))
    for case, number, (killed, resumed) in zip(cases, deaths, server.run(jobs), strict=True):
        step = f"{steps[number]}, step {number}"
        assert killed.code == -signal.SIGKILL, (step, killed.err)
        assert resumed.code == (4 if name == "masks" else 0), (step, resumed.err)
        for stage, wanted in expected.items():
            check_whole(case / "work", stage)
            assert rows(case / "work", stage) == wanted, step
        assert file_set(case) == file_set(base / name), step
        assert exported(case) == exported(base / name), step
        shutil.rmtree(case)
