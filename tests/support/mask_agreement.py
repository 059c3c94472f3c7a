"""Whether two runs of automatic masks agree, and where not, whether a threshold or an NMS decision was too close to call.

Shared by the tests and `benchmarks/masks.py`. A mask is known by its crop, prompt and output (`key`); both runs are compared on
what they kept (`kept`) and on what they would keep with every filter off (`every`), which holds the values filters decide on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torchvision.ops import box_iou

from pseudoris_cli.networks.sam.automatic import AutomaticMasks, Candidate, Rules

MARGIN = 1e-4
Key = tuple[tuple[int, int, int, int], int, int]


@dataclass(frozen=True)
class Run:
    """What one generator made of one image."""

    kept: dict[Key, Candidate]
    every: dict[Key, Candidate]


def key(mask: Candidate) -> Key:
    return mask.crop_xyxy, mask.prompt, mask.mask


def run(generator: AutomaticMasks, image: np.ndarray) -> Run:
    """Generate twice: by the generator's rules, and with all of them off."""
    off = replace(
        generator.rules, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0, crop_nms_thresh=1.0
    )
    loose = AutomaticMasks(generator.sam, generator.decoder, off, generator.gather)
    kept, every = generator.generate([image])[0], loose.generate([image])[0]
    return Run({key(mask): mask for mask in kept}, {key(mask): mask for mask in every})


def pixels_different(a: Candidate, b: Candidate) -> int:
    """Pixels of one mask and not of the other."""
    edges = np.sort(np.concatenate([a.edges, b.edges]))  # an edge of both ends what it begins
    return int((edges[1::2] - edges[::2]).sum())


def share_different(a: Run, b: Run, pixels: int) -> float:
    """Share of pixels that differ among masks that both runs kept."""
    both = a.kept.keys() & b.kept.keys()
    different = sum(pixels_different(a.kept[name], b.kept[name]) for name in both)
    return different / max(1, pixels * len(both))


def untraced(a: Run, b: Run, rules: Rules) -> list[Key]:
    """Masks that one run kept and the other did not, for a reason other than a decision within MARGIN."""
    different = a.kept.keys() ^ b.kept.keys()
    return [name for name in different if not _close_call(name, *((a, b) if name in a.kept else (b, a)), rules)]


def _close_call(name: Key, keeper: Run, other: Run, rules: Rules) -> bool:
    """Whether `other` lost a mask that `keeper` kept by a decision that rounding may turn."""
    mine, lost = keeper.every[name], other.every.get(name)
    if lost is None:  # filtered out before it was noted
        near = abs(mine.predicted_iou - rules.pred_iou_thresh), abs(mine.stability_score - rules.stability_score_thresh)
        return min(near) < MARGIN
    if (
        abs(mine.predicted_iou - lost.predicted_iou) > MARGIN
        or abs(mine.stability_score - lost.stability_score) > MARGIN
    ):
        return False
    if rules.pred_iou_thresh > 0 and lost.predicted_iou <= rules.pred_iou_thresh:
        return abs(mine.predicted_iou - rules.pred_iou_thresh) < MARGIN
    if lost.stability_score < rules.stability_score_thresh:
        return abs(mine.stability_score - rules.stability_score_thresh) < MARGIN
    return any(_turned(name, winner, keeper, other, rules) for winner in other.kept)


def _turned(name: Key, winner: Key, keeper: Run, other: Run, rules: Rules) -> bool:
    """Whether `winner` suppressed the mask in `other`, and might not have."""
    same_crop = name[0] == winner[0]
    threshold = rules.box_nms_thresh if same_crop else rules.crop_nms_thresh
    if _iou(other, name, winner) <= threshold:
        return False
    gap = other.every[winner].predicted_iou - other.every[name].predicted_iou if same_crop else 1.0
    if gap < -MARGIN:
        return False
    close = gap < MARGIN or abs(_iou(keeper, name, winner) - threshold) < MARGIN
    moved = any(keeper.every[side].box_xyxy != other.every[side].box_xyxy for side in (name, winner))
    return close or moved or winner not in keeper.kept  # the last is a difference of its own, traced for itself


def _iou(run: Run, a: Key, b: Key) -> float:
    first, second = (torch.tensor([run.every[name].box_xyxy], dtype=torch.float32) for name in (a, b))
    return float(box_iou(first, second))
