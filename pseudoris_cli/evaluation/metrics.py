"""Measure masks and captions against a ground truth.

Masks: `recall@t` is the fraction of objects that some mask covers at IoU >= t, `mean_best_iou` the mean over objects of
their best mask's IoU, `precision@.5` the fraction of masks that get an object when pairs are matched one to one by
descending IoU, down to .5.

Captions: a mask stands for the object that it overlaps most, if at IoU >= .5 (then it is *matched*). Each distinct text
of a mask counts once. `well_formed`: `demo.expressions` parses it. `truthful`: what it says holds for the mask's object
(never for an unmatched mask). `unique`: it holds for exactly one object of the image. `referring`: both. `per_mask` is
the number of texts per mask; `coverage` and `referring_coverage` are the fractions of matched masks with at least one
text, or one referring text.

Each method is measured before selection ("none") and after each: "DoC" alone, the "listener" alone, "both".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pseudoris_cli.evaluation import curves
from pseudoris_cli.evaluation.curves import Calibration, Candidates, Curve
from pseudoris_cli.evaluation.resampling import Figure, Ratio, interval, resamples
from pseudoris_cli.evaluation.scenes import Scene, known_scene_of, overlaps
from pseudoris_cli.evaluation.truth import KnownImage
from pseudoris_cli.records import Rle

ArtifactRow = Mapping[str, Any]
"""A row of an artifact, by column name; `docs/artifacts.md` lists the columns."""
SELECTIONS = ("none", "DoC", "listener", "both")
"""How captions were chosen; "both" asks for DoC and the listener."""
CAPTION_FIGURES = ("well_formed", "truthful", "unique", "referring", "per_mask", "coverage", "referring_coverage")


@dataclass(frozen=True, slots=True)
class CaptionRun:
    """One run of the captions stage and what was made of it.

    `method` names how the captions were sampled (`plain` or `distinctive`, for example). Rows of `captions` need image_key,
    mask_id, caption and sampler; rows of `kept`, those that the filter kept by DoC, and of `heard`, those that it kept with a
    listener (selection "listener" or "both"), image_key, mask_id and caption. `scored` has all candidates with doc and, where
    there was a listener, `listener`; `min_doc` is the bound of "both" in the curves.
    """

    method: str
    captions: Sequence[ArtifactRow]
    kept: Sequence[ArtifactRow] | None = None
    heard: Mapping[str, Sequence[ArtifactRow]] = field(default_factory=dict)
    scored: Sequence[ArtifactRow] = ()
    min_doc: float = 1.0


@dataclass(frozen=True, slots=True)
class MethodFigures:
    """The captions of one method under one selection. `kinds`: for each kind of expression its texts and its referring ones."""

    method: str
    filtered: bool
    selection: str
    texts: int
    figures: dict[str, Figure]
    kinds: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Difference:
    """How much a figure increases from one method to the next, on the same images."""

    figure: str
    lower: str
    upper: str
    rise: Figure


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All results; `captions` is empty where the truth has no attributes."""

    images: int
    objects: int
    masks: int
    mask_figures: dict[str, Figure]
    captions: tuple[MethodFigures, ...] = ()
    differences: tuple[Difference, ...] = ()
    curves: tuple[Curve, ...] = ()
    calibration: tuple[Calibration, ...] = ()
    masks_version: str | None = None
    """Of a work directory: the version that was measured,"""
    pilot: str | None = None
    """`pilot-8` where it is that of a pilot,"""
    images_in_truth: int | None = None
    images_in_masks: int | None = None
    left_out: tuple[str, ...] = ()
    """and the captions versions that have not answered all of these images."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for json.dumps."""
        return asdict(self)

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per method and selection: its name, texts, and each figure's value, low and high."""
        return [
            {
                "method": one.method,
                "filtered": one.filtered,
                "selection": one.selection,
                "texts": one.texts,
                **{
                    f"{name}{suffix}": part
                    for name, figure in one.figures.items()
                    for suffix, part in (("", figure.value), ("_low", figure.low), ("_high", figure.high))
                },
            }
            for one in self.captions
        ]


