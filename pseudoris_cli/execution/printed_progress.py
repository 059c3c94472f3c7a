"""Progress without a terminal: for notebooks and scripts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from pseudoris_cli.storage.manifest import PartEntry

Told = Callable[[str, int, int], None]
"""Is told the stage, the images that are done, and how many there are."""
EVERY_SECONDS = 0.5


def print_progress(stage: str, done: int, total: int) -> None:
    """One line of stdout per stage, written over as it grows: notebooks and terminals both follow the carriage return."""
    print(f"\r{stage}: {done:,}/{total:,} images", end="\n" if done >= total else "", file=sys.stdout, flush=True)


def say_nothing(stage: str, done: int, total: int) -> None:
    """For who wants no progress."""


class TellingObserver:
    """The runner's Observer that tells a function, twice a second at most and at the end of a stage."""

    def __init__(self, tell: Told) -> None:
        self._tell = tell
        self._stage, self._done, self._within, self._total, self._told = "", 0, 0.0, 0, 0.0

    def begin(self, stage: str, images: int, done: int, recovered: list[str]) -> None:
        """A stage begins."""
        self._stage, self._done, self._within, self._total, self._told = stage, done, 0.0, images, 0.0
        self._show()

    def part(self, entry: PartEntry) -> None:
        """A part was committed."""
        self._done += sum(entry.counts.values())
        self._within = 0.0
        self._show()

    def within(self, images: float, rows: int) -> None:
        """So many more images of the part at work are done, in fractions too."""
        self._within += images
        self._show()

    def end(self) -> None:
        """The stage is over."""

    def _show(self) -> None:
        done = min(self._done + int(self._within + 1e-6), self._total)
        if self._within and done == self._total:
            done = max(self._done, self._total - 1)  # the part is still to be written
        if self._done >= self._total or time.monotonic() - self._told >= EVERY_SECONDS:
            self._told = time.monotonic()
            self._tell(self._stage, done, self._total)
