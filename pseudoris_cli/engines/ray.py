"""The same worker as Ray actors, one per device. Parts are tasks; the driver stays the only writer."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from pseudoris_cli.devices import DeviceRequest
from pseudoris_cli.engines.base import Finished
from pseudoris_cli.engines.inprocess import InProcess, run_part
from pseudoris_cli.errors import EnvironmentStop, MissingDependency
from pseudoris_cli.loading import Prefetcher, load_image, load_part
from pseudoris_cli.stopping import Stopper
from pseudoris_cli.storage.breadcrumb import Breadcrumb
from pseudoris_cli.work import PartResult, PartTask, StageSpec

POLL_SECONDS = 0.5
LOST_IN_A_ROW = 8
"""So many dead actors without a finished part between them mean a broken cluster, not a bad image."""


@dataclass(frozen=True)
class RayCluster:
    """Where actors run: how many, on which local GPUs, or on which cluster."""

    workers: int
    gpus: tuple[int, ...] = ()
    address: str | None = None


class PartActor:
    """The body of an actor: a worker and a way to read images."""

    def __init__(self, spec: StageSpec) -> None:
        self.spec = spec
        self.worker = spec.make_worker()
        self.load = partial(load_image, spec.source, max_pixels=spec.max_pixels)

    def run(self, task: PartTask, singly: bool) -> tuple[PartResult, float]:
        """Do a part; returns the answer and the seconds it took."""
        started = time.perf_counter()
        prefetcher = Prefetcher(self.load, self.spec.decode_threads, self.spec.decode_ahead, lambda part: None)
        for part in prefetcher.parts([task]):
            return run_part(self.worker, part, singly), time.perf_counter() - started
        raise AssertionError("a task is one part")

    def try_alone(self, task: PartTask) -> None:
        """Do a single image and forget the answer."""
        run_part(self.worker, load_part(task, self.load))


@dataclass
class _Slot:
    """An actor and what it is busy with."""

    actor: Any
    task: PartTask | None = None
    call: Any = None
    trying: deque[Any] = field(default_factory=deque)
    since: float = 0.0


class RayEngine:
    """Runs a stage's worker as Ray actors. A dead actor loses only its part, which is run again elsewhere."""

    def __init__(self, cluster: RayCluster, part_timeout: float | None = None) -> None:
        self.cluster, self.part_timeout = cluster, part_timeout

    def run(
        self, spec: StageSpec, tasks: Iterable[PartTask], breadcrumb: Breadcrumb, stopper: Stopper
    ) -> Generator[Finished, None, None]:
        if spec.source is None:  # selecting rows is faster than moving them
            yield from InProcess(self.part_timeout).run(spec, tasks, breadcrumb, stopper)
            return
        ray = _import_ray()
        with _connected(ray, self.cluster):
            self.ray, self.spec, self.breadcrumb = ray, spec, breadcrumb
            self.again: deque[PartTask] = deque()
            self.lost = 0
            todo = iter(tasks)
            slots = [_Slot(self._new_actor()) for _ in range(self.cluster.workers)]
            try:
                while True:
                    for slot in slots:
                        if slot.task is None and not stopper.requested:
                            self._assign(slot, todo)
                    if not any(slot.task for slot in slots):
                        return
                    yield from self._collect(slots)
            finally:
                for slot in slots:
                    ray.kill(slot.actor)

    # --- actors -----------------------------------------------------------------------------------------------------

    def _new_actor(self) -> Any:
        on_gpu = bool(self.cluster.gpus) or (self.cluster.address and getattr(self._device, "device", None) != "cpu")
        resources = {"num_gpus": 1} if on_gpu else {"num_cpus": 1}
        # Ray shows each actor its own GPU as number 0.
        spec = replace(self.spec, device=DeviceRequest(device="cuda:0")) if on_gpu and self._device else self.spec  # type: ignore[type-var]
        return self.ray.remote(PartActor).options(max_restarts=0, **resources).remote(spec)

    @property
    def _device(self) -> DeviceRequest | None:
        return getattr(self.spec, "device", None)

    def _assign(self, slot: _Slot, todo: Iterator[PartTask]) -> None:
        task = self.again.popleft() if self.again else next(todo, None)
        if task is None:
            return
        part = task.part
        self.breadcrumb.begin(part)
        task = replace(task, skipped={**task.skipped, **self.breadcrumb.killers_of(part)})
        slot.task, slot.since = task, time.monotonic()
        slot.trying = deque(task.to_load) if self.breadcrumb.is_suspect(part) else deque()
        self._call(slot)

    def _call(self, slot: _Slot) -> None:
        """The next call of a slot: an image to try alone, or the part."""
        assert slot.task is not None
        if slot.trying:
            slot.call = slot.actor.try_alone.remote(slot.task.only(slot.trying[0]))
        else:
            slot.call = slot.actor.run.remote(slot.task, self.breadcrumb.is_deadly(slot.task.part))

    # --- answers ----------------------------------------------------------------------------------------------------

    def _collect(self, slots: list[_Slot]) -> Iterator[Finished]:
        busy = {slot.call: slot for slot in slots if slot.task}
        ready, _ = self.ray.wait(list(busy), num_returns=1, timeout=POLL_SECONDS)
        for call in ready:
            slot = busy[call]
            try:
                answer = self.ray.get(call)
            except self.ray.exceptions.RayActorError as error:
                self._bury(slot, f"a worker died: {error}")
                continue
            except self.ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, Exception) else error from None
            self.lost = 0
            if slot.trying:
                slot.trying.popleft()
                self._call(slot)
                continue
            assert slot.task is not None
            self.breadcrumb.finish(slot.task.part)
            finished = Finished(slot.task, *answer)
            slot.task = slot.call = None
            yield finished
        for slot in busy.values():
            if slot.task and self.part_timeout and time.monotonic() - slot.since > self.part_timeout:
                self.ray.kill(slot.actor)
                self._bury(
                    slot, f"part {slot.task.part} took longer than source.part_timeout ({self.part_timeout:g} s)"
                )

    def _bury(self, slot: _Slot, reason: str) -> None:
        """Count a death against the part (or the image that was tried alone), put the part back, and start a new actor."""
        assert slot.task is not None
        self.lost += 1
        if self.lost >= LOST_IN_A_ROW:
            raise EnvironmentStop(
                f"{self.lost} workers died without finishing a part; the last: {reason.splitlines()[0]}"
            )
        self.breadcrumb.died(slot.task.part, slot.trying[0].key if slot.trying else None)
        self.again.append(slot.task)
        slot.task = slot.call = None
        slot.trying.clear()
        slot.actor = self._new_actor()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingDependency(
            "several workers need Ray, which is not installed; get it with:  pip install 'pseudoris[ray]'"
        ) from error
    return ray


@contextmanager
def _connected(ray: Any, cluster: RayCluster) -> Iterator[None]:
    """A connection to the cluster, or a local one for as long as the block runs; our signal handlers stay in force."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        if cluster.address:
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        else:
            if cluster.gpus:
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu) for gpu in cluster.gpus)
            ray.init(
                num_cpus=max(cluster.workers, os.cpu_count() or 1),
                num_gpus=len(cluster.gpus) or None,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EnvironmentStop(f"Ray could not start or be reached: {error}") from error
    for number, handler in handlers.items():
        signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()
