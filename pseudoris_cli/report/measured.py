"""What an evaluation against a truth adds to the report: precision against coverage, and the listener's calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

from pseudoris_cli.evaluation.curves import Calibration, Curve
from pseudoris_cli.evaluation.metrics import Evaluation
from pseudoris_cli.report.charts import WIDTH, svg

HEIGHT = 200
LEFT, RIGHT, TOP, BOTTOM = 38, 16, 10, 40
_DASHES = {"DoC": "2 3", "listener": "7 3", "both": ""}
"""The line of each selector, so that colour is not needed to tell them apart."""


def figures(evaluation: Evaluation | None) -> list[dict[str, Any]]:
    """Figures of the last method that was measured: none without a truth, or without expressions in it."""
    if evaluation is None or not evaluation.curves:
        return []
    method = evaluation.curves[-1].method
    curves = [one for one in evaluation.curves if one.method == method]
    found = [
        {
            "kind": "measured",
            "title": "Precision against coverage",
            "note": f"Against the truth, {method}: referring share of what a threshold keeps, and the share of masks that have a "
            "referring expression then",
            "chart": _curves(curves),
        }
    ]
    for one in evaluation.calibration:
        if one.method == method:
            title = f"Listener's probability (ECE {one.ece:.3f})"
            note = "Share of referring texts in each tenth of the probability; on the line the listener is as sure as it is right"
            found.append({"kind": "measured", "title": title, "note": note, "chart": _reliability(one)})
    return found


def _curves(curves: Sequence[Curve]) -> Markup:
    precisions = [precision for one in curves for _, precision in one.points]
    low = min(0.9, max(0.0, int(min(precisions) * 10) / 10))
    parts = _axes(low, "coverage")
    for number, one in enumerate(curves):
        points = " ".join(f"{_x(c):.1f},{_y(p, low):.1f}" for c, p in one.points)
        name = "DoC and listener" if one.selector == "both" else one.selector
        reached = ", ".join(f"{100 * f.value:.1f} % at {k}" for k, f in one.at.items() if f.value is not None)
        dash = _DASHES.get(one.selector, "1 2")
        parts.append(
            f"<g><title>{escape(name)}: {reached or 'no coverage of .6 or more'}</title>"
            f'<polyline class="curve" stroke-dasharray="{dash}" points="{points}"/></g>'
        )
        x = LEFT + (0, 62, 144)[number % 3]
        parts.append(
            f'<line class="curve" stroke-dasharray="{dash}" x1="{x}" x2="{x + 22}" y1="{HEIGHT - 6}" y2="{HEIGHT - 6}"/>'
        )
        parts.append(f'<text class="key" x="{x + 26}" y="{HEIGHT - 2}">{escape(name)}</text>')
    told = "; ".join(
        f"{one.selector} ends at {one.points[-1][1]:.2f} for {one.points[-1][0]:.2f} of the masks" for one in curves
    )
    return svg(HEIGHT, f"Precision against coverage: {told}", parts)


def _reliability(one: Calibration) -> Markup:
    parts = _axes(0.0, "probability")
    parts.append(f'<line class="mark" x1="{_x(0)}" y1="{_y(0, 0)}" x2="{_x(1)}" y2="{_y(1, 0)}"/>')
    most = max(part.texts for part in one.bins)
    for part in one.bins:
        radius = 2 + 5 * (part.texts / most) ** 0.5
        parts.append(
            f"<g><title>{part.texts:,} texts: probability {part.probability:.2f}, {100 * part.referring:.1f} % referring</title>"
            f'<circle class="plain" cx="{_x(part.probability):.1f}" cy="{_y(part.referring, 0):.1f}" r="{radius:.1f}"/></g>'
        )
    return svg(HEIGHT, f"Reliability: expected calibration error {one.ece:.3f} in {len(one.bins)} bins", parts)


def _axes(low: float, across: str) -> list[str]:
    parts = []
    for share in (low, (1 + low) / 2, 1.0):
        y = _y(share, low)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="count" x="{LEFT - 5}" y="{y + 3.5:.1f}">{100 * share:.0f} %</text>')
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<text class="tick" x="{_x(share):.1f}" y="{HEIGHT - BOTTOM + 13}">{share:g}</text>')
    parts.append(f'<text class="tick" x="{_x(0.5):.1f}" y="{HEIGHT - BOTTOM + 24}">{across}</text>')
    return parts


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(share: float, low: float) -> float:
    return TOP + (1 - share) / (1 - low) * (HEIGHT - TOP - BOTTOM)
