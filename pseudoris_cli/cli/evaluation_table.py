"""The evaluation as tables on a terminal."""

from __future__ import annotations

from pseudoris_cli.cli.tables import Column, print_table, print_text
from pseudoris_cli.evaluation.metrics import Evaluation, Figure

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
                method.method + (" + DoC filter" if method.filtered else ""),
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


def _number(figure: Figure, intervals: bool) -> str:
    if figure.value is None:
        return "-"
    return f"{figure.value:.3f}" + (f" [{figure.low:.3f}, {figure.high:.3f}]" if intervals else "")


def _percent(figure: Figure, intervals: bool) -> str:
    if figure.value is None or figure.low is None or figure.high is None:
        return "-"
    text = f"{100 * figure.value:.1f}"
    return text + (f" ±{50 * (figure.high - figure.low):.1f}" if intervals else "")