def evaluate(
    truth: Sequence[KnownImage], masks: Iterable[ArtifactRow], runs: Sequence[CaptionRun] = (), seed: int = 0
) -> Evaluation:
    """Measure masks (rows with image_key, mask_id, rle_size, rle_counts) and the captions of any number of runs.

    Beam captions are those whose sampler is `beam`; they are taken from the first run. Every image of the truth counts;
    rows of other images are left out.
    """
    found: dict[str, dict[int, Rle]] = defaultdict(dict)
    for row in masks:
        height, width = (int(n) for n in row["rle_size"])
        found[row["image_key"]][row["mask_id"]] = Rle(height, width, row["rle_counts"])
    shared = [overlaps(image, list(found[image.key].values())) for image in truth]
    weights = resamples(len(truth), seed)
    mask_figures = {name: ratio.figure(weights) for name, ratio in _mask_ratios(shared).items()}
    counts = len(truth), sum(len(image.masks) for image in truth), sum(overlap.shape[1] for overlap in shared)
    if not truth or any(image.attributes is None for image in truth):
        return Evaluation(*counts, mask_figures)

    scenes = [
        known_scene_of(image, overlap, list(found[image.key])) for image, overlap in zip(truth, shared, strict=True)
    ]
    number = {image.key: index for index, image in enumerate(truth)}
    measured: dict[tuple[str, str], dict[str, Ratio]] = {}
    captions = []
    for method, selection, rows in _selections(runs):
        by_image: list[set[tuple[int, str]]] = [set() for _ in truth]
        for row in rows:
            if row["image_key"] in number:
                by_image[number[row["image_key"]]].add((row["mask_id"], row["caption"].strip()))
        ratios, kinds = _caption_ratios(scenes, by_image)
        measured[method, selection] = ratios
        figures = {name: ratio.figure(weights) for name, ratio in ratios.items()}
        texts = sum(map(len, by_image))
        captions.append(MethodFigures(method, selection != "none", selection, texts, figures, kinds))
    drawn = [_curves(run, scenes, number, weights) for run in runs if run.scored]
    return Evaluation(
        *counts,
        mask_figures,
        tuple(captions),
        _differences(measured, weights),
        tuple(one for of_run, _ in drawn for one in of_run),
        tuple(one for _, one in drawn if one),
    )


def _mask_ratios(overlaps: Sequence[np.ndarray]) -> dict[str, Ratio]:
    """Mask figures from the IoUs [objects, masks] of each image."""
    best = [overlap.max(axis=1, initial=0.0) for overlap in overlaps]
    objects, masks = (np.array([overlap.shape[axis] for overlap in overlaps], float) for axis in (0, 1))
    return {
        "recall@.5": Ratio(np.array([(b >= 0.5).sum() for b in best], float), objects),
        "recall@.75": Ratio(np.array([(b >= 0.75).sum() for b in best], float), objects),
        "mean_best_iou": Ratio(np.array([b.sum() for b in best], float), objects),
        "precision@.5": Ratio(np.array([_pairs(overlap) for overlap in overlaps], float), masks),
    }


def _pairs(overlap: np.ndarray) -> int:
    """Pairs of object and mask, matched one to one by descending IoU, down to .5."""
    left, count = overlap.copy(), 0
    while left.size and left.max() >= 0.5:
        row, column = np.unravel_index(left.argmax(), left.shape)
        left[row], left[:, column] = 0, 0
        count += 1
    return count


def _selections(runs: Sequence[CaptionRun]) -> Iterable[tuple[str, str, list[ArtifactRow]]]:
    """(method, selection, rows) for beam captions and each run's samplers, before and after each selection."""
    for position, run in enumerate(runs):
        methods = (("beam", True), (run.method, False)) if position == 0 else ((run.method, False),)
        chosen = ({} if run.kept is None else {"DoC": run.kept}) | dict(run.heard)
        for method, beam in methods:
            rows = [row for row in run.captions if (row["sampler"] == "beam") == beam]
            if not rows:
                continue
            yield method, "none", rows
            for selection in (name for name in SELECTIONS if name in chosen):
                # the filter keeps one row of each text of a mask, whichever sampler said it first
                kept = {(row["image_key"], row["mask_id"], row["caption"]) for row in chosen[selection]}
                yield method, selection, [r for r in rows if (r["image_key"], r["mask_id"], r["caption"]) in kept]


