"""Any sequence of runs, kills, shards, growth and change: listed <=> readable, each planned image answered once, by its newest
generation. The kills are real (SIGKILL in a forked process at a durable step). SPINE_EXAMPLES=200 looks further."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from PIL import Image
from trivial_stages import Bench, _masks, check_whole, in_child, kill_at, outcomes, paint, rows, watch_steps

from pseudoris_cli.execution.tasks import Selection
from pseudoris_cli.storage.lineage import Lineage
from pseudoris_cli.storage.status import remove_unreferenced, unreferenced, verify_parts
from pseudoris_cli.storage.workspace import Workspace

MEMORY = Path("/dev/shm")
MOMENTS = st.none() | st.integers(0, 70)
SHARDS = st.none() | st.sampled_from([(0, 2), (1, 2), (0, 3), (2, 3)])


class Spine(RuleBasedStateMachine):
    """A work directory in the hands of an unlucky user."""

    @initialize()
    def begin(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="pseudoris-test-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        self.bench = Bench(folder / "work", folder / "images", part_size=2)
        self.seed = 0
        for _ in range(3):
            self.add()

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            shutil.rmtree(self.bench.work.parent)

    def settle(self) -> None:
        """Whatever happened, one plain run of each stage makes everything whole."""
        self.bench.masks()
        self.bench.captions()
        for path, _ in unreferenced(
            self.bench.workspace
        ):  # what other writers had before; only they or `prune` delete it
            remove_unreferenced(path)
        check_whole(self.bench.work, "masks")
        check_whole(self.bench.work, "captions")
        found = outcomes(self.bench.work, "masks")
        made = rows(self.bench.work, "masks")
        for path in self.bench.images.iterdir():
            expected = [mask.rle.counts for mask in _masks(np.asarray(Image.open(path)))]
            assert found[path.name].status == "done"
            assert [row["rle_counts"] for row in made if row["image_key"] == path.name] == expected

    # --- the world ----------------------------------------------------------------------------------------------------

    @rule()
    def add(self) -> None:
        self.seed += 1
        paint(self.bench.images / f"{self.seed * 37 % 100:02}.png", self.seed)

    @rule(number=st.integers(0, 99))
    def change(self, number: int) -> None:
        if paths := sorted(self.bench.images.iterdir()):
            self.seed += 1
            path = paint(paths[number % len(paths)], self.seed)
            os.utime(path, ns=(0, self.seed))  # the clock is of no help

    @rule(number=st.integers(0, 99))
    @precondition(lambda self: len(list(self.bench.images.iterdir())) > 1)
    def remove(self, number: int) -> None:
        paths = sorted(self.bench.images.iterdir())
        paths[number % len(paths)].unlink()

    # --- the command --------------------------------------------------------------------------------------------------

    @rule(moment=MOMENTS, shard=SHARDS)
    def masks(self, moment: int | None, shard: tuple[int, int] | None) -> None:
        self.run("masks", moment, shard)

    @rule(moment=MOMENTS, shard=SHARDS)
    @precondition(lambda self: self.bench.workspace.begun("masks"))
    def captions(self, moment: int | None, shard: tuple[int, int] | None) -> None:
        self.run("captions", moment, shard)

    def run(self, stage: str, moment: int | None, shard: tuple[int, int] | None) -> None:
        bench = replace(self.bench, selection=Selection(shard=shard, allow_partial=stage == "captions"))

        def unlucky() -> None:
            watch_steps(kill_at(-1 if moment is None else moment))
            getattr(bench, stage)()

        assert in_child(unlucky) in (0, -signal.SIGKILL)

    # --- the disk -----------------------------------------------------------------------------------------------------

    @rule(cut=st.integers(1, 300), number=st.integers(0, 99))
    def tear_a_manifest(self, cut: int, number: int) -> None:
        if paths := sorted(self.bench.work.glob("*/*/manifest-*.jsonl")):
            path = paths[number % len(paths)]
            os.truncate(path, max(0, path.stat().st_size - cut))

    @rule(number=st.integers(0, 99))
    def flip_a_bit_and_verify(self, number: int) -> None:
        if paths := sorted(self.bench.work.glob("*/*/part-*.parquet")):
            path = paths[number % len(paths)]
            data = bytearray(path.read_bytes())
            data[number * 41 % len(data)] ^= 4
            path.write_bytes(data)
        list(verify_parts(self.bench.workspace))

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def listed_means_readable(self) -> None:
        workspace = Workspace(self.bench.work)
        for stage in ("masks", "captions"):
            if not workspace.begun(stage):
                continue
            chain = {name: made.manifest() for name, made in workspace.chain(workspace.latest(stage)).items()}
            lineage = Lineage(chain)
            for part in chain[stage].entries:
                if entry := lineage.entry(stage, part):
                    assert chain[stage].is_intact(entry, digest=True)
            outcomes(self.bench.work, stage)


TestSpine = Spine.TestCase
TestSpine.settings = settings(
    max_examples=int(os.environ.get("SPINE_EXAMPLES", "10")),
    stateful_step_count=10,
    deadline=None,
    derandomize="SPINE_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)
