"""Which masks of an image become its pseudo-masks, and in which order: pure functions on records (paper §3.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pseudoris_cli.method.protocols import Proposal, Segment
from pseudoris_cli.records import Category, Mask
from pseudoris_cli.rle import intersections, rle_area, rle_bbox
from pseudoris_cli.settings.models import MaskRules, MaskSettings


@dataclass(frozen=True, slots=True)
class ChosenMasks:
    """The pseudo-masks of one image, `mask_id` 0, 1, ... in order, and how many were dropped for each reason."""

    masks: list[Mask]
    dropped: Counter[str]


def choose(
    segments: Sequence[Segment] | None, proposals: Sequence[Proposal] | None, settings: MaskSettings
) -> ChosenMasks:
    """The pseudo-masks of one image.

    With both: for every detection the best automatic mask. Without a detector (`proposals` None): the automatic masks
    that satisfy the rules. Without automatic masks (`segments` None): the proposals' own masks.

    They are ordered by detector score and predicted IoU, both descending, then as the segmenter ordered them. Empty masks
    are dropped.
    """
    dropped: Counter[str] = Counter()
    if segments is None:
        masks = [_own_mask(proposal) for proposal in proposals or ()]
    elif proposals is None:
        masks = [_mask(segments[index]) for index in apply_rules(segments, settings.rules, dropped)]
    else:
        masks = match(segments, proposals, settings, dropped)
    dropped["empty"] = sum(mask.area == 0 for mask in masks)
    masks = [mask for mask in masks if mask.area > 0]
    if settings.drop_full_frame:
        partial = [mask for mask in masks if mask.area < mask.rle.height * mask.rle.width]
        dropped["full_frame"] = len(masks) - len(partial)
        masks = partial
    masks = sorted(masks, key=_rank)  # stable: the segmenter's order decides ties
    kept = masks[: settings.max_per_image]
    dropped["over_max_per_image"] = len(masks) - len(kept)
    return ChosenMasks([replace(mask, mask_id=number) for number, mask in enumerate(kept)], +dropped)


def match(
    segments: Sequence[Segment], proposals: Sequence[Proposal], settings: MaskSettings, dropped: Counter[str]
) -> list[Mask]:
    """The best segment of each detection, in the segments' order.

    With `match: overlap`, the rule of the Pseudo-RIS release, that is the segment with the largest intersection in pixels,
    the first of equals, even where every intersection is empty. With `match: iou` it is the one with the largest IoU,
    which must be above 0 and at least `match_min_iou`. With `deduplicate` a segment goes to the detection with the highest
    score only. `dropped` is added to.
    """
    if not segments or not proposals:
        dropped["unmatched"] += len(proposals)
        return []
    ranked = sorted(proposals, key=lambda proposal: -proposal.score)
    common = intersections([proposal.rle for proposal in ranked], [segment.rle for segment in segments])
    ious = _ious(common, [rle_area(proposal.rle) for proposal in ranked], [segment.area for segment in segments])
    best = (ious if settings.match == "iou" else common).argmax(axis=1)
    matched: list[tuple[int, Mask]] = []
    taken: set[int] = set()
    for row, index in enumerate(best.tolist()):
        iou = float(ious[row, index])
        if iou < settings.match_min_iou or (settings.match == "iou" and iou == 0):
            dropped["unmatched"] += 1
        elif settings.deduplicate and index in taken:
            dropped["duplicate"] += 1
        else:
            taken.add(index)
            matched.append((index, _mask(segments[index], ranked[row].score, iou, ranked[row].category)))
    return [mask for _, mask in sorted(matched, key=lambda pair: pair[0])]


def apply_rules(segments: Sequence[Segment], rules: MaskRules, dropped: Counter[str]) -> list[int]:
    """Indices of the segments that are neither too small nor too large, after non-maximum suppression on masks.

    In descending order of predicted IoU, a segment is dropped if its IoU with a kept one is above `nms_iou`, or if more
    than the fraction `containment` of the smaller of the two lies inside the other. `dropped` is added to.
    """
    fitting = []
    for index, segment in enumerate(segments):
        if segment.area < rules.min_area:
            dropped["small"] += 1
        elif segment.area > rules.max_area * segment.rle.height * segment.rle.width:
            dropped["large"] += 1
        else:
            fitting.append(index)
    rles, areas = [segments[index].rle for index in fitting], [segments[index].area for index in fitting]
    common = intersections(rles, rles)
    ious = _ious(common, areas, areas)
    contained = common / np.maximum(np.minimum.outer(areas, areas), 1) if fitting else common
    kept: list[int] = []
    for row in sorted(range(len(fitting)), key=lambda row: -segments[fitting[row]].predicted_iou):
        if (ious[row, kept] > rules.nms_iou).any():
            dropped["overlapping"] += 1
        elif (contained[row, kept] > rules.containment).any():
            dropped["contained"] += 1
        else:
            kept.append(row)
    return sorted(fitting[row] for row in kept)


def _ious(common: np.ndarray, areas_a: Sequence[int], areas_b: Sequence[int]) -> np.ndarray:
    return common / np.maximum(np.add.outer(np.array(areas_a, int), np.array(areas_b, int)) - common, 1)


def _rank(mask: Mask) -> tuple[float, float]:
    return -(mask.detector_score if mask.detector_score is not None else 0.0), -mask.predicted_iou


def _mask(
    segment: Segment, score: float | None = None, iou: float | None = None, category: Category | None = None
) -> Mask:
    return Mask(
        mask_id=-1,
        rle=segment.rle,
        bbox=segment.bbox,
        area=segment.area,
        predicted_iou=segment.predicted_iou,
        stability_score=segment.stability_score,
        detector_score=score,
        match_iou=iou,
        category=category,
    )


def _own_mask(proposal: Proposal) -> Mask:
    """A proposal's mask. No segmenter rated it, so predicted IoU and stability are 1."""
    rle = proposal.rle
    return Mask(-1, rle, rle_bbox(rle), rle_area(rle), 1.0, 1.0, proposal.score, category=proposal.category)
