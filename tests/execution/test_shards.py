"""Several shards at once on one work directory: one dies, another division takes over, and the rows are those of one run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trivial_stages import Bench, check_whole, file_set, in_child, no_trick, paint_folder, rows

from pseudoris_cli.execution.tasks import Selection


@pytest.fixture
def bench(ram_path: Path) -> Bench:
    """Sixteen images in eight parts."""
    return Bench(ram_path / "work", paint_folder(ram_path / "images", 16), part_size=2)


def at_once(actions: list[Callable[[], Any]]) -> list[int]:
    """Run in processes side by side; their exit codes."""
    pids = []
    for action in actions:
        pid = os.fork()
        if not pid:
            os._exit(in_child(action) & 0xFF)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def shards(bench: Bench, stage: str, count: int, killed: int | None = None) -> list[int]:
    """All shards of a stage at once; one of them is killed within its second part."""
    actions = []
    for index in range(count):
        one = replace(bench, selection=Selection(shard=(index, count)))
        if index == killed:
            victim = f"{2 * (index + count):03}.png"
            one.trick = lambda key, _, victim=victim: os.kill(os.getpid(), signal.SIGKILL) if key == victim else None
        actions.append(getattr(one, stage))
    return at_once(actions)


def test_a_killed_shard_is_taken_over_by_another_division(bench: Bench) -> None:
    whole = Bench(bench.work.parent / "whole", bench.images, part_size=2)
    for stage in ("masks", "captions"):
        getattr(whole, stage)()
        assert shards(bench, stage, 3, killed=1) == [0, -signal.SIGKILL & 0xFF, 0]
        done = set(bench.workspace.latest(stage).manifest().entries)
        assert 1 in done, "what the shard had committed is kept"
        assert 4 not in done
        assert shards(bench, stage, 2) == [0, 0]
        check_whole(bench.work, stage)
        assert rows(bench.work, stage) == rows(whole.work, stage)
        again = replace(bench, selection=Selection(), trick=no_trick)
        assert getattr(again, stage)().nothing_to_do
    for shard in ((1, 3),):
        replace(bench, selection=Selection(shard=shard)).masks()
    listed = {entry.file.name for entry in bench.workspace.latest("masks").manifest().entries.values()}
    assert {
        name.rpartition("/")[2] for name in file_set(bench.work) if name.startswith("masks") and "part-" in name
    } == listed


def test_the_script_that_benchmarks_run_is_the_documented_one(repository: Path) -> None:
    script = (repository / "docs" / "array.sbatch").read_text()
    assert f"```bash\n{script}```" in (repository / "docs" / "scaling.md").read_text()
