"""The terminal: results on stdout, progress and log on stderr."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from pseudoris_cli.storage import stage_table
from pseudoris_cli.text import visible

if TYPE_CHECKING:
    from pseudoris_cli.storage.manifest import PartEntry


class Console(RichConsole):
    """A console that no name of a file can take hold of."""

    def print(self, *objects: Any, **how: Any) -> None:
        super().print(*(visible(o) if isinstance(o, str) else o for o in objects), **how)


err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)

LOG_EVERY_SECONDS = 10
WIDE = 110  # columns that the whole line of progress fits into; below, the rate of rows is left out


def configure_logging(quiet: bool = False) -> None:
    """Send our log to stderr; `quiet`: errors only, and no warnings of libraries."""
    if quiet:
        warnings.simplefilter("ignore")
    handler = RichHandler(console=err, show_time=False, show_path=False, show_level=False, markup=False)
    logger = logging.getLogger("pseudoris")
    logger.handlers = [handler]
    logger.setLevel(logging.ERROR if quiet else logging.INFO)
    logger.propagate = False


def print_json(value: Any) -> None:
    """A result for machines, in ASCII whatever the encoding of stdout."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A line on stderr."""
    err.print(text, markup=False)


class ProgressObserver:
    """Progress of one stage: a bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = err.is_terminal and not quiet
        self.progress: Progress | None = None

    def begin(self, stage: str, images: int, done: int, recovered: list[str]) -> None:
        self.stage, self.total, self.done = stage, images, done
        self.unit = stage_table.stage(stage).unit
        self.started, self.logged = time.monotonic(), time.monotonic()
        self.worked = self.rows = self.failed = 0
        self.images_within, self.rows_within = 0.0, 0
        for line in recovered:
            self._say(f"{stage}: {line}")
        if done and done < images:
            self._say(f"{stage}: {done:,} of {images:,} images are done already, going on")
        if self.live and done < images:
            self.progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                _Elapsed(),
                BarColumn(),  # the only column that shrinks where the terminal is narrow
                TextColumn("{task.fields[done]}/{task.total:,} images{task.fields[rate]}"),
                _TimeLeft(),
                console=err,
                transient=True,
                speed_estimate_period=math.inf,  # its 30 s would never see two images that take 30 s each
            )
            self.progress.start()
            self.task = self.progress.add_task(
                f"{stage}, loading", total=images, completed=done, done=f"{done:,}", rate=""
            )

    def part(self, entry: PartEntry) -> None:
        count = sum(entry.counts.values())
        self.done += count
        self.worked += count
        self.rows += entry.file.rows
        self.failed += entry.counts.get("failed", 0)
        self.images_within, self.rows_within = 0.0, 0
        self._show()

    def within(self, images: float, rows: int) -> None:
        """So many more images of the part at work are done, and gave so many rows; `part` says so again for all of it."""
        self.images_within += images
        self.rows_within += rows
        self._show()

    def _show(self) -> None:
        done = min(self.done + self.images_within, self.total)
        shown = self._images(done)
        if self.progress:
            about = f" {self._rate()}" if self.worked + self.images_within else ""
            self.progress.update(self.task, description=self.stage, completed=done, done=shown, rate=about)
        elif time.monotonic() - self.logged >= LOG_EVERY_SECONDS:
            self.logged = time.monotonic()
            passed = duration(self.logged - self.started)
            self._say(f"{self.stage}: {shown}/{self.total:,} images {self._rate()}, after {passed}")

    def _images(self, done: float) -> str:
        """How many images are done; with tenths while they are few, so that something moves in the first batch too."""
        few = self.worked + self.images_within < 10 and done % 1
        return f"{math.floor(10 * done) / 10:,.1f}" if few else f"{math.floor(done):,}"

    def end(self) -> None:
        if self.progress:
            self.progress.stop()
            self.progress = None

    def _rate(self) -> str:
        elapsed = max(time.monotonic() - self.started, 1e-9)
        worked, all_rows = self.worked + self.images_within, self.rows + self.rows_within
        failed = f", {self.failed} failed" if self.failed else ""
        rows = f", {rate(all_rows / elapsed)} {self.unit}/s"
        if self.progress:
            return f"{rate(worked / elapsed)}/s{rows if err.width >= WIDE else ''}{failed}"
        if not worked:
            return f"{rate(0.0)}/s{rows}{failed}"  # how long it takes nobody knows yet
        left = max(self.total - self.done - self.images_within, 0) / (worked / elapsed)
        return f"{rate(worked / elapsed)}/s{rows}{failed}, about {duration(left)} left"

    def _say(self, text: str) -> None:
        if not self.quiet:
            note(text)


class _Elapsed(ProgressColumn):
    """The time since the stage began."""

    max_refresh = 0.5

    def get_table_column(self) -> Column:
        return Column(no_wrap=True)

    def render(self, task: Task) -> Text:
        return Text(duration(task.elapsed or 0), style="progress.elapsed")


class _TimeLeft(ProgressColumn):
    """The time left, by the images since the first answer: until then networks are loaded."""

    max_refresh = 0.5

    def get_table_column(self) -> Column:
        return Column(no_wrap=True)

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text(f"{duration(left)} left" if left else "", style="progress.remaining")


@contextmanager
def busy(text: str, quiet: bool = False) -> Iterator[None]:
    """A spinner for work without measure."""
    if quiet or not err.is_terminal:
        yield
        return
    with err.status(text):
        yield


def rate(per_second: float) -> str:
    """A rate to three digits: a large network on a CPU does a few images an hour."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24:,} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def size(count: int) -> str:
    """Bytes as a person would say them."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
