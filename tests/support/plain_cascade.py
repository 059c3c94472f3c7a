"""Cascade Mask R-CNN inference in float64, plainly: the referee of benchmarks/parity_cutler.py and of the tests.

Written from the published formulas (Girshick et al., 2014; Ren et al., 2015; Lin et al., 2017; He et al., 2017; Cai and
Vasconcelos, 2018) with the constants of detectron2's configuration for CutLER. It has nothing in common with the package's
own network: boxes and suppression are loops, RoIAlign is a product of interpolation matrices, layers are read straight
from the state dict. Boxes are x0, y0, x1, y1; sizes are (height, width); pixels are network pixels unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

State = Mapping[str, torch.Tensor]
STRIDES, ANCHOR_SIZES, RATIOS = (4, 8, 16, 32, 64), (32, 64, 128, 256, 512), (0.5, 1.0, 2.0)
CASCADE_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
RPN_IOU, DETECTION_IOU, PER_LEVEL, MOST_DETECTIONS = 0.65, 0.5, 1000, 100


@dataclass(frozen=True)
class Trace:
    """What the network computes on one image.

    `pyramid` holds p2...p6 [C, h, w]; `stages` the input boxes [P, 4], logits [P, 2] and deltas [P, 4] of each box head; `boxes`
    [N, 4] and `scores` [N] are the detections in network pixels, best first, and `probabilities` [N, 28, 28] their masks.
    `candidates` counts the boxes above the threshold before suppression.
    """

    pyramid: list[np.ndarray]
    proposals: np.ndarray
    proposal_logits: np.ndarray
    stages: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    candidates: int
    boxes: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray


def decode(deltas: np.ndarray, boxes: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Boxes [N, 4] moved by deltas [N, 4] / weights; a side grows at most by the factor 1000/16."""
    moved = np.empty((len(boxes), 4))
    for row, ((dx, dy, dw, dh), (x0, y0, x1, y1)) in enumerate(zip(deltas.tolist(), boxes.tolist(), strict=True)):
        width, height = x1 - x0, y1 - y0
        x = x0 + width / 2 + dx / weights[0] * width
        y = y0 + height / 2 + dy / weights[1] * height
        half_width = width * math.exp(min(dw / weights[2], math.log(1000 / 16))) / 2
        half_height = height * math.exp(min(dh / weights[3], math.log(1000 / 16))) / 2
        moved[row] = x - half_width, y - half_height, x + half_width, y + half_height
    return moved


