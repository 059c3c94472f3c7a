"""One worker, in this process; images are decoded ahead in threads."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain

from pseudoris_cli.execution.crash_log import Breadcrumb
from pseudoris_cli.execution.engine import Finished
from pseudoris_cli.execution.prefetch import Loader, Prefetcher, load_image, load_part
from pseudoris_cli.execution.signals import Stopper
from pseudoris_cli.execution.tasks import (
    Heard,
    LoadedImage,
    Origin,
    PartInput,
    PartResult,
    PartTask,
    StageSpec,
    UnreadImage,
    Worker,
    unheard,
)
from pseudoris_cli.records import Failure
from pseudoris_cli.storage.schema import Columns


class InProcess:
    """The engine of one device."""

    def __init__(self, part_timeout: float | None = None, heard: Heard = unheard) -> None:
        """`heard` is told of images as they are done, long before their part is."""
        self.part_timeout, self.heard = part_timeout, heard

    def run(
        self, spec: StageSpec, tasks: Iterable[PartTask], breadcrumb: Breadcrumb, stopper: Stopper
    ) -> Generator[Finished, None, None]:
        worker = spec.make_worker()
        load: Loader = partial(load_image, spec.source, max_pixels=spec.max_pixels)
        safe, suspects = _sort_out(tasks, breadcrumb)
        prefetcher = Prefetcher(load, spec.decode_threads, spec.decode_ahead, breadcrumb.begin)
        for part in chain(prefetcher.parts(safe), self._suspects(suspects, worker, load, breadcrumb)):
            started = time.perf_counter()
            with _time_limit(part.task, self.part_timeout):
                result = run_part(worker, part, breadcrumb.is_deadly(part.task.part), self.heard)
            breadcrumb.finish(part.task.part)
            yield Finished(part.task, result, time.perf_counter() - started)
            if stopper.requested:
                return

    def close(self) -> None:
        """It holds nothing."""

    def _suspects(
        self, tasks: list[PartTask], worker: Worker, load: Loader, breadcrumb: Breadcrumb
    ) -> Iterator[PartInput]:
        """Parts that killed the process: each image is tried alone first (its answer is thrown away), then the part is run.

        Trying and running are kept apart so that the rows are those of an unbroken run when no image is to blame.
        """
        for task in tasks:
            breadcrumb.begin(task.part)
            for ref in task.to_load:
                breadcrumb.trying(ref.key, task.part)
                with _time_limit(task, self.part_timeout):
                    worker.run(load_part(task.only(ref), load))
                breadcrumb.trying(None, task.part)
            yield load_part(task, load)


def _sort_out(tasks: Iterable[PartTask], breadcrumb: Breadcrumb) -> tuple[Iterator[PartTask], list[PartTask]]:
    """Tasks to run at once (lazily), and those that killed the process before, which come last."""
    suspects: list[PartTask] = []

    def safe() -> Iterator[PartTask]:
        for task in tasks:
            if breadcrumb.is_suspect(task.part) or task.skipped:
                suspects.append(task)
            else:
                yield task

    return safe(), suspects


def run_part(worker: Worker, part: PartInput, singly: bool = False, heard: Heard = unheard) -> PartResult:
    """Run a part, noting what every image was read from; `singly`: image by image, the rows joined.

    An image that is not the one its masks were made from is a failure.
    """
    origins: dict[str, Origin] = {}

    def noted() -> Iterator[LoadedImage | UnreadImage]:
        for image in part.images:
            origins[image.ref.key] = (image.stamp, image.sha256)
            expected = part.task.digests.get(image.ref.key)
            if isinstance(image, LoadedImage) and expected and image.sha256 != expected:
                yield UnreadImage(image.ref, Failure("the image changed since its masks were made"))
            else:
                yield image

    if singly and part.task.to_load:
        results = [worker.run(PartInput(part.task.only(i.ref), iter([i]), part.columns, heard)) for i in noted()]
        result = _join(results)
    else:
        result = worker.run(PartInput(part.task, noted(), part.columns, heard))
    result.origins = origins
    return result


def _join(results: list[PartResult]) -> PartResult:
    columns: Columns = {name: [v for r in results for v in r.columns[name]] for name in results[0].columns}
    answers = {key: answer for result in results for key, answer in result.answers.items()}
    return PartResult(columns, answers, {"singly": True})


@contextmanager
def _time_limit(task: PartTask, seconds: float | None) -> Iterator[None]:
    """End the process if a part hangs. A hang inside a library cannot be interrupted in any gentler way; the breadcrumb
    counts it as a death, so a part that always hangs is tried image by image."""
    if seconds is None:
        yield
        return

    def give_up() -> None:
        message = (
            f"part {task.part} took longer than source.part_timeout ({seconds:g} s); stopping. Committed parts are kept"
        )
        print(f"error: {message}; run the same command again to go on", file=sys.stderr, flush=True)
        os._exit(1)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
