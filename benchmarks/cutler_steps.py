"""Whether each step of a Cascade Mask R-CNN is, from its own inputs, within float32's rounding of the same step in float64.

The referee is tests/support/plain_cascade.py, which has no code in common with the package. Both sides, the recording and what is
computed, are judged by it: step by step, so that no error is amplified by what comes after it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import plain_cascade as plain

TOLERANCE = {
    "exactly": 0.0,
    "pixel": 1e-6,
    "map": 1e-3,
    "objectness": 4e-5,
    "proposal": 5e-5,
    "logit": 1.2e-4,
    "delta": 2e-4,
    "decoded": 1.5e-5,
    "selected": 1e-5,
    "score": 5e-7,
    "mask logit": 1.2e-4,
    "scaled": 1e-4,
    "mask": 1e-5,
    "recorded objectness": 1.2e-3,
    "recorded proposal": 2.5e-4,
    "recorded logit": 5e-4,
    "recorded delta": 8e-4,
    "recorded mask logit": 1e-3,
    "box": 1e-2,
    "result": 1e-4,
    "mask pixels": 0.05,
    "apart in_boxes": 1e-3,
    "apart logits": 1.5e-2,
    "apart deltas": 7.5e-2,
    "apart score": 1e-3,
    "apart probability": 2e-2,
}
"""Four times the largest error over seven kernel settings with one and two threads (benchmarks/RESULTS.md), rounded.

Units: the standard deviation of the map (map); the longest side of the box (proposal, decoded, selected); pixels of the image
(scaled); probability (score, and mask: how far from 0.5 a pixel may be that is on the other side). What starts with `recorded`
includes the rounding of the feature maps, which are not recorded whole. `box` and `result` are asked of the results; `apart` is
what the cascade makes of these errors: five times the recording's distance from float64.
"""
EDGE = 1e-5
"""How far from a whole number a box's pyramid level or its number of samples must be for rounding not to decide on it."""


@dataclass
class Check:
    """How many values of a kind were compared, their largest error, and how many exceed its tolerance."""

    values: int = 0
    error: float = 0.0
    failed: int = 0


@dataclass
class Report:
    """What was compared on one image, and what is wrong in words."""

    checks: dict[tuple[str, str], Check] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pairs: int = 0

    def compare(
        self, name: str, kind: str, expected: np.ndarray, actual: np.ndarray, unit: np.ndarray | float = 1.0
    ) -> None:
        """Compare by the tolerance of `kind`, after division by `unit`. What is not a number, or of another shape, fails."""
        expected, actual = np.asarray(expected, np.float64), np.asarray(actual, np.float64)
        check = self.checks.setdefault((name, kind), Check())
        if expected.shape != actual.shape:
            self.faults.append(f"{name}: shape {actual.shape}, not {expected.shape}")
            check.error, check.failed = np.inf, check.failed + 1
            return
        error = np.abs(expected - actual) / unit
        wrong = ~(error <= TOLERANCE[kind])
        check.values += error.size
        check.error = float(np.maximum(check.error, np.nan_to_num(error, nan=np.inf).max(initial=0.0)))
        check.failed += int(wrong.sum())
        if wrong.any():
            off = f"{wrong.sum()} of {error.size} are off, by up to {check.error:.1e}"
            self.faults.append(f"{name}: {off} ({kind}: at most {TOLERANCE[kind]:.1e})")

    def require(self, name: str, holds: bool, what: str) -> None:
        """Something that must be so."""
        check = self.checks.setdefault((name, "exactly"), Check())
        check.values += 1
        if not holds:
            check.failed += 1
            check.error = np.inf
            self.faults.append(f"{name}: {what}")


@dataclass(frozen=True)
class Side:
    """The recorded or the computed values that follow from each other: rows of stages, and the detections in both frames."""

    name: str
    size: tuple[int, int]
    frame: tuple[int, int]
    stages: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    raw_boxes: np.ndarray
    mask_logits: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray


def longest(boxes: np.ndarray) -> np.ndarray:
    """The longest side of each box [N, 1], at least a pixel: the unit of box errors."""
    return np.maximum((boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True), 1.0)


def decided(boxes: np.ndarray, cells: int) -> np.ndarray:
    """Whether the pyramid level and the number of samples of each box are beyond rounding, bool [N]."""
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    levels = 4 + np.log2(np.sqrt(sides.prod(1)) / 224 + 1e-8)
    near = np.abs(levels - np.round(levels)) < EDGE
    strides = np.array([plain.STRIDES[plain.level_of(box) - 2] for box in boxes.astype(np.float64)]).reshape(-1, 1)
    lengths = sides / strides / cells
    exact = lengths == np.round(lengths)
    return ~(near | ((np.abs(lengths - np.round(lengths)) < EDGE) & ~exact).any(1))