def _curves(
    run: CaptionRun, scenes: Sequence[Scene], number: Mapping[str, int], weights: np.ndarray
) -> tuple[list[Curve], Calibration | None]:
    """Each selector's curve over the distinct candidates of a run, beam captions included, and the listener's calibration."""
    distinct: dict[tuple[int, int, str], ArtifactRow] = {}
    for row in run.scored:
        if row["image_key"] in number:
            key = number[row["image_key"]], row["mask_id"], row["caption"].strip()
            before = distinct.get(key)
            if before is None or _score(before, "listener") != _score(before, "listener"):
                distinct[key] = row  # the row of a text that was asked, whichever it is
    masks = {which: index for index, which in enumerate(dict.fromkeys(key[:2] for key in distinct))}
    given = Candidates(
        np.array([key[0] for key in distinct], int),
        np.array([masks[key[:2]] for key in distinct], int),
        np.array([scenes[image].judge(mask_id, text).referring for image, mask_id, text in distinct], bool),
        np.array([sum(target >= 0 for target in scene.object_of.values()) for scene in scenes], int),
    )
    doc, listener = (np.array([_score(row, name) for row in distinct.values()], float) for name in ("doc", "listener"))
    scores = {"DoC": doc, "listener": listener, "both": curves.both(doc, listener, run.min_doc)}
    made = [curves.curve(run.method, name, given, score, weights) for name, score in scores.items()]
    return [one for one in made if one], curves.calibration(run.method, listener, given.referring)


def _score(row: ArtifactRow, name: str) -> float:
    value = row.get(name)
    return float("nan") if value is None else float(value)


def _caption_ratios(
    scenes: Sequence[Scene], texts: Sequence[set[tuple[int, str]]]
) -> tuple[dict[str, Ratio], dict[str, tuple[int, int]]]:
    """Caption figures from each image's (mask id, text) pairs, and for each kind its texts and the referring ones."""
    columns = ("texts", "well_formed", "truthful", "unique", "referring", "masks", "matched", "covered", "referred")
    table = np.zeros((len(scenes), len(columns)))
    kinds: dict[str, tuple[int, int]] = {}
    for row, scene, pairs in zip(table, scenes, texts, strict=True):
        covered, referred = set(), set()
        for mask_id, text in pairs:
            said = scene.judge(mask_id, text)
            row[:5] += 1, said.well_formed, said.truthful, said.unique, said.referring
            of_kind, right = kinds.get(said.kind, (0, 0))
            kinds[said.kind] = of_kind + 1, right + said.referring
            if scene.object_of.get(mask_id, -1) >= 0:
                covered.add(mask_id)
            if said.referring:
                referred.add(mask_id)
        matched = sum(target >= 0 for target in scene.object_of.values())
        row[5:] = len(scene.object_of), matched, len(covered), len(referred)
    column = dict(zip(columns, table.T, strict=True))
    fractions = {name: Ratio(column[name], column["texts"]) for name in CAPTION_FIGURES[:4]}
    return fractions | {
        "per_mask": Ratio(column["texts"], column["masks"]),
        "coverage": Ratio(column["covered"], column["matched"]),
        "referring_coverage": Ratio(column["referred"], column["matched"]),
    }, dict(sorted(kinds.items()))


def _differences(
    measured: Mapping[tuple[str, str], Mapping[str, Ratio]], weights: np.ndarray
) -> tuple[Difference, ...]:
    """Rises of `unique` and `referring`: plain -> every other sampled method, and each method -> the same, selected."""
    steps = [
        (("plain", "none"), which) for which in measured if which[0] not in ("plain", "beam") and which[1] == "none"
    ]
    steps += [((method, "none"), (method, selection)) for method, selection in measured if selection != "none"]
    rises = []
    for lower, upper in steps:
        for name in ("unique", "referring") if lower in measured else ():
            a, b = measured[lower][name], measured[upper][name]
            before, after = a.value(), b.value()
            if before is not None and after is not None:
                rise = interval(after - before, b.samples(weights) - a.samples(weights))
                rises.append(Difference(name, label(*lower), label(*upper), rise))
    return tuple(rises)


def label(method: str, selection: str) -> str:
    """A method with its selection, as tables name it."""
    return method + {"none": "", "both": " + DoC + listener"}.get(selection, f" + {selection}")
