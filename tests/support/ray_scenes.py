"""What the tests of the Ray engine do in a process of their own: tricks that workers play, and runs by a Ray of two workers."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import psutil
import trivial_stages
from short_memory import only_one_by_one
from trivial_stages import Bench, MaskSpec

from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.execution.ray.cluster import QUIET, RayCluster
from pseudoris_cli.execution.ray.engine import RayEngine
from pseudoris_cli.execution.runner import Summary
from pseudoris_cli.execution.tasks import PartInput, PartResult
from pseudoris_cli.stages import batching

ENGINE = RayEngine(RayCluster(workers=2))
FAST_CHECKS = {"RAY_health_check_period_ms": "500", "RAY_health_check_timeout_ms": "2000"}
FAST_CHECKS |= {"RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_failure_threshold": "3"}
"""Ray takes a machine for lost after half a minute; here sooner."""
VARIABLES = {"MKL_CBWR": "AVX2", "HF_HUB_OFFLINE": "1", "PSEUDORIS_WEIGHTS": "/nowhere"}
"""Of the driver that joins a cluster; its workers are to have them, though the cluster was started without."""
MARK = "PSEUDORIS_TEST_OF_RAY"
"""An environment variable that all processes of these tests inherit."""


@dataclass(frozen=True)
class Trick:
    """Something that happens to one image (or to every one), at most `times` times, which is counted in the folder `place`."""

    victim: str | None
    place: Path
    times: int = 1000

    def __call__(self, key: str, together: int) -> None:
        if self.victim in (key, None):
            for number in range(self.times):
                try:
                    (self.place / f"{key}-{number}").touch(exist_ok=False)
                except FileExistsError:
                    continue
                self.play()
                return

    def play(self) -> None:
        """What happens."""


class Kill(Trick):
    """The worker dies."""

    def play(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class LoseNode(Trick):
    """The machine of the worker dies, if it is this one: its raylet and the worker itself; on others the worker waits for that."""

    node: str = ""

    def play(self) -> None:
        import ray

        if ray.get_runtime_context().get_node_id() == self.node:
            (self.place / "gone").touch()
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        while not (self.place / "gone").exists():
            time.sleep(0.01)


class Wait(Trick):
    """The worker does not go on before there is a file `go`."""

    def play(self) -> None:
        while not (self.place / "go").exists():
            time.sleep(0.01)


class Refuse(Trick):
    """The worker finds something that the user can fix."""

    def play(self) -> None:
        raise UsageError("mend this first")


class Threads(Trick):
    """The worker tells how many threads its libraries were allowed."""

    def play(self) -> None:
        (self.place / "threads").write_text(os.environ.get("OMP_NUM_THREADS", "not set"))


class Variables(Trick):
    """The worker tells which variables it was started with."""

    def play(self) -> None:
        (self.place / "variables").write_text(json.dumps(dict(os.environ)))


class Unready(MaskSpec):
    """A stage whose networks cannot be loaded."""

    def make_worker(self) -> MaskSpec:
        raise MissingDependency("there is no checkpoint")


class Short(MaskSpec):
    """A stage whose device has memory for one image at a time."""

    def run(self, part: PartInput) -> PartResult:
        def short(part: PartInput, size: int, work: batching.Work, stage: str) -> PartResult:
            return batching.run_batches(part, size, only_one_by_one(work, 0), stage)

        with mock.patch.object(trivial_stages, "run_batches", short):
            return super().run(part)


def run(
    bench: Bench, stage: str, part_timeout: float | None = None, kind: type[MaskSpec] = MaskSpec
) -> tuple[Summary, list[str]]:
    """Run a stage by Ray, this process being the driver; what it came to, and what was logged."""
    ENGINE.part_timeout = part_timeout
    trivial_stages.MaskSpec = kind  # type: ignore[misc]
    return watched(replace(bench, engine=ENGINE), stage)


def watched(bench: Bench, stage: str) -> tuple[Summary, list[str]]:
    """What a stage came to, and what was logged."""
    kept: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: kept.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("pseudoris").handlers = [handler]
    return getattr(bench, stage)(), kept


def address() -> tuple[str, dict[str, str]]:
    """End the workers, and tell where and with which secret others can join our Ray."""
    ENGINE._shutdown()
    assert ENGINE.connection
    secret = {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    return ENGINE.connection.ray.get_runtime_context().gcs_address, secret


def run_at(bench: Bench, stage: str, where: str, secret: dict[str, str]) -> Summary:
    """Run a stage on a Ray that is there."""
    os.environ.update(secret | VARIABLES)
    with closing(RayEngine(RayCluster(workers=2, address=where))) as engine:
        return getattr(replace(bench, engine=engine), stage)()


def run_and_lose_a_node(bench: Bench, stage: str) -> tuple[Summary, list[str]]:
    """Run a stage on two machines, as far as Ray can tell, of which the one that this process is not on dies in its first part."""
    os.environ.update(FAST_CHECKS | QUIET)  # before Ray is imported
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    doomed = cluster.add_node(num_cpus=1)
    bench.trick = LoseNode(None, bench.work.parent, node=doomed.node_id)
    try:
        with closing(RayEngine(RayCluster(workers=2, address=cluster.address))) as engine:
            return watched(replace(bench, engine=engine), stage)
    finally:
        cluster.shutdown()


def marked(mark: str) -> list[str]:
    """The living processes that inherited this mark, less those that multiprocessing keeps."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            if process.environ().get(MARK) == mark and process.pid != os.getpid() and "multiprocessing" not in words:
                found.append(f"{process.pid} {words[:100]}")
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found
