"""One worker, in this process; images are decoded ahead in threads."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain

from pseudoris_cli.execution.crash_log import CrashLog
from pseudoris_cli.execution.engine import Finished
from pseudoris_cli.execution.loading import load_worker
from pseudoris_cli.execution.prefetch import Prefetcher, load_part
from pseudoris_cli.execution.signals import AskedElsewhere, PartClock, Stopper
from pseudoris_cli.execution.tasks import (
    Fingerprint,
    ImageReading,
    ImageStage,
    LoadedImage,
    PartInput,
    PartResult,
    PartTask,
    ProgressCallback,
    StageSpec,
    UnreadImage,
    Worker,
    no_progress,
)
from pseudoris_cli.records import Failure
from pseudoris_cli.storage.schema import Columns


class InProcess:
    """The engine of one device."""

    def __init__(self, part_timeout: float | None = None, on_progress: ProgressCallback = no_progress) -> None:
        """`on_progress` is told of images as they are done, long before their part is."""
        self.part_timeout, self.on_progress = part_timeout, on_progress

    def run(
        self, spec: StageSpec, tasks: Iterable[PartTask], crash_log: CrashLog, stopper: Stopper
    ) -> Generator[Finished, None, None]:
        worker = load_worker(spec)
        recorded = device_notes(spec)
        safe, quarantined = (iter(tasks), []) if spec.runs_elsewhere else _split(tasks, crash_log)
        clock_of = AskedElsewhere if spec.runs_elsewhere else PartClock
        pace: float | None = None
        prefetcher = Prefetcher(spec.reading, crash_log.begin)
        for part in chain(prefetcher.parts(safe), self._quarantined(quarantined, worker, spec.reading, crash_log)):
            started = time.perf_counter()
            stopper.in_flight = clock = clock_of(part.task.part, len(part.task.images), pace)
            with _time_limit(part.task, self.part_timeout, crash_log):
                one_by_one = crash_log.runs_one_by_one(part.task.part) and not spec.runs_elsewhere
                result = run_part(worker, part, one_by_one, self._telling(clock))
            result.notes |= recorded
            crash_log.finish(part.task.part)
            seconds = time.perf_counter() - started
            pace = seconds / max(len(part.task.images), 1)
            yield Finished(part.task, result, seconds)
            stopper.in_flight = None  # only now is it committed
            if stopper.requested:
                return

    def _telling(self, clock: PartClock) -> ProgressCallback:
        def tell(images: float, rows: int) -> None:
            clock.done += images
            self.on_progress(images, rows)

        return tell

    def close(self) -> None:
        """It holds nothing."""

    def _quarantined(
        self, tasks: list[PartTask], worker: Worker, reading: ImageReading | None, crash_log: CrashLog
    ) -> Iterator[PartInput]:
        """Parts that killed the process: each image is first tried in isolation (its answer is thrown away), then the part is run.

        Trying and running are kept apart so that the rows are those of an unbroken run when no image is to blame.
        """
        for task in tasks:
            crash_log.begin(task.part)
            for ref in task.to_load:
                crash_log.isolate(ref.key, task.part)
                with _time_limit(task, self.part_timeout, crash_log):
                    worker.run(load_part(task.only(ref), reading))
                crash_log.isolate(None, task.part)
            yield load_part(task, reading)


def _split(tasks: Iterable[PartTask], crash_log: CrashLog) -> tuple[Iterator[PartTask], list[PartTask]]:
    """Tasks to run as they come (lazily), and those that killed the process before, which come last."""
    quarantined: list[PartTask] = []

    def safe() -> Iterator[PartTask]:
        for task in tasks:
            if crash_log.is_quarantined(task.part) or task.skipped:
                quarantined.append(task)
            else:
                yield task

    return safe(), quarantined


def device_notes(spec: StageSpec) -> dict[str, str]:
    """What the manifest records of the device with each part; nothing for a stage without networks."""
    if spec.runs_elsewhere:
        return {"device": "endpoint"}
    return {"device": spec.device_kind()} if isinstance(spec, ImageStage) else {}


def run_part(
    worker: Worker, part: PartInput, one_by_one: bool = False, on_progress: ProgressCallback = no_progress
) -> PartResult:
    """Run a part, noting what every image was read from; `one_by_one`: image by image, the rows joined.

    An image that is not the one its masks were made from is a failure.
    """
    fingerprints: dict[str, Fingerprint] = {}

    def noted() -> Iterator[LoadedImage | UnreadImage]:
        for image in part.images:
            fingerprints[image.ref.key] = Fingerprint(image.stamp, image.sha256)
            expected = part.task.digests.get(image.ref.key)
            if isinstance(image, LoadedImage) and expected and image.sha256 != expected:
                yield UnreadImage(image.ref, Failure("the image changed since its masks were made"))
            else:
                yield image

    if one_by_one and part.task.to_load:
        results = [
            worker.run(replace(part, task=part.task.only(i.ref), images=iter([i]), on_progress=on_progress))
            for i in noted()
        ]
        result = _join(results)
    else:
        result = worker.run(replace(part, images=noted(), on_progress=on_progress))
    result.fingerprints = fingerprints
    return result


def _join(results: list[PartResult]) -> PartResult:
    columns: Columns = {name: [v for r in results for v in r.columns[name]] for name in results[0].columns}
    answers = {key: answer for result in results for key, answer in result.answers.items()}
    return PartResult(columns, answers, {"one_by_one": True})


@contextmanager
def _time_limit(task: PartTask, seconds: float | None, crash_log: CrashLog) -> Iterator[None]:
    """End the process if a part hangs. A hang inside a library cannot be interrupted in any gentler way; the crash log
    counts it as a death, so a part that always hangs is tried image by image."""
    if seconds is None:
        yield
        return

    def give_up() -> None:
        message = (
            f"part {task.part} took longer than source.part_timeout ({seconds:g} s); stopping. Committed parts are kept"
        )
        print(f"error: {message}; run the same command again to go on", file=sys.stderr, flush=True)
        with suppress(Exception):  # a full disk, say: the process must end all the same
            crash_log.time_out()
        os._exit(1)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