def judge_stages(report: Report, side: Side, state: dict[str, torch.Tensor], pyramid: Sequence[np.ndarray]) -> None:
    """Every stage of the cascade, from the inputs that this side had."""
    name, stages, kind = side.name, side.stages, "recorded " if side.name == "recorded" else ""
    for stage, (before, logits, deltas) in enumerate(stages):
        sure = decided(before, 7)
        _note_undecided(report, f"{name} stage{stage}", sure)
        exact_logits, exact_deltas = plain.box_head(state, stage, pyramid, before[sure].astype(np.float64))
        report.compare(f"{name} stage{stage} logits", kind + "logit", exact_logits, logits[sure])
        report.compare(f"{name} stage{stage} deltas", kind + "delta", exact_deltas, deltas[sure])
        if stage + 1 < len(stages):
            after = plain.clip(decode64(stages[stage], stage), side.size)
            unit = longest(after)
            report.compare(f"{name} stage{stage + 1} in_boxes", "decoded", after, stages[stage + 1][0], unit)


def judge_masks(report: Report, side: Side, state: dict[str, torch.Tensor], pyramid: Sequence[np.ndarray]) -> None:
    """From the detections in network pixels to the masks in the image, from the inputs that this side had."""
    name, kind = side.name, "recorded " if side.name == "recorded" else ""
    counts = {len(part) for part in (side.raw_boxes, side.mask_logits, side.boxes)}
    report.require(f"{name} masks", counts == {len(side.masks)}, f"{len(side.masks)} beside {sorted(counts)} rows")
    report.require(f"{name} masks", side.masks.shape[1:] == side.frame, f"shape {side.masks.shape}")
    if report.faults:
        return
    sure = decided(side.raw_boxes, 14)
    _note_undecided(report, f"{name} masks", sure)
    exact = plain.mask_head(state, pyramid, side.raw_boxes[sure].astype(np.float64))
    report.compare(f"{name} mask_logits", kind + "mask logit", exact, side.mask_logits[sure])
    scaled = plain.scale(side.raw_boxes.astype(np.float64), side.size, side.frame)
    report.compare(f"{name} boxes in the image", "scaled", scaled, side.boxes)
    for box, logits, mask in zip(side.boxes.astype(np.float64), side.mask_logits, side.masks, strict=True):
        value = plain.paste(box, sigmoid(logits), side.frame)
        wrong = (value >= 0.5) != mask
        report.compare(f"{name} masks", "mask", np.full(mask.shape, 0.5), np.where(wrong, value, 0.5))


def decode64(stage: tuple[np.ndarray, np.ndarray, np.ndarray], number: int) -> np.ndarray:
    """The refined boxes of a stage in float64."""
    return plain.decode(stage[2].astype(np.float64), stage[0].astype(np.float64), plain.CASCADE_WEIGHTS[number])


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def judge_proposals(
    report: Report, name: str, kind: str, found: tuple[np.ndarray, np.ndarray], exact: tuple[np.ndarray, np.ndarray]
) -> None:
    """Proposals (boxes, logits) against those of float64: in descending order, each beside the one that it is nearest to."""
    boxes, logits = found
    report.require(f"{name} rpn_logits", bool((np.diff(logits) <= 0).all()), "they do not descend")
    nearest = match(boxes, exact[0])
    report.require(f"{name} rpn_boxes", len(set(nearest)) == len(boxes), "two are nearest to the same one in float64")
    report.compare(f"{name} rpn_boxes", f"{kind}proposal", exact[0][nearest], boxes, longest(exact[0][nearest]))
    report.compare(f"{name} rpn_logits", f"{kind}objectness", exact[1][nearest], logits)


def match(boxes: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each box the row of the nearest one among others, by the largest difference of a coordinate."""
    if not len(among):
        return np.zeros(len(boxes), int)
    left, right = (torch.from_numpy(side.astype(np.float64)) for side in (boxes, among))
    return torch.cdist(left, right, p=torch.inf).argmin(1).numpy()


def _note_undecided(report: Report, name: str, sure: np.ndarray) -> None:
    """At most one row in fifty may hang on the rounding of its own size."""
    if not sure.all():
        report.notes.append(f"{name}: {(~sure).sum()} of {len(sure)} rows hang on rounding and are not compared")
        report.require(name, (~sure).mean() <= 0.02, "too many rows hang on rounding")
