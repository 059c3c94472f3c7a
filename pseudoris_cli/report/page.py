"""From gathered values and pictures to one HTML text."""

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
from pseudoris_cli.report import charts, summary
from pseudoris_cli.report.charts import Axis
from pseudoris_cli.report.gather import Report, ShownImage
from pseudoris_cli.report.pictures import Overlay, Picture
from pseudoris_cli.report.rows import PageRows
from pseudoris_cli.report.tallies import Histogram

SCRIPTS = ("cells.js", "card.js", "script.js")


def render(report: Report, pictures: list[Picture], overlays: list[list[Overlay | None]]) -> str:
    """The page. `pictures` and, per mask, `overlays` belong to `report.images` in order."""
    rows = PageRows(report)
    cards = [
        _card(image, picture, shapes, rows)
        for image, picture, shapes in zip(report.images, pictures, overlays, strict=True)
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
            cards=cards,
            page=rows.page_data(),
            style=Markup(_asset("style.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def _environment() -> Environment:
    """Everything is escaped unless it is Markup; an unknown name is an error."""
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


def _card(image: ShownImage, picture: Picture, shapes: list[Overlay | None], rows: PageRows) -> dict[str, Any]:
    masks = [
        {"id": mask.mask_id, "area": mask.area, "share": mask.area / (mask.rle.width * mask.rle.height)}
        | ({"category": mask.category[1]} if mask.category else {})
        | ({"uri": shape.uri, "box": shape.box} if shape else {})
        for mask, shape in zip(image.masks, shapes, strict=True)
    ]
    notes = [note for note in (picture.uri and picture.note, image.error) if note]
    if image.status is None:
        notes.append("not worked on yet")
    if image.status == "empty":
        notes.append("no object was found in this image")
    elif image.masks and not image.candidates and rows.has_candidates:
        notes.append("no captions yet")
    size = f"{image.masks[0].rle.width} × {image.masks[0].rle.height}" if image.masks else ""
    kept = sum(bool(candidate.kept) for candidate in image.candidates) if rows.is_filtered else None
    return {
        "key": image.key,
        "size": size,
        "notes": notes,
        "picture": picture,
        "masks": len(image.masks),
        "candidates": len(image.candidates),
        "kept": kept,
        "data": {"masks": masks, "rows": rows.of(image)},
    }


def _histograms(report: Report) -> list[dict[str, Any]]:
    threshold = summary.threshold(report)
    axes = {
        "doc": Axis("DoC", mark=threshold),
        "uniqueness": Axis("uniqueness", mark=1.0),
        "correctness": Axis("correctness"),
        "masks per image": Axis("masks per image", whole=True),
        "captions kept per mask": Axis("captions kept per mask", whole=True),
        "mask area": Axis("mask area as a share of the image", tick=_percent_of_log, every=4),
    }
    told = {
        "doc": "Distinctiveness of caption: how much better it fits its mask than any other"
        + (f"; kept above {threshold:g}" if threshold is not None else ""),
        "uniqueness": "Similarity to its mask over the largest similarity to another mask of the image",
        "correctness": "Cosine of the masked crop and the noun prompt",
        "masks per image": "Pseudo-masks in an image",
        "captions kept per mask": "Distinct texts that a mask keeps; at 0 the mask is lost",
        "mask area": "Share of the image, logarithmic",
    }
    found = report.totals.histograms
    return [
        {
            "kind": "histogram",
            "title": axis.label[0].upper() + axis.label[1:],
            "note": f"{told[name]}.{_mean(found[name], axis)}",
            "chart": charts.histogram(found[name], axis),
        }
        for name, axis in axes.items()
        if name in found
    ]


def _mean(data: Histogram, axis: Axis) -> str:
    """In words; nothing for a logarithm."""
    if axis.every:
        return ""
    return f" Mean {data.mean:.1f}." if axis.whole else f" Mean {summary.number(data.mean)}."


def _survivals(report: Report) -> list[dict[str, Any]]:
    totals = report.totals
    charted = (("sampler", totals.by_sampler), ("crop", totals.by_crop))
    return [
        {
            "kind": "survival",
            "title": f"Survival by {what}",
            "note": f"What became of the texts; again: what the same {what} has said of the mask before.",
            "chart": charts.survival(rows, what),
        }
        for what, rows in charted
        if rows
    ]


def _percent_of_log(value: float) -> str:
    share = 100 * math.pow(10, value)
    return f"{share:.0f} %" if share >= 10 else f"{share:.2g} %"
