"""The evaluation as tables on a terminal."""

from __future__ import annotations

from pseudoris_cli.cli.tables import Column, print_table, print_text
from pseudoris_cli.evaluation.curves import COVERAGES
from pseudoris_cli.evaluation.metrics import Evaluation, label
from pseudoris_cli.evaluation.resampling import Figure
from pseudoris_cli.evaluation.scenes import NOT_IN_GRAMMAR

_HEADINGS = {
    "well_formed": "well-formed",
    "truthful": "true",
    "unique": "unique",
    "referring": "referring",
    "coverage": "masks with one",
    "referring_coverage": "with a referring one",
}


def print_evaluation(evaluation: Evaluation, intervals: bool = False) -> None:
    """Mask figures in one line, caption figures as a table; shares in per cent, with 95 % intervals if asked for."""
    parts = [f"{name} {_number(figure, intervals)}" for name, figure in evaluation.mask_figures.items()]
    print_text(
        f"masks: {evaluation.masks:,} for {evaluation.objects:,} objects in {evaluation.images:,} images; "
        + ", ".join(parts)
    )
    if evaluation.masks_version:
        pilot = f" ({evaluation.pilot})" if evaluation.pilot else ""
        print_text(
            f"measured: {evaluation.images:,} images, of {evaluation.images_in_truth:,} in the truth and "
            f"{evaluation.images_in_masks:,} in masks {evaluation.masks_version}{pilot}"
        )
    for version in evaluation.left_out:
        print_text(f"captions {version} left out: it has not answered all images of the others")
    if not evaluation.captions:
        return
    rows = []
    for method in evaluation.captions:
        per_mask = method.figures["per_mask"].value
        rows.append(
            [
                label(method.method, method.selection),
                f"{method.texts:,}",
                "-" if per_mask is None else f"{per_mask:.1f}",
                *(_percent(method.figures[name], intervals) for name in _HEADINGS),
            ]
        )
    figures = [Column(heading) for heading in ("texts", "per mask", *_HEADINGS.values())]
    print_table([Column("expressions, per cent", right=False), *figures], rows)
    print_text(
        "Of the texts: true, holds for its mask's object; unique, holds for exactly one object; referring, both. "
        "Of the masks that cover an object: those with a text, and with a referring one."
    )
    _print_kinds(evaluation)
    _print_curves(evaluation, intervals)


def _print_kinds(evaluation: Evaluation) -> None:
    """Referring shares by kind of expression, where texts are of several kinds."""
    kinds = sorted({kind for method in evaluation.captions for kind in method.kinds})
    if set(kinds) <= {"attribute", NOT_IN_GRAMMAR}:
        return
    rows = []
    for method in evaluation.captions:
        cells = []
        for texts, referring in (method.kinds.get(kind, (0, 0)) for kind in kinds):
            cells.append(f"{100 * referring / texts:.1f} of {texts:,}" if texts else "-")
        rows.append([label(method.method, method.selection), *cells])
    print_table([Column("referring by kind, per cent", right=False), *map(Column, kinds)], rows)


def _print_curves(evaluation: Evaluation, intervals: bool) -> None:
    """The precision of each selector at equal coverage, where there was a listener; and whether its probabilities are true."""
    if not evaluation.calibration:
        return
    rows = [
        [label(one.method, one.selector), *(_percent(figure, intervals) for figure in one.at.values())]
        for one in evaluation.curves
    ]
    headings = [f"at {100 * coverage:.0f} %" for coverage in COVERAGES]
    print_table([Column("referring at equal coverage", right=False), *map(Column, headings)], rows)
    print_text(
        "Thresholds set so that this share of the masks that cover an object has a referring expression; - where no threshold does."
    )
    errors = ", ".join(f"{one.method} {one.ece:.3f}" for one in evaluation.calibration)
    print_text(f"the listener's probabilities against shares of referring texts, expected calibration error: {errors}")


def _number(figure: Figure, intervals: bool) -> str:
    if figure.value is None:
        return "-"
    return f"{figure.value:.3f}" + (f" [{figure.low:.3f}, {figure.high:.3f}]" if intervals else "")


def _percent(figure: Figure, intervals: bool) -> str:
    if figure.value is None or figure.low is None or figure.high is None:
        return "-"
    text = f"{100 * figure.value:.1f}"
    return text + (f" ±{50 * (figure.high - figure.low):.1f}" if intervals else "")
