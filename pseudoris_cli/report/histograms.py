"""Histograms and totals over all images of a work directory, read part by part in constant memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pseudoris_cli.method import filter_summary
from pseudoris_cli.method.selection import as_floats
from pseudoris_cli.records import CROP_KINDS
from pseudoris_cli.report.versions import Parts

SAMPLER_KINDS = ("beam", "top_k", "top_p")
"""The samplers of CoCa, in the order of the charts; the last two are followed by `=` and their number."""
BARS = 26
TAIL = 0.005
"""Fraction of the values on each side that may lie outside the edges of a histogram."""
OUTCOMES = ("kept", "kept again", "dropped again", "dropped")
"""Whether a candidate's text was kept or dropped; `again` marks a repetition, which has the outcome of its text."""
_NICE = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
Progress = Callable[[int, int], None]
"""(parts done, parts in all)"""


@dataclass(frozen=True)
class Histogram:
    """B bars between `edges` [B+1], of one width, of which the first may be split. `counts` has a row [B] for each of OUTCOMES,
    or a single row where there are no outcomes.

    `below` and `above`: the first or last bar also counts the values outside the edges (about half a per cent).
    """

    edges: tuple[float, ...]
    counts: tuple[tuple[int, ...], ...]
    mean: float
    median: float
    """To within a cell of the builder."""
    below: bool = False
    above: bool = False

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(map(sum, self.counts))


