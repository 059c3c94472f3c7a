"""Measure masks and captions against a ground truth.

Masks: `recall@t` is the fraction of objects that some mask covers at IoU >= t, `mean_best_iou` the mean over objects of
their best mask's IoU, `precision@.5` the fraction of masks that get an object when pairs are matched one to one by
descending IoU, down to .5.

Captions: a mask stands for the object that it overlaps most, if at IoU >= .5 (then it is *matched*). Each distinct text
of a mask counts once. `well_formed`: `demo.grammar` parses it. `truthful`: what it names holds for the mask's object
(never for an unmatched mask). `unique`: it holds for exactly one object of the image. `referring`: both. `per_mask` is
the number of texts per mask; `coverage` and `referring_coverage` are the fractions of matched masks with at least one
text, or one referring text.

Intervals are 95 % percentile bootstraps over images; differences resample the same images on both sides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pseudoris_cli.demo.grammar import Attributes, parse
from pseudoris_cli.errors import UsageError
from pseudoris_cli.evaluation.truth import KnownImage
from pseudoris_cli.records import Rle
from pseudoris_cli.rle import ious

ArtifactRow = Mapping[str, Any]
"""A row of an artifact, by column name; `docs/artifacts.md` lists the columns."""
RESAMPLES = 2000
CAPTION_FIGURES = ("well_formed", "truthful", "unique", "referring", "per_mask", "coverage", "referring_coverage")


@dataclass(frozen=True, slots=True)
class CaptionRun:
    """One run of the captions stage and, if it ran, of the filter.

    `method` names how the captions were sampled (`plain` or `distinctive`, for example). Rows of `captions` need image_key,
    mask_id, caption and sampler; rows of `kept`, those that the filter kept, image_key, mask_id and caption.
    """

    method: str
    captions: Sequence[ArtifactRow]
    kept: Sequence[ArtifactRow] | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured fraction or mean with its 95 % interval; None where there is nothing to divide by."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class MethodFigures:
    """The captions of one method, before or after the filter."""

    method: str
    filtered: bool
    texts: int
    figures: dict[str, Figure]


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
        """One flat row per method and filter state: method, filtered, texts, and each figure's value, low and high."""
        return [
            {
                "method": one.method,
                "filtered": one.filtered,
                "texts": one.texts,
                **{
                    f"{name}{suffix}": part
                    for name, figure in one.figures.items()
                    for suffix, part in (("", figure.value), ("_low", figure.low), ("_high", figure.high))
                },
            }
            for one in self.captions
        ]


@dataclass(frozen=True, slots=True)
class _Ratio:
    """A figure as a sum over images divided by a sum over images; both [images]."""

    above: np.ndarray
    below: np.ndarray


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
    overlaps = [_overlaps(image, list(found[image.key].values())) for image in truth]
    weights = _resamples(len(truth), seed)
    mask_figures = {name: _figure(ratio, weights) for name, ratio in _mask_ratios(overlaps).items()}
    counts = len(truth), sum(len(image.masks) for image in truth), sum(overlap.shape[1] for overlap in overlaps)
    if not truth or any(image.attributes is None for image in truth):
        return Evaluation(*counts, mask_figures)

    scenes = [
        _Scene(image.attributes or (), _matches(overlap, list(found[image.key])))
        for image, overlap in zip(truth, overlaps, strict=True)
    ]
    measured: dict[tuple[str, bool], dict[str, _Ratio]] = {}
    texts: dict[tuple[str, bool], int] = {}
    for method, filtered, rows in _selections(runs):
        by_image: dict[str, set[tuple[int, str]]] = defaultdict(set)
        for row in rows:
            by_image[row["image_key"]].add((row["mask_id"], row["caption"].strip()))
        per_image = [by_image[image.key] for image in truth]
        measured[method, filtered] = _caption_ratios(scenes, per_image)
        texts[method, filtered] = sum(map(len, per_image))
    captions = tuple(
        MethodFigures(*which, texts[which], {name: _figure(ratio, weights) for name, ratio in ratios.items()})
        for which, ratios in measured.items()
    )
    return Evaluation(*counts, mask_figures, captions, _differences(measured, weights))


@dataclass(frozen=True, slots=True)
class _Scene:
    """The objects of an image, and which of them each mask id stands for (-1: none)."""

    attributes: tuple[Attributes, ...]
    object_of: dict[int, int]


def _overlaps(image: KnownImage, masks: Sequence[Rle]) -> np.ndarray:
    """IoU of every object with every mask, [objects, masks]."""
    sizes = {(rle.height, rle.width) for rle in (*image.masks, *masks)}
    if len(sizes) > 1:
        raise UsageError(f"the truth and the masks of {image.key} differ in size: {sorted(sizes)} (height, width)")
    return ious(image.masks, masks)


def _resamples(images: int, seed: int) -> np.ndarray:
    """How often each image is drawn in each bootstrap sample, float [RESAMPLES, images]."""
    rng = np.random.default_rng(seed)
    if not images:
        return np.zeros((RESAMPLES, 0))
    return rng.multinomial(images, np.full(images, 1 / images), size=RESAMPLES).astype(float)


def _samples(ratio: _Ratio, weights: np.ndarray) -> np.ndarray:
    """The ratio in each bootstrap sample; NaN where it has nothing to divide by."""
    below = weights @ ratio.below
    return np.divide(weights @ ratio.above, below, out=np.full(len(weights), np.nan), where=below > 0)


