"""SIGKILL before and after every durable step, in every trivial stage: the resumed rows are those of the unbroken run."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from trivial_stages import Bench, check_whole, file_set, in_child, kill_at, moments, paint_folder, rows, watch_steps


@pytest.fixture(scope="module")
def unbroken(ram: Path) -> Bench:
    """A work directory whose two stages ran through."""
    folder = ram / "unbroken"
    bench = Bench(folder / "work", paint_folder(folder / "images", 8))
    assert in_child(bench.masks) == 0
    assert in_child(bench.captions) == 0
    return bench


@pytest.mark.parametrize("stage", ["masks", "captions"])
def test_a_kill_at_any_step_loses_and_leaves_nothing(unbroken: Bench, stage: str, ram_path: Path) -> None:
    before = ram_path / "before"
    before.mkdir()
    if stage == "captions":
        shutil.copytree(unbroken.work, before, dirs_exist_ok=True)
        shutil.rmtree(before / "captions")
    shutil.copytree(before, ram_path / "rehearsal")
    steps = moments(getattr(Bench(ram_path / "rehearsal", unbroken.images), stage))
    assert len(steps) >= 2 * (1 + 4 + 4 + 2 * 6)
    expected_rows = rows(unbroken.work, stage)
    expected_files = {name for name in file_set(unbroken.work) if stage == "captions" or "captions" not in name}
    for number, step in enumerate(steps):
        work = ram_path / f"work-{number}"
        shutil.copytree(before, work)
        bench = Bench(work, unbroken.images)

        def dying(bench: Bench = bench, number: int = number) -> None:
            watch_steps(kill_at(number))
            getattr(bench, stage)()

        assert in_child(dying) == -signal.SIGKILL, step
        assert in_child(getattr(bench, stage)) == 0, step
        check_whole(work, stage)
        assert rows(work, stage) == expected_rows, step
        assert file_set(work) == expected_files, step
        shutil.rmtree(work)
