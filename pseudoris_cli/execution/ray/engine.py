"""The same worker as Ray actors, one per device. Parts are tasks; the driver stays the only writer."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from pseudoris_cli import __version__
from pseudoris_cli.errors import EnvironmentStop, PseudorisError
from pseudoris_cli.execution.crash_log import CrashLog
from pseudoris_cli.execution.engine import Finished
from pseudoris_cli.execution.engine_inprocess import InProcess, device_notes, run_part
from pseudoris_cli.execution.loading import load_worker
from pseudoris_cli.execution.prefetch import Prefetcher, load_part
from pseudoris_cli.execution.ray.cluster import Connection, RayCluster
from pseudoris_cli.execution.signals import OnWorkers, Stopper
from pseudoris_cli.execution.tasks import ImageStage, PartResult, PartTask, StageSpec
from pseudoris_cli.records import ImageRef

log = logging.getLogger("pseudoris")

POLL_SECONDS = 0.2
"""How long a signal may wait until it is noticed."""
FETCH_SECONDS = 60
DEATHS_TOO_MANY = 8
"""So many dead workers more than there are workers, without an answer between them: the cluster is broken, not an image."""
FORWARDED_VARIABLES = (
    "PSEUDORIS_WEIGHTS",
    "XDG_CACHE_HOME",
    *("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_CACHE", "TORCH_HOME"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_DYNAMIC"),
    *("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
    *("CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "PYTORCH_CUDA_ALLOC_CONF"),
)
"""Variables that find checkpoints, or choose threads and kernels and so decide results; workers see them on every machine."""


class PartActor:
    """The body of an actor: a worker and a way to read images."""

    def __init__(self, threads: str | None, folder: str) -> None:
        """`threads`: OMP_NUM_THREADS of the driver. Ray sets one of its own, and then rows would be others than in one process."""
        if threads is None:
            os.environ.pop("OMP_NUM_THREADS", None)
        else:
            os.environ["OMP_NUM_THREADS"] = threads
        with suppress(OSError):
            os.chdir(folder)

    def start(self, spec: StageSpec, version: str) -> None:
        """Load the networks."""
        if version != __version__:
            raise EnvironmentStop(
                f"a worker has pseudoris {__version__}, not {version}; install the same on every machine"
            )
        self.worker: Any = None  # first the networks of the stage before go
        self.spec, self.worker = spec, load_worker(spec)

    def run(self, task: PartTask, one_by_one: bool) -> tuple[PartResult, float]:
        """Do a part; returns the answer and the seconds it took."""
        started = time.perf_counter()
        prefetcher = Prefetcher(self.spec.reading, lambda part: None)
        [result] = [run_part(self.worker, part, one_by_one) for part in prefetcher.parts([task])]
        result.notes |= device_notes(self.spec)
        return result, time.perf_counter() - started

    def run_isolated(self, task: PartTask) -> None:
        """Do a single image and forget the answer."""
        run_part(self.worker, load_part(task, self.spec.reading))


@dataclass
class _Slot:
    """An actor and what it is busy with."""

    actor: Any
    call: Any = None
    """What it was asked to do and has not answered yet."""
    started: bool = False
    task: PartTask | None = None
    isolating: deque[ImageRef] = field(default_factory=deque)
    """Images of the task to try alone, the first of them now; none: the part itself is at work."""
    since: float = 0.0


class RayEngine:
    """Runs a stage's worker as Ray actors. A dead actor loses only its part, which is run again elsewhere."""

    def __init__(self, cluster: RayCluster, part_timeout: float | None = None) -> None:
        self.cluster, self.part_timeout = cluster, part_timeout
        self.connection: Connection | None = None
        self.pool: _Pool | None = None

    def run(
        self, spec: StageSpec, tasks: Iterable[PartTask], crash_log: CrashLog, stopper: Stopper
    ) -> Generator[Finished, None, None]:
        if not isinstance(spec, ImageStage) or spec.runs_elsewhere:  # selecting rows is faster than moving them
            yield from InProcess(self.part_timeout).run(spec, tasks, crash_log, stopper)
            return
        with stopper.shielded():  # Ray swallows what a signal handler raises
            try:
                self.connection = self.connection or Connection(self.cluster, stopper)
            except EnvironmentStop:
                if stopper.requested:
                    return
                raise
            if stopper.requested:
                return
            self.pool = self.pool or _Pool(self.connection)
            self.pool.begin(spec, crash_log, self.part_timeout)
        stopper.in_flight = OnWorkers()
        try:
            yield from self.pool.work(iter(tasks), stopper)
        finally:
            stopper.in_flight = None
            if any(slot.task for slot in self.pool.slots):
                self._shutdown()

    def close(self) -> None:
        self._shutdown()
        if self.connection:
            self.connection.close()
        self.connection = None

    def _shutdown(self) -> None:
        if self.pool:
            self.pool.shutdown()
        self.pool = None


