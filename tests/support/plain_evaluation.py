"""Every figure of an evaluation counted in loops, one mask, text and threshold at a time: slow, and written apart from ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pseudoris_cli.demo.expressions import Located, parse_expression, referents
from pseudoris_cli.evaluation.truth import KnownImage
from pseudoris_cli.rle import decode_rle

Row = Mapping[str, Any]
Counts = list[tuple[float, float]]
"""For each image what is above and below a fraction."""


class PlainImage:
    """An image with what was found in it, as pixels."""

    def __init__(self, known: KnownImage, masks: Mapping[int, np.ndarray]) -> None:
        self.objects = [decode_rle(rle) for rle in known.masks]
        self.iou = {(o, m): self._iou(of, mask) for o, of in enumerate(self.objects) for m, mask in masks.items()}
        self.masks = masks
        self._judged: dict[tuple[int, str], dict[str, Any]] = {}
        self.meant: dict[int, int | None] = {}
        for m in masks:
            best, best_iou = None, 0.0
            for o in range(len(self.objects)):
                if self.iou[o, m] > best_iou:
                    best, best_iou = o, self.iou[o, m]
            self.meant[m] = best if best_iou >= 0.5 else None
        self.located = [self._located(of, mask) for of, mask in zip(known.attributes or (), self.objects, strict=True)]

    @staticmethod
    def _iou(a: np.ndarray, b: np.ndarray) -> float:
        return float((a & b).sum() / (a | b).sum()) if (a | b).any() else 0.0

    @staticmethod
    def _located(of: Any, mask: np.ndarray) -> Located:
        ys, xs = np.nonzero(mask)
        height, width = mask.shape
        return Located(of, (xs.min() + xs.max() + 1) / 2 / width, (ys.min() + ys.max() + 1) / 2 / height, mask.mean())

    def judge(self, mask_id: int, text: str) -> dict[str, Any]:
        if (mask_id, text) not in self._judged:
            self._judged[mask_id, text] = self._judge(mask_id, text)
        return self._judged[mask_id, text]

    def _judge(self, mask_id: int, text: str) -> dict[str, Any]:
        said = parse_expression(text)
        if said is None:
            return {"kind": "other", "well_formed": 0, "truthful": 0, "unique": 0, "referring": 0}
        holds_for = set(referents(said, self.located).objects)
        true, unique = self.meant.get(mask_id) in holds_for, len(holds_for) == 1
        return {
            "kind": said.kind,
            "well_formed": 1,
            "truthful": +true,
            "unique": +unique,
            "referring": +(true and unique),
        }

    def one_to_one(self) -> int:
        left = sorted(((iou, o, m) for (o, m), iou in self.iou.items() if iou >= 0.5), key=lambda pair: -pair[0])
        objects: set[int] = set()
        masks: set[int] = set()
        for _, o, m in left:
            if o not in objects and m not in masks:
                objects.add(o)
                masks.add(m)
        return len(masks)


def fraction(counts: Counts, weights: np.ndarray) -> tuple[float, float, float] | tuple[None, None, None]:
    """Value, low and high; `weights` say how often each image is in each bootstrap sample."""
    above, below = sum(a for a, _ in counts), sum(b for _, b in counts)
    if not below:
        return None, None, None
    samples = []
    for drawn in weights:
        bottom = sum(n * b for n, (_, b) in zip(drawn, counts, strict=True))
        if bottom:
            samples.append(sum(n * a for n, (a, _) in zip(drawn, counts, strict=True)) / bottom)
    return above / below, *np.percentile(samples, (2.5, 97.5))


def mask_counts(images: Sequence[PlainImage]) -> dict[str, Counts]:
    def over(level: float) -> Counts:
        return [(sum(best >= level for best in bests(i)), len(i.objects)) for i in images]

    def bests(image: PlainImage) -> list[float]:
        return [max((image.iou[o, m] for m in image.masks), default=0.0) for o in range(len(image.objects))]

    return {
        "recall@.5": over(0.5),
        "recall@.75": over(0.75),
        "mean_best_iou": [(sum(bests(i)), len(i.objects)) for i in images],
        "precision@.5": [(i.one_to_one(), len(i.masks)) for i in images],
    }


def caption_counts(images: Mapping[str, PlainImage], rows: Sequence[Row]) -> tuple[dict[str, Counts], dict[str, Any]]:
    """The counts of each caption figure for these rows, and texts and referring texts of each kind."""
    counts: dict[str, Counts] = {}
    kinds: dict[str, Any] = {}
    for key, image in images.items():
        texts = {(r["mask_id"], r["caption"].strip()) for r in rows if r["image_key"] == key}
        said = [(m, image.judge(m, text)) for m, text in texts]
        for _, one in said:
            n, right = kinds.get(one["kind"], (0, 0))
            kinds[one["kind"]] = n + 1, right + one["referring"]
        matched = {m for m, o in image.meant.items() if o is not None}
        for name in ("well_formed", "truthful", "unique", "referring"):
            counts.setdefault(name, []).append((sum(one[name] for _, one in said), len(said)))
        counts.setdefault("per_mask", []).append((len(said), len(image.masks)))
        counts.setdefault("coverage", []).append((len({m for m, _ in said} & matched), len(matched)))
        found = {m for m, one in said if one["referring"]}
        counts.setdefault("referring_coverage", []).append((len(found), len(matched)))
    return counts, kinds


def precision_at(
    images: Mapping[str, PlainImage], scored: Sequence[tuple[str, int, str, float]], coverage: float
) -> Counts | None:
    """Referring texts and texts of each image above the highest threshold that reaches a coverage; None where none does."""
    matched = sum(o is not None for i in images.values() for o in i.meant.values())
    for threshold in sorted({s for *_, s in scored if not math.isnan(s)}, reverse=True):
        taken = [(key, m, images[key].judge(m, text)["referring"]) for key, m, text, s in scored if s >= threshold]
        if len({(key, m) for key, m, right in taken if right}) / matched >= coverage:
            return [(sum(r for k, _, r in taken if k == key), sum(k == key for k, *_ in taken)) for key in images]
    return None


def calibration_error(said: Sequence[tuple[float, int]]) -> float:
    """Of probabilities with whether they were right: ten bins, each its distance from its frequency, weighed by its size."""
    error = 0.0
    for k in range(10):
        inside = [(p, r) for p, r in said if k / 10 <= p < (k + 1) / 10 or (k == 9 and p == 1)]
        if inside:
            mean, share = (sum(pair[i] for pair in inside) / len(inside) for i in (0, 1))
            error += abs(mean - share) * len(inside) / len(said)
    return error
