"""Pairs of recorded and computed detections: boxes, scores and masks, and detections that only one side has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from cutler_steps import TOLERANCE, Report, longest, plain, sigmoid
from torchvision.ops import box_iou

NMS_IOU, IOU_MARGIN = 0.5, 1e-4
SCORE = 1e-4
MOST_BORDERLINE = 0.05
MOST_PIXELS, FEWEST_PIXELS, LEAST_IOU = 0.05, 2, 0.95
PROBABILITY = 5e-3
"""Allowance of mask probabilities where the mask logits of a side cannot be seen."""


@dataclass(frozen=True, slots=True)
class Side:
    """The detections of one side, best first: boxes [N, 4], scores [N], masks bool [N, H, W], mask logits [N, 28, 28] if known."""

    name: str
    boxes: np.ndarray
    scores: np.ndarray
    masks: np.ndarray
    mask_logits: np.ndarray | None

    def told(self, row: int) -> str:
        corners = ", ".join(f"{side:.1f}" for side in self.boxes[row])
        return f"only {self.name}: score {self.scores[row]:.4f}, box {corners}"


def compare_detections(
    report: Report, recorded: Side, computed: Side, exact: tuple[np.ndarray, np.ndarray], threshold: float
) -> None:
    """Pair the detections and judge each pair, and what has no pair. `exact` are boxes and scores in float64."""
    pairs = _pairs(recorded.boxes, computed.boxes)
    report.pairs = len(pairs)
    report.require("both detections", bool(pairs), "no pair")
    descend = bool((np.diff(computed.scores) <= 0).all())
    report.require("both detections", descend, "the computed scores do not descend")
    _judge_alone(report, recorded, computed, pairs, threshold)
    if pairs:
        _judge_boxes(report, recorded, computed, pairs, exact)
        for a, b in pairs:
            _judge_mask(report, recorded, computed, a, b)


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return box_iou(torch.from_numpy(a).double().view(-1, 4), torch.from_numpy(b).double().view(-1, 4)).numpy()


def _pairs(theirs: np.ndarray, ours: np.ndarray) -> list[tuple[int, int]]:
    """Rows of either side that show the same object, best first: each recorded one takes what overlaps it most (above 0.5)."""
    overlaps, pairs = _overlaps(theirs, ours), []
    for row in range(len(theirs) if len(ours) else 0):
        best = int(overlaps[row].argmax())
        if overlaps[row, best] > NMS_IOU:
            pairs.append((row, best))
            overlaps[:, best] = -1.0
    return pairs


def _judge_boxes(
    report: Report, recorded: Side, computed: Side, pairs: list[tuple[int, int]], exact: tuple[np.ndarray, np.ndarray]
) -> None:
    """Boxes to 1e-2 pixel and scores to 1e-4; where a pair is further apart, both sides against float64."""
    a, b = (np.array(rows) for rows in zip(*pairs, strict=True))
    boxes, scores = (
        np.abs(recorded.boxes[a] - computed.boxes[b]).max(1),
        np.abs(recorded.scores[a] - computed.scores[b]),
    )
    near = (boxes <= TOLERANCE["box"]) & (scores <= TOLERANCE["result"])
    report.compare("both boxes", "box", recorded.boxes[a][near], computed.boxes[b][near])
    report.compare("both scores", "result", recorded.scores[a][near], computed.scores[b][near])
    if near.all():
        return
    report.notes.append(
        f"{(~near).sum()} of {len(pairs)} pairs are up to {boxes.max():.1e} pixels and {scores.max():.1e} in score apart: "
        "both sides are compared with float64"
    )
    row_of = dict(_pairs(recorded.boxes, exact[0]))
    lost = [row for row in a[~near].tolist() if row not in row_of]
    report.require("both boxes", not lost, f"rows {lost} have no pair in float64")
    for side, rows in ((recorded, a[~near]), (computed, b[~near])):
        known = [(row, row_of[one]) for row, one in zip(rows.tolist(), a[~near].tolist(), strict=True) if one in row_of]
        mine, theirs = ([pair[k] for pair in known] for k in (0, 1))
        unit = longest(exact[0][theirs])
        report.compare(f"{side.name} boxes", "apart in_boxes", exact[0][theirs], side.boxes[mine], unit)
        report.compare(f"{side.name} scores", "apart score", exact[1][theirs], side.scores[mine])


def _judge_mask(report: Report, recorded: Side, computed: Side, a: int, b: int) -> None:
    """One mask by its own pixels."""
    assert recorded.mask_logits is not None
    mask, ours = recorded.masks[a], computed.masks[b]
    different = mask != ours
    area, union, count = int(mask.sum()), int((mask | ours).sum()), int(different.sum())
    iou = int((mask & ours).sum()) / union if union else 1.0
    report.compare("both masks", "mask pixels", np.zeros(1), np.array([count / max(area, 1)]))
    report.checks["both masks", "mask pixels"].values += mask.size - 1
    report.require("both masks", iou >= LEAST_IOU, f"row {a} has an IoU of {iou:.3f}")
    few = count <= max(MOST_PIXELS * area, FEWEST_PIXELS)
    report.require("both masks", few, f"{count} pixels of row {a} differ, its area is {area}")
    probabilities, apart = sigmoid(recorded.mask_logits[a]), PROBABILITY
    if computed.mask_logits is not None:
        other = sigmoid(computed.mask_logits[b])
        apart = float(np.abs(probabilities - other).max())
        report.compare("both mask probabilities", "apart probability", probabilities, other)
    if count:
        moved = float(np.abs(recorded.boxes[a] - computed.boxes[b]).max())
        allowed = undecided_pixels(recorded.boxes[a], probabilities, mask.shape, moved, apart)
        outside = int((different & ~allowed).sum())
        report.require("both masks", not outside, f"{outside} pixels of row {a} differ though box and mask decide them")


def undecided_pixels(
    box: np.ndarray, probabilities: np.ndarray, frame: Sequence[int], moved: float, apart: float
) -> np.ndarray:
    """The pixels [H, W] that a box error of `moved` pixels and an error of `apart` of the probabilities may turn."""
    offsets = [np.zeros(4)] + [sign * moved * np.eye(4)[side] for side in range(4) for sign in (-1, 1)]
    offsets += [
        sign * moved * np.array(axes) for sign in (-1, 1) for axes in ((1, 0, 1, 0), (0, 1, 0, 1), (1, 1, 1, 1))
    ]
    values = np.stack([plain.paste(box + offset, probabilities, frame) for offset in offsets])
    edge = apart + TOLERANCE["mask"]
    return (values.min(0) - edge <= 0.5) & (values.max(0) + edge >= 0.5)


def _judge_alone(
    report: Report, recorded: Side, computed: Side, pairs: list[tuple[int, int]], threshold: float
) -> None:
    """Detections without a pair."""
    a, b = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
    alone = [(recorded, computed, row) for row in range(len(recorded.scores)) if row not in a]
    alone += [(computed, recorded, row) for row in range(len(computed.scores)) if row not in b]
    excused = _borderline(alone, threshold)
    for i, (side, _, row) in enumerate(alone):
        if i in excused:
            report.notes.append(f"borderline, {side.told(row)}")
        else:
            report.require("both detections", False, side.told(row))
    most = max(1, MOST_BORDERLINE * len(recorded.scores))
    report.require("both detections", len(excused) <= most, f"{len(excused)} are borderline")


def _borderline(alone: list[tuple[Side, Side, int]], threshold: float) -> set[int]:
    """Which unpaired detections (side, other side, row) rounding may add or remove.

    By the threshold; by a suppression of IoU near 0.5 on the other side; or as the consequence of another such detection,
    which suppresses this one where it is kept.
    """
    excused: set[int] = set()
    for _ in alone:  # consequences of consequences
        for i, (side, other, row) in enumerate(alone):
            overlaps = _overlaps(side.boxes[row : row + 1], other.boxes)[0]
            better = other.scores > side.scores[row] - SCORE
            turned = (np.abs(overlaps - NMS_IOU) < IOU_MARGIN) & better
            kept = [j for j in excused if alone[j][0] is other]
            followed = any(overlaps[alone[j][2]] > NMS_IOU - IOU_MARGIN and better[alone[j][2]] for j in kept)
            if abs(side.scores[row] - threshold) < SCORE or turned.any() or followed:
                excused.add(i)
    return excused
