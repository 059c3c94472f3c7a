"""What the tests of the Ray engine do in a process of their own: tricks that workers play, and runs by a Ray of two workers."""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import trivial_stages
from trivial_stages import Bench, MaskSpec

from pseudoris_cli.engines.ray import RayEngine
from pseudoris_cli.engines.ray_cluster import RayCluster
from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.runner import Summary

ENGINE = RayEngine(RayCluster(workers=2))
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


class Wait(Trick):
    """The worker does not go on before there is a file `go`."""

    def play(self) -> None:
        while not (self.place / "go").exists():
            time.sleep(0.01)


class Refuse(Trick):
    """The worker finds something that the user can mend."""

    def play(self) -> None:
        raise UsageError("mend this first")


class Threads(Trick):
    """The worker tells how many threads its libraries were allowed."""

    def play(self) -> None:
        (self.place / "threads").write_text(os.environ.get("OMP_NUM_THREADS", "not set"))


class Unready(MaskSpec):
    """A stage whose networks cannot be loaded."""

    def make_worker(self) -> MaskSpec:
        raise MissingDependency("there is no checkpoint")


def run(
    bench: Bench, stage: str, part_timeout: float | None = None, unready: bool = False
) -> tuple[Summary, list[str]]:
    """Run a stage by Ray, this process being the driver; what it came to, and what was logged."""
    ENGINE.part_timeout = part_timeout
    kept: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: kept.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("pseudoris").handlers = [handler]
    trivial_stages.MaskSpec = Unready if unready else MaskSpec  # type: ignore[misc]
    return getattr(replace(bench, engine=ENGINE), stage)(), kept


def address() -> tuple[str, dict[str, str]]:
    """Dismiss the workers, and tell where and with which secret others can join our Ray."""
    ENGINE._dismiss()
    assert ENGINE.connection
    secret = {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    return ENGINE.connection.ray.get_runtime_context().gcs_address, secret


def run_at(bench: Bench, stage: str, where: str, secret: dict[str, str]) -> Summary:
    """Run a stage on a Ray that is there."""
    os.environ.update(secret)
    with closing(RayEngine(RayCluster(workers=2, address=where))) as engine:
        return getattr(replace(bench, engine=engine), stage)()


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
