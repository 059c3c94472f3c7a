"""Training targets of the Cascade R-CNN: the labels of anchors and boxes, box deltas and masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import box_iou, roi_align

from pseudoris_cli.networks.cascade_rcnn.boxes import Weights, centres_and_sides

IGNORED, BACKGROUND = -2, -1


@dataclass(frozen=True, slots=True)
class Truth:
    """The objects of one image: masks float [N, H, W] and their boxes [N, 4] (x1 and y1 exclusive)."""

    masks: torch.Tensor
    boxes: torch.Tensor


def truth_of(owner: np.ndarray) -> Truth:
    """The ground truth of an owner map [H, W] (0: background, k: object k - 1)."""
    labels = np.arange(1, int(owner.max()) + 1)
    masks = owner[None] == labels[:, None, None]
    boxes = np.empty((len(labels), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        x, y = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        box[:] = x[0], y[0], x[-1] + 1, y[-1] + 1
    return Truth(torch.from_numpy(masks).float(), torch.from_numpy(boxes))


def match_anchors(anchors: torch.Tensor, truth: Truth) -> torch.Tensor:
    """The object of each anchor [K], with IoU >= 0.7 or the best IoU of some object; background below 0.3, else ignored."""
    ious = box_iou(truth.boxes, anchors)
    best, matched = ious.max(dim=0)
    labels = torch.where(best >= 0.7, matched, torch.where(best < 0.3, BACKGROUND, IGNORED))
    nearest = ious == ious.max(dim=1, keepdim=True).values.clamp(min=1e-6)
    return torch.where(nearest.any(0), matched, labels)


def match_boxes(boxes: torch.Tensor, truth: Truth, threshold: float) -> torch.Tensor:
    """The object of each box [P], background where no IoU reaches the threshold."""
    best, matched = box_iou(truth.boxes, boxes).max(dim=0)
    return torch.where(best >= threshold, matched, BACKGROUND)


def sample(labels: torch.Tensor, count: int, fraction: float, generator: torch.Generator) -> torch.Tensor:
    """Indices of at most `count` rows, at most this fraction of them objects, drawn at random."""
    objects, background = ((labels >= 0).nonzero()[:, 0], (labels == BACKGROUND).nonzero()[:, 0])
    objects = objects[torch.randperm(len(objects), generator=generator)[: int(count * fraction)]]
    background = background[torch.randperm(len(background), generator=generator)[: count - len(objects)]]
    return torch.cat([objects, background])


def encode_offsets(boxes: torch.Tensor, targets: torch.Tensor, weights: Weights) -> torch.Tensor:
    """The box deltas from `boxes` to `targets`, the inverse of `boxes.apply_deltas`."""
    (centres, sides), (to_centres, to_sides) = centres_and_sides(boxes), centres_and_sides(targets)
    return torch.cat([(to_centres - centres) / sides, (to_sides / sides).log()], dim=1) * torch.tensor(weights)


def mask_targets(truth: Truth, objects: torch.Tensor, boxes: torch.Tensor, cells: int) -> torch.Tensor:
    """The fraction of each cell of a box [P, cells, cells] that the mask of the box's object covers."""
    rois = torch.cat([objects[:, None].float(), boxes], dim=1)
    return roi_align(truth.masks[:, None], rois, cells, 1.0, 0, aligned=True)[:, 0]