def input_size(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    """(height, width) of the resized image: the shortest edge becomes `shortest`, unless the longest would exceed `longest`."""
    factor = shortest / min(height, width)
    if factor * max(height, width) > longest:
        factor *= longest / (factor * max(height, width))
    return math.floor(height * factor + 0.5), math.floor(width * factor + 0.5)


def clip(boxes: np.ndarray, size: Sequence[int]) -> np.ndarray:
    height, width = size
    return np.clip(boxes, 0, [width, height, width, height])


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0.0


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """The rows that are kept, best first: one goes if a better kept one overlaps it by more than `threshold`."""
    kept: list[int] = []
    corners, area = boxes.T, (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for row in np.argsort(-scores, kind="stable").tolist():
        width = np.minimum(corners[2, kept], boxes[row, 2]) - np.maximum(corners[0, kept], boxes[row, 0])
        height = np.minimum(corners[3, kept], boxes[row, 3]) - np.maximum(corners[1, kept], boxes[row, 1])
        shared = width.clip(0) * height.clip(0)
        if not (shared > threshold * (area[kept] + area[row] - shared)).any():
            kept.append(row)
    return kept


@lru_cache
def anchors(height: int, width: int, level: int) -> np.ndarray:
    """[height * width * 3, 4]: row by row, the three ratios of a place together, the first centred on pixel (0, 0)."""
    rows = []
    for y in range(height):
        for x in range(width):
            for ratio in RATIOS:
                wide = math.sqrt(ANCHOR_SIZES[level] ** 2 / ratio)
                tall = ratio * wide
                cx, cy = x * STRIDES[level], y * STRIDES[level]
                rows.append((cx - wide / 2, cy - tall / 2, cx + wide / 2, cy + tall / 2))
    return np.array(rows)


def propose(
    levels: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    size: Sequence[int],
    most: int,
    threshold: float = RPN_IOU,
) -> tuple[np.ndarray, np.ndarray]:
    """Proposals [P, 4] and logits [P], best first, from the anchors [n, 4], logits [n] and deltas [n, 4] of every level."""
    boxes, scores = [], []
    for level_anchors, logits, deltas in levels:
        best = np.argsort(-logits, kind="stable")[:PER_LEVEL]
        found = decode(deltas[best], level_anchors[best], (1, 1, 1, 1))
        logits = logits[best]
        finite = np.isfinite(found).all(1) & np.isfinite(logits)
        found, logits = clip(found[finite], size), logits[finite]
        there = (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])
        found, logits = found[there], logits[there]
        kept = suppress(found, logits, threshold)
        boxes.append(found[kept])
        scores.append(logits[kept])
    together, logits = np.concatenate(boxes), np.concatenate(scores)
    order = np.argsort(-logits, kind="stable")[:most]
    return together[order], logits[order]


def select(
    boxes: np.ndarray, stage_logits: Sequence[np.ndarray], size: Sequence[int], threshold: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Detections: boxes [N, 4] and scores [N] of the best 100 after suppression, and the candidates before it."""
    scores = np.zeros(len(boxes))
    for logits in stage_logits:
        scores += 1 / (1 + np.exp(logits[:, 1].astype(np.float64) - logits[:, 0]))
    scores /= len(stage_logits)
    finite = np.isfinite(boxes).all(1) & np.isfinite(scores)
    boxes, scores = clip(boxes[finite], size), scores[finite]
    boxes, scores = boxes[scores > threshold], scores[scores > threshold]
    kept = suppress(boxes, scores, DETECTION_IOU)[:MOST_DETECTIONS]
    return boxes[kept], scores[kept], len(scores)


def area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def level_of(box: Sequence[float]) -> int:
    """The pyramid level, 2...5, that a box is pooled from."""
    return int(min(max(math.floor(4 + math.log2(math.sqrt(area(box)) / 224 + 1e-8)), 2), 5))


def interpolation(start: float, end: float, cells: int, pixels: int) -> np.ndarray:
    """[cells, pixels]: the mean of bilinear samples in each cell of an interval, given in pixels of the map (aligned)."""
    samples = math.ceil((end - start) / cells)
    if samples == 0:
        return np.zeros((cells, pixels))
    places = start - 0.5 + (end - start) * (np.arange(cells * samples) + 0.5) / (cells * samples)
    inside = (places >= -1) & (places <= pixels)
    weights = 1 - np.abs(places.clip(0, pixels - 1)[:, None] - np.arange(pixels))
    return (weights.clip(0) * inside[:, None]).reshape(cells, samples, pixels).mean(1)


def pool(pyramid: Sequence[np.ndarray], boxes: np.ndarray, cells: int) -> torch.Tensor:
    """RoIAlign of every box from its own level: [N, C, cells, cells]."""
    pooled = np.zeros((len(boxes), len(pyramid[0]), cells, cells))
    for row, box in enumerate(boxes.tolist()):
        level = level_of(box) - 2
        image, stride = pyramid[level], STRIDES[level]
        down = interpolation(box[1] / stride, box[3] / stride, cells, image.shape[1])
        across = interpolation(box[0] / stride, box[2] / stride, cells, image.shape[2])
        pooled[row] = down @ image @ across.T
    return torch.from_numpy(pooled)


def _conv_norm(state: State, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    weight = state[f"{name}.weight"]
    y = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    mean, variance, scale, shift = (
        state[f"{name}.norm.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (y - mean) / (variance + 1e-5).sqrt() * scale + shift


def _bottleneck(state: State, name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
    y = _conv_norm(state, f"{name}.conv1", x).relu()
    y = _conv_norm(state, f"{name}.conv2", y, stride).relu()
    y = _conv_norm(state, f"{name}.conv3", y)
    if f"{name}.shortcut.weight" in state:
        x = _conv_norm(state, f"{name}.shortcut", x, stride)
    return (x + y).relu()


def feature_pyramid(state: State, pixels: torch.Tensor) -> list[np.ndarray]:
    """p2...p6 [C, h, w] of normalised, padded pixels [3, H, W]."""
    x = _conv_norm(state, "backbone.bottom_up.stem.conv1", pixels[None], 2).relu()
    x, maps = F.max_pool2d(x, 3, 2, 1), []
    for stage in (2, 3, 4, 5):
        block = 0
        while f"backbone.bottom_up.res{stage}.{block}.conv1.weight" in state:
            x = _bottleneck(state, f"backbone.bottom_up.res{stage}.{block}", x, 2 if block == 0 and stage > 2 else 1)
            block += 1
        maps.append(x)
    merged, pyramid = torch.zeros(()), []
    for level in (5, 4, 3, 2):
        lateral = _conv_norm(state, f"backbone.fpn_lateral{level}", maps[level - 2])
        merged = lateral if level == 5 else lateral + merged.repeat_interleave(2, 2).repeat_interleave(2, 3)
        pyramid.insert(0, _conv_norm(state, f"backbone.fpn_output{level}", merged)[0])
    pyramid.append(pyramid[-1][:, ::2, ::2])
    return [level.numpy() for level in pyramid]


def rpn_level(state: State, level: int, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Anchors [n, 4], logits [n] and deltas [n, 4] of one map [C, h, w]."""
    head = "proposal_generator.rpn_head."
    weights = [(state[f"{head}{name}.weight"], state[f"{head}{name}.bias"]) for name in ("conv", "objectness_logits")]
    x = F.conv2d(torch.from_numpy(image.copy())[None], *weights[0], padding=1).relu()
    logits = F.conv2d(x, *weights[1])[0].numpy()
    deltas = F.conv2d(x, state[f"{head}anchor_deltas.weight"], state[f"{head}anchor_deltas.bias"])[0].numpy()
    count, height, width = logits.shape
    by_anchor = deltas.reshape(count, 4, height, width)
    return (
        anchors(height, width, level),
        logits.transpose(1, 2, 0).ravel(),
        by_anchor.transpose(2, 3, 0, 1).reshape(-1, 4),
    )


def box_head(
    state: State, stage: int, pyramid: Sequence[np.ndarray], boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, 2] (object, background) and deltas [N, 4] of one stage of the cascade."""
    x = pool(pyramid, boxes, 7).flatten(1)
    for name in ("fc1", "fc2"):
        layer = f"roi_heads.box_head.{stage}.{name}"
        x = F.linear(x, state[f"{layer}.weight"], state[f"{layer}.bias"]).relu()
    name = f"roi_heads.box_predictor.{stage}."
    logits = F.linear(x, state[f"{name}cls_score.weight"], state[f"{name}cls_score.bias"])
    return logits.numpy(), F.linear(x, state[f"{name}bbox_pred.weight"], state[f"{name}bbox_pred.bias"]).numpy()


def mask_head(state: State, pyramid: Sequence[np.ndarray], boxes: np.ndarray) -> np.ndarray:
    """Mask logits [N, 28, 28]."""
    x, head = pool(pyramid, boxes, 14), "roi_heads.mask_head."
    for number in (1, 2, 3, 4):
        layer = f"{head}mask_fcn{number}"
        x = F.conv2d(x, state[f"{layer}.weight"], state[f"{layer}.bias"], padding=1).relu()
    x = F.conv_transpose2d(x, state[f"{head}deconv.weight"], state[f"{head}deconv.bias"], stride=2).relu()
    return F.conv2d(x, state[f"{head}predictor.weight"], state[f"{head}predictor.bias"])[:, 0].numpy()


def normalise(image: np.ndarray) -> torch.Tensor:
    """A uint8 image [h, w, 3] as [3, H, W], zero-padded at the right and below to multiples of 32."""
    pixels = (image - np.array(PIXEL_MEAN)) / np.array(PIXEL_STD)
    height, width = image.shape[:2]
    return torch.from_numpy(np.pad(pixels, [(0, -height % 32), (0, -width % 32), (0, 0)]).transpose(2, 0, 1).copy())


@torch.inference_mode()
def detect(state: State, image: np.ndarray, most: int, threshold: float) -> Trace:
    """Everything on one resized uint8 image [h, w, 3]; `state` is a detectron2 state dict of any float type."""
    state = {name: value.double() for name, value in state.items()}
    size = image.shape[:2]
    pyramid = feature_pyramid(state, normalise(image))
    proposals, logits = propose([rpn_level(state, k, level) for k, level in enumerate(pyramid)], size, most)
    boxes, stages = proposals, []
    for stage, weights in enumerate(CASCADE_WEIGHTS):
        before = clip(boxes, size)
        stages.append((before, *box_head(state, stage, pyramid, before)))
        boxes = decode(stages[-1][2], before, weights)
    found, scores, candidates = select(boxes, [stage[1] for stage in stages], size, threshold)
    masks = 1 / (1 + np.exp(-mask_head(state, pyramid, found)))
    return Trace(pyramid, proposals, logits, stages, candidates, found, scores, masks)


def scale(boxes: np.ndarray, network: Sequence[int], frame: Sequence[int]) -> np.ndarray:
    """Boxes from the network's size to the image's, clipped."""
    return clip(boxes * ([frame[1] / network[1], frame[0] / network[0]] * 2), frame)


def paste(box: Sequence[float], probabilities: np.ndarray, frame: Sequence[int]) -> np.ndarray:
    """Mask probability at every pixel's centre [H, W], bilinear between the centres of the cells and 0 outside the box."""
    cells, axes = len(probabilities), []
    for pixels, start, end in ((frame[0], box[1], box[3]), (frame[1], box[0], box[2])):
        place = (np.arange(pixels) + 0.5 - start) / (end - start) * cells - 0.5
        axes.append((1 - np.abs(place[:, None] - np.arange(cells))).clip(0))
    values, rows = np.zeros(frame), axes[0].any(1)
    values[rows] = axes[0][rows] @ probabilities @ axes[1].T
    return values
