"""Build the HTML text of a report from gathered values and encoded images."""

from __future__ import annotations

import base64
import hashlib
import math
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from pseudoris_cli import __version__
from pseudoris_cli.evaluation.metrics import Evaluation
from pseudoris_cli.report import charts, measured, summary
from pseudoris_cli.report.charts import Axis
from pseudoris_cli.report.gather import Report, ShownImage
from pseudoris_cli.report.histograms import Histogram
from pseudoris_cli.report.images import EmbeddedImage, Overlay
from pseudoris_cli.report.rows import PageRows

SCRIPTS = ("cells.js", "decisions.js", "card.js", "script.js")

MASK_SCORES = {
    "predicted_iou": "predicted IoU",
    "stability_score": "stability",
    "detector_score": "detection",
    "match_iou": "match IoU",
}
"""Scores of a mask by which images can be sorted, and what the page calls them."""


def build_page(
    report: Report,
    images: list[EmbeddedImage],
    overlays: list[list[Overlay | None]],
    evaluation: Evaluation | None = None,
) -> str:
    """The HTML of a report. `images` and `overlays` (one for each mask) are in the order of `report.images`.

    An `evaluation` against a truth adds its curves.
    """
    rows = PageRows(report)
    cards = [
        _card(shown, image, image_overlays, rows)
        for shown, image, image_overlays in zip(report.images, images, overlays, strict=True)
    ]
    script = "\n".join(map(_asset, SCRIPTS))
    return (
        _environment()
        .get_template("template.html.j2")
        .render(
            report=report,
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            pseudoris=__version__,
            notices=summary.notices(report),
            method=summary.method(report),
            tiles=summary.tiles(report),
            checkpoints=summary.checkpoints(report),
            settings=summary.settings(report),
            packages=summary.packages(report),
            histograms=_histograms(report),
            survivals=_survivals(report),
            measured=measured.figures(evaluation),
            cards=cards,
            page=rows.page_data() | {"mask_scores": list(MASK_SCORES.values())},
            style=Markup(_asset("style.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _environment() -> Environment:
    """A jinja2 environment that escapes everything except Markup and raises on unknown names."""
    environment = Environment(
        loader=FunctionLoader(_asset), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {
        "separators": (",", ":"),
        "ensure_ascii": False,
        "allow_nan": False,
    }
    return environment


def _asset(name: str) -> str:
    return files("pseudoris_cli.report").joinpath(name).read_text(encoding="utf-8")


def _card(shown: ShownImage, image: EmbeddedImage, overlays: list[Overlay | None], rows: PageRows) -> dict[str, Any]:
    masks = [
        {"id": mask.mask_id, "area": mask.area, "fraction": mask.area / (mask.rle.width * mask.rle.height)}
        | ({"category": mask.category[1]} if mask.category else {})
        | {"scores": [_short(getattr(mask, name)) for name in MASK_SCORES]}
        | ({"uri": overlay.uri, "box": overlay.box} if overlay else {})
        for mask, overlay in zip(shown.masks, overlays, strict=True)
    ]
    notes = [note for note in (image.uri and image.note, shown.error) if note]
    if shown.status is None:
        notes.append("not worked on yet")
    if shown.status == "empty":
        notes.append("no object was found in this image")
    elif shown.masks and not shown.candidates and rows.has_candidates:
        notes.append("no captions yet")
    size = f"{shown.masks[0].rle.width} × {shown.masks[0].rle.height}" if shown.masks else ""
    kept = sum(bool(candidate.kept) for candidate in shown.candidates) if rows.is_filtered else None
    return {
        "key": shown.key,
        "size": size,
        "notes": notes,
        "image": image,
        "masks": len(shown.masks),
        "candidates": len(shown.candidates),
        "kept": kept,
        "data": {"masks": masks, "rows": rows.of(shown)},
    }


def _histograms(report: Report) -> list[dict[str, Any]]:
    threshold = summary.threshold(report)
    axes = {
        "doc": Axis("DoC", mark=threshold),
        "uniqueness": Axis("uniqueness", mark=1.0),
        "correctness": Axis("correctness"),
        "listener": Axis("listener", mark=summary.setting(report, "min_listener")),
        "masks per image": Axis("masks per image", integer=True),
        "captions kept per mask": Axis("captions kept per mask", integer=True),
        "mask area": Axis("mask area as a fraction of the image", tick=_percent_of_log, every=4),
    }
    notes = {
        "doc": "Distinctiveness of caption: how much better it fits its mask than any other"
        + (f"; kept above {threshold:g}" if threshold is not None else ""),
        "uniqueness": "Similarity to its mask over the largest similarity to another mask of the image",
        "correctness": "Cosine of the masked crop and the noun prompt",
        "listener": "Probability that the listener, who is shown every mask, picks the caption's own",
        "masks per image": "Pseudo-masks in an image",
        "captions kept per mask": "Distinct texts that a mask keeps; a mask with 0 is not exported",
        "mask area": "Fraction of the image, logarithmic",
    }
    found, figures = report.totals.histograms, report.totals.figures or {}
    medians = {name: figures.get(f"median_{name}") for name in axes}
    return [
        {
            "kind": "histogram",
            "title": axis.label[0].upper() + axis.label[1:],
            "note": f"{notes[name]}.{_middle(found[name], axis, _COUNTED[name], medians.get(name))}",
            "chart": charts.histogram(found[name], axis),
        }
        for name, axis in axes.items()
        if name in found
    ]


_COUNTED = {"masks per image": "images", "captions kept per mask": "masks", "mask area": "masks"}
_COUNTED |= dict.fromkeys(("doc", "uniqueness", "correctness", "listener"), "candidates that have one")


def _middle(data: Histogram, axis: Axis, counted: str, median: float | None) -> str:
    """The mean of what is counted, the median of a score (few DoC at the cap would decide a mean), and of how many values.

    `median` is that of the filter, which the tiles show too; before there is a filter it is the histogram's.
    """
    number = f"{data.count:,} {counted}"
    if axis.every:
        return f" {number}."
    return (
        f" Mean {data.mean:.1f} of {number}."
        if axis.integer
        else f" Median {summary.number(data.median if median is None else median)} of {number}."
    )


def _survivals(report: Report) -> list[dict[str, Any]]:
    totals = report.totals
    charted = (("sampler", totals.by_sampler), ("crop", totals.by_crop))
    return [
        {
            "kind": "survival",
            "title": f"Survival by {what}",
            "note": f"Outcome of the texts. Again: the same {what} gave the mask this text before.",
            "chart": charts.survival(rows, what),
        }
        for what, rows in charted
        if rows
    ]


def _percent_of_log(value: float) -> str:
    percentage = 100 * math.pow(10, value)
    return f"{percentage:.0f} %" if percentage >= 10 else f"{percentage:.2g} %"