class HistogramBuilder:
    """Counts values in cells of width `step` from `low` to `high`, and merges the cells into few bars at the end."""

    def __init__(self, low: float, high: float, step: float) -> None:
        self.low, self.step = low, step
        self._size = round((high - low) / step)
        self._counts = np.zeros((len(OUTCOMES), self._size), np.int64)
        self._sum = 0.0
        self._off_grid = [False, False]

    def add(self, values: np.ndarray, outcomes: np.ndarray | None = None) -> None:
        """Count values [N], with their `outcomes` [N] as indices into OUTCOMES.

        NaN and infinity are left out. Values outside the grid count in its first or last cell.
        """
        values = np.asarray(values, np.float64)
        outcomes = np.zeros(len(values), np.int64) if outcomes is None else outcomes
        there = np.isfinite(values)
        values, outcomes = values[there], outcomes[there]
        cell = np.floor((values - self.low) / self.step + 1e-6).astype(np.int64)
        self._off_grid[0] |= bool((cell < 0).any())
        self._off_grid[1] |= bool((cell >= self._size).any())
        cell = np.clip(cell, 0, self._size - 1)
        np.add.at(self._counts, (outcomes, cell), 1)
        self._sum += float(values.sum())

    def histogram(self, bars: int = BARS, zero_alone: bool = False) -> Histogram | None:
        """At most `bars` bars of a round width; None without values.

        The bars span all but the outer half per cent on each side, which counts in the outermost bars. With `zero_alone` they
        begin at 0, and the first holds the cell of 0 only, the second what is left of the first width.
        """
        total = self._counts.sum(0)
        count = int(total.sum())
        if not count:
            return None
        cumulative = np.cumsum(total) / count
        first = int(np.searchsorted(cumulative, TAIL, side="right"))
        last = int(np.searchsorted(cumulative, 1 - TAIL, side="left"))
        zero = round(-self.low / self.step)
        if zero_alone:
            first, bars = zero, bars - 1
        for width in _NICE:
            start = (first - zero) // width * width + zero
            number = -(-(last + 1 - start) // width)
            if number <= bars:
                break
        bar_of_cell = np.clip((np.arange(len(total)) - start) // width, 0, number - 1)
        starts = [start + width * bar for bar in range(number + 1)]
        if zero_alone and width > 1:
            bar_of_cell[zero + 1 :] += 1
            starts.insert(1, zero + 1)
            number += 1
        rows = [np.bincount(bar_of_cell, weights=row, minlength=number).astype(int).tolist() for row in self._counts]
        return Histogram(
            edges=tuple(round(self.low + cell * self.step, 6) + 0.0 for cell in starts),
            counts=tuple(tuple(row) for row in (rows if self._counts[1:].any() else rows[:1])),
            mean=self._sum / count,
            median=self._median(cumulative, total / count),
            below=self._off_grid[0] or bool(total[: max(start, 0)].any()),
            above=self._off_grid[1] or bool(total[starts[-1] :].any()),
        )

    def _median(self, cumulative: np.ndarray, fractions: np.ndarray) -> float:
        """The median, the values of a cell taken as even within it."""
        cell = int(np.searchsorted(cumulative, 0.5))
        before = cumulative[cell - 1] if cell else 0.0
        return float(self.low + (cell + (0.5 - before) / fractions[cell]) * self.step)


Survival = dict[str, list[int]]
"""Name of a sampler or crop -> number of candidates of each outcome. `again`: the same sampler or crop gave the mask this text
before."""


@dataclass
class Totals:
    """Figures over all images, not only those that the page shows."""

    masks: int = 0
    captioned: int = 0
    """Masks of the parts that have captions."""
    candidates: int = 0
    histograms: dict[str, Histogram] = field(default_factory=dict)
    figures: dict[str, Any] | None = None
    """`filter_summary.figures`, once there is a filter."""
    by_sampler: Survival = field(default_factory=dict)
    by_crop: Survival = field(default_factory=dict)


def compute_totals(parts: Parts, progress: Progress) -> Totals:
    """Read the needed columns of every part once. `progress` is called with (parts done, parts in all)."""
    totals = Totals()
    builders = {
        "masks per image": HistogramBuilder(0, 1000, 1),
        "mask area": HistogramBuilder(-5, 0.25, 0.25),
        "correctness": HistogramBuilder(-1, 1, 0.002),
        "uniqueness": HistogramBuilder(-1, 3, 0.005),
        "doc": HistogramBuilder(-1, 3, 0.005),
        "listener": HistogramBuilder(0, 1, 0.005),
    }
    counts: filter_summary.Counts = {}
    covered = parts.covered("masks")
    for number, part in enumerate(covered):
        progress(number, len(covered))
        masks = _add_masks(parts, part, builders)
        totals.masks += masks
        if entry := parts.entry("captions", part):
            totals.captioned += masks
            totals.candidates += entry.file.rows
        counts = filter_summary.add(counts, _add_scores(parts, part, builders))
    progress(len(covered), len(covered))
    if counts:
        totals.figures = figures = filter_summary.figures(counts)
        totals.by_sampler = _survival(figures["by_sampler"], _sampler_order)
        totals.by_crop = _survival(figures["by_crop"], _crop_order)
        kept, times = np.array(list(figures["masks_by_kept"].items()), np.int64).reshape(-1, 2).T
        builders["captions kept per mask"] = yields = HistogramBuilder(0, 1000, 1)
        yields.add(np.repeat(kept, times))
    made = {name: builder.histogram(zero_alone=name == "captions kept per mask") for name, builder in builders.items()}
    totals.histograms = {name: histogram for name, histogram in made.items() if histogram}
    return totals


def _survival(rows: dict[str, dict[str, Any]], order: Callable[[str], Any]) -> Survival:
    """The rows of `filter_summary.figures` as counts of each outcome."""
    found = {}
    for name in sorted(rows, key=order):
        row = rows[name]
        again, dropped = row["repeats"] - row["kept_repeats"], row["candidates"] - row["kept"]
        found[name] = [row["kept"] - row["kept_repeats"], row["kept_repeats"], again, dropped - again]
    return found


def _crop_order(crop: str) -> tuple[int, str]:
    """The order of crops: ours as CROP_KINDS has them, then those of other captioners by name."""
    return (CROP_KINDS.index(crop) if crop in CROP_KINDS else len(CROP_KINDS)), crop


def _sampler_order(sampler: str) -> tuple[int, float, str]:
    """The order of samplers: ours by kind and number, then those of other captioners by name."""
    kind, _, number = sampler.partition("=")
    if kind in SAMPLER_KINDS:
        with suppress(ValueError):
            return SAMPLER_KINDS.index(kind), float(number or 0), sampler
    return len(SAMPLER_KINDS), 0.0, sampler


def _add_masks(parts: Parts, part: int, builders: dict[str, HistogramBuilder]) -> int:
    columns = parts.columns("masks", part, ["image_key", "width", "height", "area"])
    entry = parts.entry("masks", part)
    assert entry is not None
    per_image = np.unique(np.asarray(columns["image_key"], str), return_counts=True)[1]
    builders["masks per image"].add(np.concatenate([per_image, np.zeros(entry.counts.get("empty", 0))]))
    fraction = columns["area"] / np.maximum(columns["width"].astype(np.float64) * columns["height"], 1)
    builders["mask area"].add(np.log10(np.maximum(fraction, 1e-5)))
    return len(fraction)


_SCORES = ["correctness", "uniqueness", "doc"]
_FILTER = ["image_key", "mask_id", "caption", "crop", "sampler", *_SCORES, "flags", "kept", "reason"]

_HEARD = ["listener", "listener_choice"]


def _add_scores(parts: Parts, part: int, builders: dict[str, HistogramBuilder]) -> filter_summary.Counts:
    heard = _HEARD if "judge" in parts.chain else []
    columns = parts.columns("filter", part, _FILTER + heard) or parts.columns("scores", part, _SCORES)
    if not columns:
        return {}
    counts, outcomes = _outcomes(columns) if "kept" in columns else ({}, None)
    for name in (name for name in (*_SCORES, "listener") if name in columns):
        builders[name].add(as_floats(columns[name]), outcomes)
    return counts


def _outcomes(columns: dict[str, Any]) -> tuple[filter_summary.Counts, np.ndarray]:
    """The counts, and for each row its index into OUTCOMES. Here `again` is any repetition within the mask, whatever the sampler
    and crop."""
    again = np.array([reason == "duplicate" for reason in columns["reason"]], bool)
    counts, survives = filter_summary.count_and_mark(columns)
    return counts, np.where(survives, np.where(again, 1, 0), np.where(again, 2, 3))