def _interval(value: float, samples: np.ndarray) -> Figure:
    known = samples[~np.isnan(samples)]
    if not len(known):
        return Figure(value, None, None)
    low, high = np.percentile(known, (2.5, 97.5))
    return Figure(value, float(low), float(high))


def _value(ratio: _Ratio) -> float | None:
    below = ratio.below.sum()
    return float(ratio.above.sum() / below) if below else None


def _figure(ratio: _Ratio, weights: np.ndarray) -> Figure:
    value = _value(ratio)
    return Figure(None, None, None) if value is None else _interval(value, _samples(ratio, weights))


def _mask_ratios(overlaps: Sequence[np.ndarray]) -> dict[str, _Ratio]:
    """Mask figures from the IoUs [objects, masks] of each image."""
    best = [overlap.max(axis=1, initial=0.0) for overlap in overlaps]
    objects, masks = (np.array([overlap.shape[axis] for overlap in overlaps], float) for axis in (0, 1))
    return {
        "recall@.5": _Ratio(np.array([(b >= 0.5).sum() for b in best], float), objects),
        "recall@.75": _Ratio(np.array([(b >= 0.75).sum() for b in best], float), objects),
        "mean_best_iou": _Ratio(np.array([b.sum() for b in best], float), objects),
        "precision@.5": _Ratio(np.array([_pairs(overlap) for overlap in overlaps], float), masks),
    }


def _pairs(overlap: np.ndarray) -> int:
    """Pairs of object and mask, matched one to one by descending IoU, down to .5."""
    left, count = overlap.copy(), 0
    while left.size and left.max() >= 0.5:
        row, column = np.unravel_index(left.argmax(), left.shape)
        left[row], left[:, column] = 0, 0
        count += 1
    return count


def _matches(overlap: np.ndarray, mask_ids: Sequence[int]) -> dict[int, int]:
    """The object that each mask overlaps most, -1 below IoU .5."""
    if not overlap.shape[0]:
        return dict.fromkeys(mask_ids, -1)
    best = overlap.argmax(axis=0)
    return {m: int(best[k]) if overlap[best[k], k] >= 0.5 else -1 for k, m in enumerate(mask_ids)}


def _selections(runs: Sequence[CaptionRun]) -> Iterable[tuple[str, bool, list[ArtifactRow]]]:
    """(method, filtered, rows) for beam captions and each run's samplers, before and after the filter."""
    for position, run in enumerate(runs):
        methods = (("beam", True), (run.method, False)) if position == 0 else ((run.method, False),)
        for method, beam in methods:
            rows = [row for row in run.captions if (row["sampler"] == "beam") == beam]
            if not rows:
                continue
            yield method, False, rows
            if run.kept is not None:
                # the filter keeps one row of each text of a mask, whichever sampler said it first
                kept = {(row["image_key"], row["mask_id"], row["caption"]) for row in run.kept}
                yield method, True, [r for r in rows if (r["image_key"], r["mask_id"], r["caption"]) in kept]


def _caption_ratios(scenes: Sequence[_Scene], texts: Sequence[set[tuple[int, str]]]) -> dict[str, _Ratio]:
    """Caption figures from each image's (mask id, text) pairs."""
    columns = ("texts", "well_formed", "truthful", "unique", "referring", "masks", "matched", "covered", "referred")
    table = np.zeros((len(scenes), len(columns)))
    for row, scene, pairs in zip(table, scenes, texts, strict=True):
        covered, referred = set(), set()
        for mask_id, text in pairs:
            target = scene.object_of.get(mask_id, -1)
            claim = parse(text)
            holds = [claim is not None and claim.holds(obj) for obj in scene.attributes]
            truthful, unique = target >= 0 and holds[target], sum(holds) == 1
            row[:5] += 1, claim is not None, truthful, unique, truthful and unique
            if target >= 0:
                covered.add(mask_id)
            if truthful and unique:
                referred.add(mask_id)
        matched = sum(target >= 0 for target in scene.object_of.values())
        row[5:] = len(scene.object_of), matched, len(covered), len(referred)
    column = dict(zip(columns, table.T, strict=True))
    fractions = {name: _Ratio(column[name], column["texts"]) for name in CAPTION_FIGURES[:4]}
    return fractions | {
        "per_mask": _Ratio(column["texts"], column["masks"]),
        "coverage": _Ratio(column["covered"], column["matched"]),
        "referring_coverage": _Ratio(column["referred"], column["matched"]),
    }


def _differences(
    measured: Mapping[tuple[str, bool], Mapping[str, _Ratio]], weights: np.ndarray
) -> tuple[Difference, ...]:
    """Rises of `unique` and `referring`: plain -> every other sampled method, and each method -> the same, filtered."""
    steps = [(("plain", False), which) for which in measured if which[0] not in ("plain", "beam") and not which[1]]
    steps += [((method, False), (method, True)) for method, filtered in measured if filtered]
    rises = []
    for lower, upper in steps:
        for name in ("unique", "referring") if lower in measured else ():
            a, b = measured[lower][name], measured[upper][name]
            before, after = _value(a), _value(b)
            if before is not None and after is not None:
                rise = _interval(after - before, _samples(b, weights) - _samples(a, weights))
                rises.append(Difference(name, _label(lower), _label(upper), rise))
    return tuple(rises)


def _label(which: tuple[str, bool]) -> str:
    return f"{which[0]} + DoC" if which[1] else which[0]
