"""Reading images ahead of the worker: bytes, digest, pixels, a bounded number at a time."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from pseudoris_cli.codecs.image_decode import UndecodableImage, decode_rgb
from pseudoris_cli.execution.tasks import ImageReading, LoadedImage, PartInput, PartTask, UnreadImage
from pseudoris_cli.records import Failure, ImageRef
from pseudoris_cli.sources.base import Source
from pseudoris_cli.storage.parts import read_part
from pseudoris_cli.storage.schema import Columns


def load_image(source: Source, ref: ImageRef, max_pixels: int) -> LoadedImage | UnreadImage:
    """Read and decode one image; what goes wrong becomes the reason in the manifest."""
    stamp = source.stamp(ref.key)
    try:
        data = source.read(ref.key)
    except (FileNotFoundError, NotADirectoryError):
        return UnreadImage(ref, Failure("the image is gone", "gone"))
    except OSError as error:
        return UnreadImage(ref, Failure(f"cannot be read: {error.strerror or error}"), stamp)
    except MemoryError:
        return UnreadImage(ref, Failure("not enough memory to read it"), stamp)
    digest = hashlib.sha256(data).hexdigest()
    try:
        return LoadedImage(ref, decode_rgb(data, max_pixels), stamp, digest)
    except UndecodableImage as error:
        return UnreadImage(ref, Failure(str(error)), stamp, digest)
    except MemoryError:
        return UnreadImage(ref, Failure("not enough memory to decode it"), stamp, digest)


class Prefetcher:
    """Decodes images in threads, in order and across parts, at most `decode_ahead` images waiting."""

    PARTS_AHEAD = 4

    def __init__(self, reading: ImageReading | None, announce: Callable[[int], None]) -> None:
        """`reading` None is for a stage whose parts load no image."""
        self.reading, self.announce = reading, announce
        self._expect: Callable[[str], None] | None = getattr(reading and reading.source, "expect", None)
        self.threads, self.ahead = (reading.decode_threads, reading.decode_ahead) if reading else (1, 1)

    def parts(self, tasks: Iterable[PartTask]) -> Iterator[PartInput]:
        """Each part with its images; they must be consumed before the next part is asked for.

        `announce(part)` is called before the first image of a part is touched.
        """
        self._tasks = iter(tasks)
        self._begun: deque[PartTask] = deque()
        self._refs: deque[ImageRef] = deque()
        self._waiting: deque[Future[LoadedImage | UnreadImage]] = deque()
        with ThreadPoolExecutor(self.threads, thread_name_prefix="decode") as pool:
            try:
                while True:
                    self._fill(pool)
                    if not self._begun:
                        return
                    task = self._begun.popleft()
                    yield PartInput(task, self._images(len(task.to_load), pool), read_upstream(task))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _images(self, count: int, pool: ThreadPoolExecutor) -> Iterator[LoadedImage | UnreadImage]:
        for _ in range(count):
            self._fill(pool)
            yield self._waiting.popleft().result()

    def _fill(self, pool: ThreadPoolExecutor) -> None:
        while len(self._waiting) < self.ahead and self._next_ref():
            ref = self._refs.popleft()
            if self._expect:
                self._expect(ref.key)
            self._waiting.append(pool.submit(self._load, ref))

    def _load(self, ref: ImageRef) -> LoadedImage | UnreadImage:
        assert self.reading is not None, "a stage that reads no images asked for pixels"
        return load_image(self.reading.source, ref, self.reading.max_pixels)

    def _next_ref(self) -> bool:
        """Make sure that an image is at hand, beginning further parts if needed."""
        while not self._refs:
            task = next(self._tasks, None) if len(self._begun) < self.PARTS_AHEAD else None
            if task is None:
                return False
            self.announce(task.part)
            self._begun.append(task)
            self._refs.extend(task.to_load)
        return True


def load_part(task: PartTask, reading: ImageReading | None) -> PartInput:
    """A part without reading ahead."""
    images = (load_image(reading.source, ref, reading.max_pixels) for ref in task.to_load) if reading else iter(())
    return PartInput(task, images, read_upstream(task))


def read_upstream(task: PartTask) -> dict[str, Columns]:
    """The columns of the upstream parts, by stage."""
    return {stage: read_part(part.path, sha256=part.sha256) for stage, part in task.upstream.items()}
