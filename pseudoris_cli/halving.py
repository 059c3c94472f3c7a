"""Work in chunks that are halved where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from pseudoris_cli.errors import is_out_of_memory

T = TypeVar("T")


class Halving:
    """`times` counts how often a chunk was halved since the beginning."""

    def __init__(self) -> None:
        self.times = 0

    def chunks(
        self, count: int, size: int, work: Callable[[slice], T], release: Callable[[], None] | None = None
    ) -> Iterator[T]:
        """What `work` makes of each slice of `count` things, `size` at a time; half as many from there on where memory runs out.

        `release` drops what is kept for calls of the old size. Every call begins with `size` again, so that no result hangs on
        what was done before. Raises what reported the shortage where not even one thing fits (errors.is_out_of_memory).
        """
        start = 0
        while start < count:
            part = slice(start, min(start + size, count))
            try:
                found = work(part)
            except Exception as error:
                size = (part.stop - start) // 2
                if not size or not is_out_of_memory(error):
                    raise
            else:
                yield found
                start = part.stop
                continue
            self.times += 1  # outside the handler, as the error holds what was allocated
            if release is not None:
                release()
            release_memory()


def release_memory() -> None:
    """Hand cached device memory back before a retry."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
