"""Whether two runs of automatic masks agree, and whether each difference is a threshold or NMS decision within rounding.

Shared by the tests and `benchmarks/masks.py`. A mask is identified by its crop, prompt and output (`key`). Of each run there are
the masks that it kept (`kept`) and those with every filter off (`every`), with the values that the filters compare.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torchvision.ops import box_iou

from pseudoris_cli.networks.sam.automatic import AutomaticMasks, AutomaticMaskSettings, MaskCandidate

MARGIN = 1e-4
Key = tuple[tuple[int, int, int, int], int, int]


@dataclass(frozen=True)
class Run:
    """The masks of one generator on one image."""

    kept: dict[Key, MaskCandidate]
    every: dict[Key, MaskCandidate]


def key(mask: MaskCandidate) -> Key:
    return mask.crop_xyxy, mask.prompt, mask.mask


def run(generator: AutomaticMasks, image: np.ndarray) -> Run:
    """Generate twice: with the generator's settings, and with all filters off."""
    off = replace(
        generator.settings, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0, crop_nms_thresh=1.0
    )
    loose = AutomaticMasks(generator.network, off, generator.gather)
    kept, every = generator.generate([image])[0], loose.generate([image])[0]
    return Run({key(mask): mask for mask in kept}, {key(mask): mask for mask in every})


def pixels_different(a: MaskCandidate, b: MaskCandidate) -> int:
    """Pixels of one mask and not of the other."""
    edges = np.sort(np.concatenate([a.edges, b.edges]))  # the two edges of a position in both masks cancel
    return int((edges[1::2] - edges[::2]).sum())


def fraction_different(a: Run, b: Run, pixels: int) -> float:
    """Fraction of pixels that differ among the masks that both runs kept."""
    both = a.kept.keys() & b.kept.keys()
    different = sum(pixels_different(a.kept[name], b.kept[name]) for name in both)
    return different / max(1, pixels * len(both))


def unexplained(a: Run, b: Run, settings: AutomaticMaskSettings) -> list[Key]:
    """Masks that one run kept and the other did not, for a reason other than a decision within MARGIN."""
    different = a.kept.keys() ^ b.kept.keys()
    return [name for name in different if not _close_call(name, *((a, b) if name in a.kept else (b, a)), settings)]


def _close_call(name: Key, keeper: Run, other: Run, settings: AutomaticMaskSettings) -> bool:
    """Whether `other` dropped a mask that `keeper` kept by a decision that rounding may reverse."""
    mine, lost = keeper.every[name], other.every.get(name)
    if lost is None:  # filtered out before it was recorded
        near = (
            abs(mine.predicted_iou - settings.pred_iou_thresh),
            abs(mine.stability_score - settings.stability_score_thresh),
        )
        return min(near) < MARGIN
    if (
        abs(mine.predicted_iou - lost.predicted_iou) > MARGIN
        or abs(mine.stability_score - lost.stability_score) > MARGIN
    ):
        return False
    if settings.pred_iou_thresh > 0 and lost.predicted_iou <= settings.pred_iou_thresh:
        return abs(mine.predicted_iou - settings.pred_iou_thresh) < MARGIN
    if lost.stability_score < settings.stability_score_thresh:
        return abs(mine.stability_score - settings.stability_score_thresh) < MARGIN
    return any(_reversed(name, winner, keeper, other, settings) for winner in other.kept)


def _reversed(name: Key, winner: Key, keeper: Run, other: Run, settings: AutomaticMaskSettings) -> bool:
    """Whether `winner` suppressed the mask in `other` by a decision that rounding may reverse."""
    same_crop = name[0] == winner[0]
    threshold = settings.box_nms_thresh if same_crop else settings.crop_nms_thresh
    if _iou(other, name, winner) <= threshold:
        return False
    gap = other.every[winner].predicted_iou - other.every[name].predicted_iou if same_crop else 1.0
    if gap < -MARGIN:
        return False
    close = gap < MARGIN or abs(_iou(keeper, name, winner) - threshold) < MARGIN
    moved = any(keeper.every[side].box_xyxy != other.every[side].box_xyxy for side in (name, winner))
    return (
        close or moved or winner not in keeper.kept
    )  # the last is a difference of its own, which is checked separately


def _iou(run: Run, a: Key, b: Key) -> float:
    first, second = (torch.tensor([run.every[name].box_xyxy], dtype=torch.float32) for name in (a, b))
    return float(box_iou(first, second))
