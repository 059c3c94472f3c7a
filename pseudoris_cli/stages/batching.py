"""Batches of images within a part: one bad image must not take the others with it, and too large a batch is halved."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from pseudoris_cli import watching
from pseudoris_cli.errors import EnvironmentStop, PseudorisError, is_device_lost, is_out_of_memory, reason_of
from pseudoris_cli.execution.tasks import ImageResult, LoadedImage, PartInput, PartResult, ProgressCallback, UnreadImage
from pseudoris_cli.halving import release_memory
from pseudoris_cli.method.protocols import Halves
from pseudoris_cli.records import Failure
from pseudoris_cli.storage.schema import Columns, columns_of

log = logging.getLogger("pseudoris")
Work = Callable[[list[LoadedImage]], Sequence[ImageResult]]
StreamWork = Callable[[Iterator[LoadedImage], dict[str, Any]], Iterator[ImageResult]]
"""Answers of images as they come, in their order; notes for the manifest go into the dictionary."""
T = TypeVar("T")


def run_batches(
    part: PartInput,
    size: int,
    work: Work,
    stage: str,
    optional: Collection[str] = (),
    halving: Mapping[str, object] | None = None,
) -> PartResult:
    """Give the images that could be read to `work`, `size` at a time, and gather the stage's rows, answers and notes.

    `optional`: the optional columns of the stage that this run makes. Batches are cut by position within the part, so they are
    the same after a resume. `halving`: backends whose halvings are noted, by the name of the note.
    """
    halved = {name: _halvings(backend) for name, backend in (halving or {}).items()}
    rows: list[dict[str, Any]] = []
    result = PartResult({}, {})
    for batch in batched(part.images, size):
        loaded, before = [image for image in batch if isinstance(image, LoadedImage)], len(rows)
        share = _Share(part.on_progress, len(batch))
        with watching.watched(share.tell):
            answers = dict(zip((i.ref.key for i in loaded), _attempt(loaded, work, result.notes), strict=True))
        for image in batch:
            answer = ImageResult(failure=image.failure) if isinstance(image, UnreadImage) else answers[image.ref.key]
            rows.extend(answer.rows)
            result.answers[image.ref.key] = (len(answer.rows), answer.failure)
        part.on_progress(len(batch) - share.told, len(rows) - before)
    result.columns = as_columns(rows, stage, optional)
    times = {name: _halvings(backend) - halved[name] for name, backend in (halving or {}).items()}
    result.notes |= {name: count for name, count in times.items() if count}
    return result


def _halvings(backend: object) -> int:
    return backend.halvings if isinstance(backend, Halves) else 0


def as_columns(rows: Sequence[dict[str, Any]], stage: str, optional: Collection[str] = ()) -> Columns:
    """Rows as the columns of a stage, with those optional ones that are named or that the rows have."""
    names = [column.name for column in columns_of(stage, {*optional, *(rows[0] if rows else ())})]
    return {name: [row[name] for row in rows] for name in names}


def run_stream(part: PartInput, work: StreamWork, stage: str) -> PartResult:
    """Give the images that could be read to `work` as they come, and gather rows and answers; `work` answers in their order.

    For work that runs elsewhere, with many images in flight: there are no batches, and nothing is tried again here.
    """
    rows: list[dict[str, Any]] = []
    result = PartResult({}, {})
    waiting: deque[LoadedImage | UnreadImage] = deque()

    def loaded() -> Iterator[LoadedImage]:
        for image in part.images:
            waiting.append(image)
            if isinstance(image, LoadedImage):
                yield image

    def add(image: LoadedImage | UnreadImage, answer: ImageResult) -> None:
        rows.extend(answer.rows)
        result.answers[image.ref.key] = (len(answer.rows), answer.failure)
        part.on_progress(1, len(answer.rows))

    def pass_unread() -> None:
        while waiting and isinstance(image := waiting[0], UnreadImage):
            add(waiting.popleft(), ImageResult(failure=image.failure))

    try:
        for answer in work(loaded(), result.notes):
            pass_unread()
            add(waiting.popleft(), answer)
    except PseudorisError:
        raise
    except Exception as error:
        if is_device_lost(error):
            raise _stopped(error) from error
        raise
    pass_unread()
    assert not waiting, "an image has no answer"
    result.columns = as_columns(rows, stage)
    return result


class _Share:
    """Tells of a batch as it goes on, in images: never less than before, and all of it only when its rows are there."""

    def __init__(self, on_progress: ProgressCallback, images: int) -> None:
        self._on_progress, self._images, self.told = on_progress, images, 0.0
        on_progress(0, 0)

    def tell(self, fraction: float) -> None:
        reached = min(fraction, 0.99) * self._images
        if reached > self.told:
            self._on_progress(reached - self.told, 0)
            self.told = reached


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _attempt(batch: list[LoadedImage], work: Work, notes: dict[str, Any]) -> list[ImageResult]:
    """`work(batch)`; out of memory: in halves; any other error: one by one, the culprit recorded as failed."""
    if not batch:
        return []
    try:
        return list(work(batch))
    except PseudorisError:
        raise
    except Exception as error:
        if is_device_lost(error):
            raise _stopped(error) from error
        short_of_memory = is_out_of_memory(error)
        if short_of_memory:
            notes["out_of_memory"] = notes.get("out_of_memory", 0) + 1
            release_memory()
        if len(batch) == 1:
            log.debug("%s failed", batch[0].ref.key, exc_info=error)
            return [ImageResult(failure=Failure(reason_of(error)))]
    step = max(1, len(batch) // 2) if short_of_memory else 1
    return [answer for half in batched(batch, step) for answer in _attempt(half, work, notes)]


def _stopped(error: BaseException) -> EnvironmentStop:
    return EnvironmentStop(f"the device stopped working: {reason_of(error)}; committed parts are kept")