class _Pool:
    """The actors, who of them does what, and their stage. They stay for the next stage, with other networks."""

    def __init__(self, connection: Connection) -> None:
        self.ray, self.cluster = connection.ray, connection.cluster
        self.slots: list[_Slot] = []
        self.again: deque[PartTask] = deque()

    def begin(self, spec: ImageStage, crash_log: CrashLog, part_timeout: float | None) -> None:
        """Let every actor load the networks of a stage; start the actors first, if need be."""
        self.crash_log, self.part_timeout, self.deaths = crash_log, part_timeout, 0
        self.again.clear()
        count, device = self.cluster.workers_and_device(self.ray, spec.context.device)
        spec = replace(spec, context=replace(spec.context, device=device))
        self.spec = self.ray.put(spec)
        seen = {name: os.environ[name] for name in FORWARDED_VARIABLES if name in os.environ}
        self.options: dict[str, Any] = {"num_cpus": 1, "num_gpus": int(device.device == "cuda:0"), "max_restarts": 0}
        if self.cluster.address and seen:
            self.options["runtime_env"] = {"env_vars": seen}
        self.slots = self.slots or [_Slot(self._start_actor()) for _ in range(count)]
        for slot in self.slots:
            self._start(slot)

    def _start_actor(self) -> Any:
        body = self.ray.remote(PartActor).options(**self.options)
        return body.remote(os.environ.get("OMP_NUM_THREADS"), os.getcwd())

    def _start(self, slot: _Slot) -> None:
        slot.started, slot.task = False, None
        slot.call = slot.actor.start.remote(self.spec, __version__)

    def shutdown(self) -> None:
        """End all actors."""
        for slot in self.slots:
            self.ray.kill(slot.actor)

    def work(self, todo: Iterator[PartTask], stopper: Stopper) -> Iterator[Finished]:
        """Finished parts, until all are done, or those in flight when a stop was requested."""
        more = True
        while True:
            with stopper.shielded():
                finished = list(self._collect(stopper))
                for slot in self.slots:
                    if more and slot.started and slot.task is None and not stopper.requested:
                        more = self._assign(slot, todo)
            yield from finished
            more = more or bool(self.again)
            if not any(slot.task for slot in self.slots) and (stopper.requested or not more):
                return

    def _assign(self, slot: _Slot, todo: Iterator[PartTask]) -> bool:
        """Give an actor its next part; False if there is none."""
        task = self.again.popleft() if self.again else next(todo, None)
        if task is None:
            return False
        self.crash_log.begin(task.part)
        slot.task = replace(task, skipped={**task.skipped, **self.crash_log.poison_images(task.part)})
        slot.isolating = deque(slot.task.to_load if self.crash_log.is_quarantined(task.part) else ())
        self._call(slot, slot.task)
        return True

    def _call(self, slot: _Slot, task: PartTask) -> None:
        """The next call of a task: an image to try alone, or the part."""
        slot.since = time.monotonic()
        if slot.isolating:
            slot.call = slot.actor.run_isolated.remote(task.only(slot.isolating[0]))
        else:
            slot.call = slot.actor.run.remote(task, self.crash_log.runs_one_by_one(task.part))

    # --- answers ----------------------------------------------------------------------------------------------------

    def _collect(self, stopper: Stopper) -> Iterator[Finished]:
        """Wait a little for answers, and look who is overdue."""
        busy = {slot.call: slot for slot in self.slots if slot.call is not None}
        ready, _ = self.ray.wait(list(busy), num_returns=1, timeout=POLL_SECONDS) if busy else ([], [])
        for call in ready:
            if finished := self._answer(busy[call], stopper):
                yield finished
        for slot in self.slots:
            if slot.task and self.part_timeout and time.monotonic() - slot.since > self.part_timeout:
                self._handle_death(slot, f"took longer than source.part_timeout ({self.part_timeout:g} s)", stopper)

    def _answer(self, slot: _Slot, stopper: Stopper) -> Finished | None:
        """Take the answer of an actor: a finished part, or that it lives, or its death."""
        try:
            answer = self.ray.get(slot.call, timeout=FETCH_SECONDS)
        except self.ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, PseudorisError) else error) from None
        except self.ray.exceptions.RayError as error:
            self._handle_death(slot, _cause_of_death(self.ray, error), stopper)
            return None
        slot.call = None
        task = slot.task
        if task is None:
            slot.started = True
            return None
        self.deaths = 0
        if slot.isolating:
            slot.isolating.popleft()
            if stopper.requested:
                slot.task = None
            else:
                self._call(slot, task)
            return None
        slot.task = None
        self.crash_log.finish(task.part)
        return Finished(task, *answer)

    def _handle_death(self, slot: _Slot, reason: str, stopper: Stopper) -> None:
        """Count a death against the part (or the image that was tried alone), put the part back, and start another actor.

        EnvironmentStop if too many died.
        """
        self.ray.kill(slot.actor)
        task, slot.task, slot.started = slot.task, None, False
        if stopper.requested:  # it may have got the signal too
            slot.call = None
            return
        victim = slot.isolating[0].key if task and slot.isolating else None
        self._report(task, victim, reason)
        if task:
            self.crash_log.died(task.part, victim)
            self.again.append(task)
        self.deaths += 1
        if self.deaths >= DEATHS_TOO_MANY + len(self.slots):
            raise EnvironmentStop(f"{self.deaths} Ray workers died one after the other; the last one {reason}")
        slot.actor = self._start_actor()
        self._start(slot)

    def _report(self, task: PartTask | None, victim: str | None, reason: str) -> None:
        if task is None:
            log.warning("a worker %s before it had a part; a new one is started", reason)
        elif victim:
            log.warning("%s is given up: tried alone, its worker %s", victim, reason)
        else:
            log.warning("part %d is run again: its worker %s", task.part, reason)


def _cause_of_death(ray: Any, error: BaseException) -> str:
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "memory pressure" in str(error):
        return "was ended by Ray because its machine ran short of memory"
    if isinstance(error, ray.exceptions.GetTimeoutError):
        return "did not hand over its answer"
    return "died (killed, crashed, or its machine is gone)"
