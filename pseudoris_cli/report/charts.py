"""Charts as inline SVG, coloured by the page's style sheet. Tooltips and labels hold the numbers, so colour is not needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from pseudoris_cli.report.histograms import OUTCOMES, Histogram, Survival

WIDTH, HEIGHT = 340, 168
LEFT, RIGHT, TOP, BOTTOM = 38, 16, 10, 24
WIDEST = 46
ROW = 17
LABEL = 82
_TICKS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


@dataclass(frozen=True)
class Axis:
    """The x axis of a histogram: `label` names the quantity, `tick` formats a value, `mark` is where to draw a vertical line."""

    label: str
    tick: Callable[[float], str] = lambda value: f"{value:g}"
    mark: float | None = None
    integer: bool = False
    """The values are integers: a tick names the bar that starts there, and stands below its middle."""
    every: int = 0
    """Ticks at multiples of this many bar widths; 0 for as many ticks as there is room for."""


def histogram(data: Histogram, axis: Axis) -> Markup:
    """An SVG of stacked bars, one colour for each of OUTCOMES (a single colour where `data` has one row)."""
    bars = len(data.edges) - 1
    highest = max(map(sum, zip(*data.counts, strict=True)))
    top = _round_up(highest)
    step = min((WIDTH - LEFT - RIGHT) / bars, WIDEST)
    plot = HEIGHT - TOP - BOTTOM
    parts = [_scale(top, plot)]
    for bar in range(bars):
        counts = [row[bar] for row in data.counts]
        x, y, segments = LEFT + bar * step, float(TOP + plot), []
        for outcome, count in zip(OUTCOMES, counts, strict=False):
            height = plot * count / top
            y -= height
            if count:
                segments.append(_rect(x + 0.5, y, max(step - 1, 0.5), height, _class(outcome, len(data.counts))))
        parts.append(f"<g><title>{escape(_tip(data, axis, bar))}</title>{''.join(segments)}</g>")
    parts += _ticks(data, axis, step)
    if axis.mark is not None and data.edges[0] <= axis.mark <= data.edges[-1]:
        x = LEFT + (axis.mark - data.edges[0]) / (data.edges[-1] - data.edges[0]) * step * bars
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{TOP + plot}"/>')
    label = (
        f"Histogram of {axis.label}: {data.count:,} values from {axis.tick(data.edges[0])} to "
        f"{axis.tick(data.edges[-1])}, the fullest bar holds {highest:,}"
    )
    return svg(HEIGHT, label, parts)


def survival(rows: Survival, what: str) -> Markup:
    """An SVG with a horizontal bar for each name, divided by outcome, with the percentage of its candidates whose text was kept."""
    parts = []
    room = WIDTH - LABEL - 48
    for number, (name, counts) in enumerate(rows.items()):
        y, x, total = number * ROW, float(LABEL), max(sum(counts), 1)
        parts.append(f'<text class="name" x="{LABEL - 8}" y="{y + 12.5}">{escape(name)}</text>')
        tip = ", ".join(f"{count:,} {outcome}" for outcome, count in zip(OUTCOMES, counts, strict=True))
        segments = []
        for outcome, count in zip(OUTCOMES, counts, strict=True):
            width = room * count / total
            if count:
                segments.append(_rect(x, y + 3, width, ROW - 6, _class(outcome, len(OUTCOMES))))
            x += width
        kept = f"{100 * _kept(counts) / total:.1f} %"
        parts.append(f"<g><title>{escape(name)}: {tip} of {total:,}</title>{''.join(segments)}</g>")
        parts.append(f'<text class="percentage" x="{WIDTH - 2}" y="{y + 12.5}">{kept}</text>')
    label = "; ".join(f"{name} {100 * _kept(counts) / max(sum(counts), 1):.1f} % kept" for name, counts in rows.items())
    return svg(max(len(rows), 1) * ROW, f"Survival by {what}: {label}", parts)


def svg(height: float, label: str, parts: Sequence[str]) -> Markup:
    """A chart of WIDTH x `height` with a label for those who cannot see it."""
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, label, Markup("".join(parts))
    )


def _class(outcome: str, series: int) -> str:
    return outcome.replace(" ", "-") if series > 1 else "plain"


def _kept(counts: Sequence[int]) -> int:
    return sum(count for outcome, count in zip(OUTCOMES, counts, strict=True) if outcome.startswith("kept"))


def _rect(x: float, y: float, width: float, height: float, style: str) -> str:
    return f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _scale(top: int, plot: int) -> str:
    """Three grid lines, with counts where these are integers."""
    lines = []
    for value in (0, top / 2, top):
        y = TOP + plot * (1 - value / top)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if value == int(value):
            lines.append(f'<text class="count" x="{LEFT - 5}" y="{y + 3.5:.1f}">{_short(int(value))}</text>')
    return "".join(lines)


def _ticks(data: Histogram, axis: Axis, step: float) -> list[str]:
    """Labels below the axis at round values, as many as fit."""
    labels = [axis.tick(edge) for edge in data.edges]
    indices = range(len(labels) - 1 if axis.integer else len(labels))
    width = data.edges[-1] - data.edges[-2]
    room = 6 * max(map(len, labels)) + 8
    fitting = next((n for n in range(1, len(labels)) if n * step >= room and _is_round(n * width)), 1)
    chosen: list[int] = []
    for every in (axis.every, fitting, 1):
        chosen = chosen or [at for at in indices if every and _is_multiple(data.edges[at], every * width)]
    shift = step / 2 if axis.integer else 0
    if data.below:
        labels[0] = f"≤{labels[0]}"
    if data.above:
        labels[indices[-1]] += "+"
    return [
        f'<text class="tick" x="{LEFT + at * step + shift:.1f}" y="{HEIGHT - 7}">{escape(labels[at])}</text>'
        for at in chosen
    ]


def _is_round(value: float) -> bool:
    """Whether it is 1, 2, 2.5 or 5 times a power of ten."""
    mantissa = value / 10 ** math.floor(math.log10(value) + 1e-9)
    return any(abs(mantissa - round_one) < 1e-6 for round_one in (1, 2, 2.5, 5))


def _is_multiple(value: float, of: float) -> bool:
    return abs(value / of - round(value / of)) < 1e-6


def _tip(data: Histogram, axis: Axis, bar: int) -> str:
    low, high = axis.tick(data.edges[bar]), axis.tick(data.edges[bar + 1])
    where = f"{low} to {high}"
    if axis.integer:
        last = axis.tick(data.edges[bar + 1] - 1)
        where = low if last == low else f"{low} to {last}"
    if bar == 0 and data.below:
        where = f"below {high}"
    if bar == len(data.edges) - 2 and data.above:
        where = f"{low} and above"
    counts = [row[bar] for row in data.counts]
    if len(counts) == 1:
        return f"{where}: {counts[0]:,}"
    return f"{where}: {sum(counts):,} (" + ", ".join(f"{c:,} {f}" for c, f in zip(counts, OUTCOMES, strict=True)) + ")"


def _round_up(value: int) -> int:
    """The smallest round integer that is not below the value."""
    power = 10 ** math.floor(math.log10(max(value, 1)))
    return next(round(tick * power) for tick in _TICKS if tick * power >= value and tick * power % 1 == 0)


def _short(count: int) -> str:
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:g}{unit}"
    return str(count)
