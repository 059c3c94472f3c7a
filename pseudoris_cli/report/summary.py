"""The texts and figures of a report: notices, the method in short, key figures, and the provenance of the results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from pseudoris_cli.method.scoring import FLAGS
from pseudoris_cli.report.gather import Report, StageVersion
from pseudoris_cli.settings.models import FilterSettings
from pseudoris_cli.settings.trees import leaves
from pseudoris_cli.weights.provenance import model_name, same_model

RANDOM = "random:"
DEMO = "demo_"
_REASONS = {
    "empty": ("no text", "the captioner gave no text"),
    "duplicate": ("duplicate", "an earlier candidate of this mask has the same text"),
    "words": ("word count", "fewer or more words than the filter allows"),
    "unscored": ("no score", "the score that decides is not a number"),
    "one-mask": ("lower half", "the image has one mask, so there is no DoC: the better half by correctness stays"),
    "by hand": ("by hand", "dropped by hand"),
    "kept by hand": ("by hand", "kept by hand"),
    "rank": ("rank", "the mask has enough captions with a higher DoC"),
    "listener": ("unsure", "the listener picks this mask, but with too little probability"),
    "listener other": ("other mask", "the listener picks another mask"),
    "listener none": ("none", "the listener says that it fits no mask, or several"),
    "not asked": ("not asked", "the listener was not asked about it, or gave no answer"),
}


@dataclass(frozen=True)
class Notice:
    """A remark above the figures that affects how to read them. `kind` is `warning` or `note`."""

    kind: str
    title: str
    text: str


@dataclass(frozen=True)
class Tile:
    """A key figure with its label and an optional explanation."""

    label: str
    value: str
    detail: str = ""


def reason(name: str) -> tuple[str, str] | None:
    """A reason of the filter as a short label and as a sentence; None for an unknown reason."""
    if name.startswith("doc<="):
        limit = name.removeprefix("doc<=")
        return f"DoC ≤ {limit}", f"the caption fits another mask about as well: its DoC is not above {limit}"
    return _REASONS.get(name)


def flags(text: str) -> str | None:
    """The meaning of the comma-separated flags of a score; None if one is unknown."""
    names = text.split(",")
    return "; ".join(FLAGS[name] for name in names) if all(name in FLAGS for name in names) else None


def number(value: float | None) -> str:
    """A score as text: three decimals (one from 10 on) and a typographic minus sign; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.{3 if abs(value) < 10 else 1}f}".replace("-", "−")


def threshold(report: Report) -> float | None:
    """The `min_doc` of the filter, which a kept caption exceeds; None before the filter has run."""
    return setting(report, "min_doc")


def setting(report: Report, name: str) -> float | None:
    """A number of the filter's settings; None before the filter has run."""
    made = next((made for made in report.stages if made.stage == "filter"), None)
    return float(made.header["settings"].get(name, FilterSettings.model_fields[name].default)) if made else None


def notices(report: Report) -> list[Notice]:
    """Random weights, demo networks, incomplete stages, failed images, and the stage to run next."""
    found = [*_weight_notices(report), *_partial_notices(report)]
    if warning := same_model({made.stage: made.header for made in report.stages}):
        found.append(Notice("warning", "One model on both sides", f"{warning[0].upper()}{warning[1:]}."))
    if report.failed:
        found.append(Notice("note", "Failed images", f"{_failures(report)}; they are listed at the end, with reasons."))
    following = {"masks": "captions", "captions": "filter", "scores": "filter", "judge": "filter"}.get(report.deepest)
    if following:
        text = f"This report shows the {report.deepest}; no later stage has run. Next: pseudoris {following}."
        found.append(Notice("note", f"Up to {report.deepest}", text))
    return found


def _failures(report: Report) -> str:
    """The numbers of failed and vanished images of each stage, in words."""
    told = []
    for made in report.stages:
        counts = {"failed": made.counts["failed"], "vanished": made.counts["gone"]}
        words = [f"{count:,} {word}" for word, count in counts.items() if count]
        told += [f"{made.stage}: {', '.join(words)}"] if words else []
    return "; ".join(told)


def _weight_notices(report: Report) -> Iterator[Notice]:
    names = {f"{role} {w['name']}": w["name"] for made in report.stages for role, w in made.checkpoints.items()}
    drawn = [told for told, name in names.items() if name.startswith(RANDOM)]
    if drawn:
        text = f"The output is meaningless; it only shows that the pipeline runs ({', '.join(drawn)})."
        yield Notice("warning", "Random weights", text)
    if any(name.startswith(DEMO) for name in names.values()):
        text = "The embedded networks were trained on rendered scenes only. Their output on photographs is meaningless."
        yield Notice("note", "Demo networks", text)


def _partial_notices(report: Report) -> Iterator[Notice]:
    lacking = [
        f"{made.stage} cover {made.images - made.pending:,} of {made.images:,} images"
        for made in report.stages
        if made.pending
    ]
    if lacking:
        text = f"{'; '.join(lacking)}. All figures below describe the processed images only, as with --allow-partial."
        yield Notice("warning", "Partial data", text[0].upper() + text[1:])


def method(report: Report) -> list[tuple[str, str]]:
    """What each stage did, in a few words: (stage, words)."""
    words = {"masks": _mask_words, "captions": _caption_words, "filter": _filter_words}
    told = [
        (made.stage, _judge_words(made) if made.stage == "judge" else words[made.stage](made.header["settings"]))
        for made in report.stages
        if made.stage in {*words, "judge"}
    ]
    if report.is_judged:
        heard = f", listener > {setting(report, 'min_listener'):g}"
        told = [(stage, text + heard if stage == "filter" else text) for stage, text in told]
    return [(stage, text) for stage, text in told if text]


