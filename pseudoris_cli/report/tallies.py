"""Figures over all images of a work directory, part by part, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pseudoris_cli.method import filter_summary
from pseudoris_cli.method.selection import as_floats
from pseudoris_cli.records import CROP_KINDS
from pseudoris_cli.report.versions import Parts

BARS = 26
TAIL = 0.005
FATES = ("kept", "kept again", "dropped again", "dropped")
"""What became of a candidate's text, and whether the text was said again: a duplicate shares the fate of its text."""
_NICE = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
Progress = Callable[[int, int], None]
"""(parts done, parts in all)"""


@dataclass(frozen=True)
class Histogram:
    """Bars between `edges` [B+1]; `counts` has a row [B] for each fate, or only one.

    `below` and `above` say that the first and the last bar also hold what lies beyond them (about the outer half per cent).
    """

    edges: tuple[float, ...]
    counts: tuple[tuple[int, ...], ...]
    mean: float
    below: bool = False
    above: bool = False

    @property
    def count(self) -> int:
        """All values."""
        return sum(map(sum, self.counts))


class Tally:
    """Counts on a fine fixed grid, from which a histogram of few bars is made once the range is known."""

    def __init__(self, low: float, high: float, step: float) -> None:
        self.low, self.step = low, step
        self._size = round((high - low) / step)
        self._counts = np.zeros((len(FATES), self._size), np.int64)
        self._sum = 0.0
        self._off_grid = [False, False]

    def add(self, values: np.ndarray, fates: np.ndarray | None = None) -> None:
        """Count values [N]; NaN is no value, what lies off the grid counts at its end. `fates` are indices [N]."""
        values = np.asarray(values, np.float64)
        fates = np.zeros(len(values), np.int64) if fates is None else fates
        there = np.isfinite(values)
        values, fates = values[there], fates[there]
        place = np.floor((values - self.low) / self.step + 1e-6).astype(np.int64)
        self._off_grid[0] |= bool((place < 0).any())
        self._off_grid[1] |= bool((place >= self._size).any())
        place = np.clip(place, 0, self._size - 1)
        np.add.at(self._counts, (fates, place), 1)
        self._sum += float(values.sum())

    def histogram(self, bars: int = BARS) -> Histogram | None:
        """At most `bars` bars of a round width, the outer half per cent on each side laid to the outermost; None without
        values."""
        total = self._counts.sum(0)
        count = int(total.sum())
        if not count:
            return None
        share = np.cumsum(total) / count
        first = int(np.searchsorted(share, TAIL, side="right"))
        last = int(np.searchsorted(share, 1 - TAIL, side="left"))
        zero = round(-self.low / self.step)
        for width in _NICE:
            start = (first - zero) // width * width + zero
            number = -(-(last + 1 - start) // width)
            if number <= bars:
                break
        place = np.clip((np.arange(len(total)) - start) // width, 0, number - 1)
        rows = [np.bincount(place, weights=row, minlength=number).astype(int).tolist() for row in self._counts]
        return Histogram(
            edges=tuple(round(self.low + (start + width * bar) * self.step, 6) + 0.0 for bar in range(number + 1)),
            counts=tuple(tuple(row) for row in (rows if self._counts[1:].any() else rows[:1])),
            mean=self._sum / count,
            below=self._off_grid[0] or bool(total[: max(start, 0)].any()),
            above=self._off_grid[1] or bool(total[start + width * number :].any()),
        )


Survival = dict[str, list[int]]
"""Name of a sampler or crop -> candidates of each fate; `again` is what the same name has said of the mask before."""


@dataclass
class Totals:
    """What the page says about everything, not only about the images that it shows."""

    masks: int = 0
    captioned: int = 0
    """Masks of the parts that have captions."""
    candidates: int = 0
    histograms: dict[str, Histogram] = field(default_factory=dict)
    figures: dict[str, Any] | None = None
    """`filter_summary.figures`, once there is a filter."""
    by_sampler: Survival = field(default_factory=dict)
    by_crop: Survival = field(default_factory=dict)


def tally(parts: Parts, progress: Progress) -> Totals:
    """Read every part of every stage once, only the columns that count."""
    totals = Totals()
    tallies = {
        "masks per image": Tally(0, 1000, 1),
        "mask area": Tally(-5, 0.25, 0.25),
        "correctness": Tally(-1, 1, 0.002),
        "uniqueness": Tally(-1, 3, 0.005),
        "doc": Tally(-1, 3, 0.005),
    }
    counts: filter_summary.Counts = {}
    covered = parts.covered("masks")
    for number, part in enumerate(covered):
        progress(number, len(covered))
        masks = _add_masks(parts, part, tallies)
        totals.masks += masks
        if entry := parts.entry("captions", part):
            totals.captioned += masks
            totals.candidates += entry.file.rows
        counts = filter_summary.add(counts, _add_scores(parts, part, tallies))
    progress(len(covered), len(covered))
    if counts:
        totals.figures = figures = filter_summary.figures(counts)
        totals.by_sampler = _survival(figures["by_sampler"], _strength)
        totals.by_crop = _survival(figures["by_crop"], CROP_KINDS.index)
        kept, times = np.array(list(figures["masks_by_kept"].items()), np.int64).reshape(-1, 2).T
        tallies["captions kept per mask"] = yields = Tally(0, 1000, 1)
        yields.add(np.repeat(kept, times))
    made = {name: tally.histogram() for name, tally in tallies.items()}
    totals.histograms = {name: histogram for name, histogram in made.items() if histogram}
    return totals


def _survival(rows: dict[str, dict[str, Any]], order: Callable[[str], Any]) -> Survival:
    """The rows of `filter_summary.figures` as counts of each fate."""
    found = {}
    for name in sorted(rows, key=order):
        row = rows[name]
        again, dropped = row["repeats"] - row["kept_repeats"], row["candidates"] - row["kept"]
        found[name] = [row["kept"] - row["kept_repeats"], row["kept_repeats"], again, dropped - again]
    return found


def _strength(sampler: str) -> tuple[str, float]:
    """The order of samplers: beam, then by kind and number."""
    kind, _, number = sampler.partition("=")
    return kind, float(number or 0)


def _add_masks(parts: Parts, part: int, tallies: dict[str, Tally]) -> int:
    columns = parts.columns("masks", part, ["image_key", "width", "height", "area"])
    entry = parts.entry("masks", part)
    assert entry is not None
    per_image = np.unique(np.asarray(columns["image_key"], str), return_counts=True)[1]
    tallies["masks per image"].add(np.concatenate([per_image, np.zeros(entry.counts.get("empty", 0))]))
    share = columns["area"] / np.maximum(columns["width"].astype(np.float64) * columns["height"], 1)
    tallies["mask area"].add(np.log10(np.maximum(share, 1e-5)))
    return len(share)


_SCORES = ["correctness", "uniqueness", "doc"]
_FILTER = ["image_key", "mask_id", "caption", "crop", "sampler", *_SCORES, "flags", "kept", "reason"]


def _add_scores(parts: Parts, part: int, tallies: dict[str, Tally]) -> filter_summary.Counts:
    columns = parts.columns("filter", part, _FILTER) or parts.columns("scores", part, _SCORES)
    if not columns:
        return {}
    counts, fates = _fates(columns) if "kept" in columns else ({}, None)
    for name in _SCORES:
        tallies[name].add(as_floats(columns[name]), fates)
    return counts


def _fates(columns: dict[str, Any]) -> tuple[filter_summary.Counts, np.ndarray]:
    """The counts, and the index into FATES of each row; here `again` is what the mask has had before, from whatever sampler and
    crop."""
    again = np.array([reason == "duplicate" for reason in columns["reason"]], bool)
    counts, survives = filter_summary.count_and_mark(columns)
    return counts, np.where(survives, np.where(again, 1, 0), np.where(again, 2, 3))