def _mask_words(settings: dict[str, Any]) -> str:
    sam, proposals = settings.get("sam", {}), settings.get("proposals", {})
    parts = [f"SAM {sam['model']}" if "model" in sam else ""]
    parts.append(_chooser(proposals))
    return ", ".join(part for part in parts if part)


def _chooser(proposals: dict[str, Any]) -> str:
    """What chose the masks that are objects. The name CutLER is used for its registered checkpoint only."""
    backend = proposals.get("backend")
    if backend in ("cascade_rcnn", "detectron2"):
        cutler = proposals.get("checkpoint") == "cutler_cascade"
        return "chosen by " + ("CutLER" if cutler else f"Cascade R-CNN {proposals.get('model', '')}".rstrip())
    return {"none": "no detector", None: ""}.get(backend, f"from {backend}")


def _caption_words(settings: dict[str, Any]) -> str:
    strength = settings.get("contrast")
    if strength is None:
        return str(settings.get("backend", ""))
    if strength == 0:
        return "plain sampling"
    form = {"literal": "literal", "scale_preserving": "scale-preserving"}.get(settings.get("contrast_form", ""), "")
    times = "" if strength == 1 else f" × {strength:g}"
    return f"distinctive sampling, {form} contrast{times}"


def _judge_words(made: StageVersion) -> str:
    name = model_name(made.header, "judge")
    return f"listener {PurePath(name).name}" if name else str(made.header["settings"]["judge"]["backend"])


def _filter_words(settings: dict[str, Any]) -> str:
    best = settings.get("top_k_per_mask")
    return f"DoC > {settings['min_doc']:g}" + (f", best {best} per mask" if best else "")


def tiles(report: Report) -> list[Tile]:
    """The key figures over all images, as tiles for the page."""
    totals, masks = report.totals, report.stages[0]
    answered = masks.images - masks.pending
    told = [f"{masks.counts[name]:,} {name}" for name in ("empty", "failed", "gone") if masks.counts[name]]
    if totals.figures and (alone := totals.figures["one_mask_images"]):
        told.append(f"{alone:,} with one mask, so no DoC")
    found = [
        Tile("images", f"{answered:,}", ", ".join(told) or "all with masks"),
        Tile("masks", f"{totals.masks:,}", f"{_ratio(totals.masks, masks.counts['done']):.1f} per image with masks"),
    ]
    if totals.candidates:
        found.append(
            Tile("candidates", f"{totals.candidates:,}", f"{_ratio(totals.candidates, totals.captioned):.1f} per mask")
        )
    return found + _filter_tiles(totals.figures, threshold(report)) if totals.figures else found


def _filter_tiles(figures: dict[str, Any], limit: float | None) -> list[Tile]:
    fraction = _ratio(figures["masks_kept"], figures["masks"])
    kept = f"distinct; {figures['kept_per_mask'] or 0:.1f} per mask"
    scored = figures["scored"]
    limited = f"; kept above {limit:g}" if limit is not None else ""
    return [
        Tile("captions kept", f"{figures['kept']:,}", kept),
        Tile("masks kept", _percent(fraction), f"{figures['masks_kept']:,} of {figures['masks']:,} have a caption"),
        Tile("DoC above 1", _percent(figures["share_doc_above_1"]), f"of {scored['doc']:,} candidates with a DoC"),
        *_listener_tiles(figures.get("listener")),
        Tile("DoC", number(figures["median_doc"]), f"median of {scored['doc']:,}{limited}"),
        Tile("uniqueness", number(figures["median_uniqueness"]), f"median of {scored['uniqueness']:,}"),
        Tile("correctness", number(figures["median_correctness"]), f"median of {scored['correctness']:,}"),
    ]


def _listener_tiles(heard: dict[str, Any] | None) -> list[Tile]:
    if not heard or not heard["asked"]:
        return []
    told = (
        f"of {heard['asked']:,} asked; another {_percent(heard['share_other'])}, none {_percent(heard['share_none'])}"
    )
    agrees = f"DoC > 1 and the listener, of {heard['with_doc']:,} asked with a DoC"
    return [
        Tile("listener picks it", _percent(heard["accuracy"]), told),
        Tile("both say the same", _percent(heard["agreement_with_doc"]), agrees),
    ]


def checkpoints(report: Report) -> list[tuple[str, str, str, str]]:
    """(stage, role, name, digest) of every checkpoint."""
    return [
        (made.stage, role, weights["name"], weights["digest"])
        for made in report.stages
        for role, weights in made.checkpoints.items()
    ]


def settings(report: Report) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each stage the dotted names and values of everything that its version depends on."""
    return [(made.stage, list(_deciding(made))) for made in report.stages]


def _deciding(made: StageVersion) -> Iterator[tuple[str, str]]:
    for name in ("settings", "numerics"):
        for dotted, value in leaves(made.header.get(name, {}), "" if name == "settings" else f"{name}."):
            yield dotted, _plain(value)
    yield "revision", _plain(made.header.get("revision"))


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def packages(report: Report) -> list[tuple[str, str]]:
    """(name, versions) of the packages with which the stages were run; several versions where stages differ."""
    found: dict[str, list[str]] = {}
    for made in report.stages:
        recorded = made.header.get("packages", {})
        for name, version in {
            "pseudoris": made.header.get("pseudoris"),
            "python": made.header.get("python"),
            **recorded,
        }.items():
            if version and version not in found.setdefault(name, []):
                found[name].append(version)
    return [(name, ", ".join(versions)) for name, versions in found.items()]


def _ratio(part: float, total: float) -> float:
    return part / total if total else 0.0


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f} %"
