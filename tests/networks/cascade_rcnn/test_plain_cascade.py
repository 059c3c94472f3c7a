"""Ours against tests/support/plain_cascade.py where no recording goes: caps, bounds, ties, edges. Faults put in are noticed."""

from __future__ import annotations

import math

import numpy as np
import plain_cascade as plain
import pytest
import torch
from cascade_faults import UNSEEN, Fault

from pseudoris_cli.networks.cascade_rcnn import boxes as box_arithmetic
from pseudoris_cli.networks.cascade_rcnn import roi_heads, rpn, transforms
from pseudoris_cli.networks.cascade_rcnn.roi_heads import Detections, StageOutput


def random_boxes(count: int, generator: np.random.Generator, largest: float) -> np.ndarray:
    """float32 [count, 4], sides from 4 to 90."""
    corner = generator.uniform(0, largest, (count, 2))
    return np.concatenate([corner, corner + generator.uniform(4, 90, (count, 2))], 1).astype(np.float32)


def agree(ours: torch.Tensor, plainly: np.ndarray, tolerance: float) -> None:
    assert ours.shape == plainly.shape
    assert np.abs(ours.numpy() - plainly).max(initial=0.0) <= tolerance


def decoding() -> None:
    """Deltas up to far beyond the bound of the log scale, on either side of it, for every set of weights."""
    generator = np.random.default_rng(1)
    before = random_boxes(300, generator, 300.0)
    deltas = generator.normal(0, 3, (300, 4)).astype(np.float32)
    bound = math.log(1000 / 16)
    for weights in (*plain.CASCADE_WEIGHTS, (1.0, 1.0, 1.0, 1.0)):
        deltas[:8, 2:] = np.array([bound - 0.01, bound + 0.01, 30, -30, 6, 5, -5, 4])[:, None] * weights[2]
        deltas[4:8, 3] = 0
        expected = plain.decode(deltas.astype(np.float64), before.astype(np.float64), weights)
        found = box_arithmetic.apply_deltas(torch.from_numpy(deltas), torch.from_numpy(before), weights)
        unit = np.maximum(np.abs(expected).max(1, keepdims=True), 1)
        agree(found / torch.from_numpy(unit), expected / unit, 2e-6)


def selection() -> None:
    """More than 100 detections, scores around the threshold and at it, an IoU of 0.5, rows that are not finite."""
    generator = np.random.default_rng(2)
    size = (700, 900)
    before = np.concatenate(
        [random_boxes(900, generator, 800.0), np.array([[0, 0, 40, 20], [0, 0, 20, 20]], np.float32)]
    )
    logits = [generator.normal(0, 2, (902, 2)).astype(np.float32) for _ in range(3)]
    before[400:600] = before[600:800] + 1  # suppressed, or suppressing
    for number, stage in enumerate(logits):
        stage[400:600] = stage[600:800] + generator.normal(0, 0.1, (200, 2))
        stage[:150] = (0, 0.02 * (number + 1))  # just below the threshold
        stage[150] = 0  # at the threshold
        stage[-2:] = ((9, 0), (8, 0))
        stage[200:203] = (8, 0)
    before[200, 0], before[201, 3], before[202, 2] = np.inf, np.nan, -np.inf
    logits[1][203, 0] = np.nan
    before[150] = 860, 660, 900, 700
    outputs = [StageOutput(*(torch.from_numpy(part) for part in (before, stage, before, before))) for stage in logits]
    expected, scores, candidates = plain.select(before.astype(np.float64), logits, size, 0.5)
    assert len(scores) == 100 < candidates
    found, found_scores = roi_heads.select_detections(outputs, size, 0.5)
    agree(found, expected, 1e-3)
    agree(found_scores, scores, 1e-6)
    assert [0, 0, 20, 20] in found.tolist()  # half of another, and not more
    few = [
        StageOutput(*(torch.from_numpy(part) for part in (before[:151], stage[:151], before[:151], before[:151])))
        for stage in logits
    ]
    assert len(roi_heads.select_detections(few, size, 0.5)[0]) == 0
    assert len(plain.select(before[:151], [stage[:151] for stage in logits], size, 0.5)[1]) == 0


def proposals() -> None:
    """Levels of more than 1000 anchors that hardly overlap, so that the limits of a level and of the image cut."""
    generator = np.random.default_rng(3)
    size = (160, 250)
    features = [torch.zeros(1, 1, -(-160 // stride), -(-256 // stride)) for stride in plain.STRIDES]
    counts = [feature.shape[2] * feature.shape[3] * 3 for feature in features]
    distinct = generator.permutation(sum(counts)) / 1024 - 4  # equal logits would have no order
    predictions = []
    for count, logits in zip(counts, np.split(distinct, np.cumsum(counts)[:-1]), strict=True):
        deltas = generator.normal(0, 0.3, (1, count, 4))
        deltas[..., 2:] -= 2.5  # small boxes: few are suppressed
        deltas[:, ::50, 0] = 500.0  # outside the image: empty when clipped
        predictions.append((torch.from_numpy(logits[None]).float(), torch.from_numpy(deltas).float()))
    for most in (1000, 4000):
        [(found, found_logits)] = rpn.RPN(1, most).propose(predictions, features, [size])
        levels = [
            (plain.anchors(*feature.shape[2:], k), scores[0].double().numpy(), deltas[0].double().numpy())
            for k, (feature, (scores, deltas)) in enumerate(zip(features, predictions, strict=True))
        ]
        expected, expected_logits = plain.propose(levels, size, most)
        assert len(expected) == 1000 or most == 4000 > len(expected) > 1500
        agree(found_logits, expected_logits, 1e-6)
        agree(found, expected, 1e-3)


def masks() -> None:
    """Masks of random cells in boxes of any size, and cells of exactly 0.5 and 1."""
    generator = np.random.default_rng(4)
    frame = (70, 90)
    boxes = random_boxes(30, generator, 60.0)
    boxes[0], boxes[1], boxes[2] = (10, 10, 38, 38), (3.5, 4.5, 31.5, 60.5), (20.2, 7.9, 21.1, 9.6)
    boxes = plain.clip(boxes, frame).astype(np.float32)
    cells = generator.uniform(0, 1, (30, 28, 28)).astype(np.float32)
    cells[0], cells[1] = 0.5, 1.0
    cells[3:9, :, ::2], cells[3:9, :, 1::2] = 0.3, 0.9
    found = Detections(torch.from_numpy(boxes), torch.ones(30), torch.from_numpy(cells))
    for box, probabilities, mask in zip(boxes, cells, transforms.paste_masks(found, frame), strict=True):
        value = plain.paste(box.astype(np.float64), probabilities.astype(np.float64), frame)
        different = mask != (value >= 0.5)
        assert np.abs(value[different] - 0.5).max(initial=0.0) < 1e-6
        assert mask.any() == (value >= 0.5).any()
    first = next(iter(transforms.paste_masks(found, frame)))
    assert first[11:37, 11:37].all()  # where 0.5 is not mixed with the 0 outside


def frames() -> None:
    """Boxes beyond the image, and some that are empty in it."""
    generator = np.random.default_rng(5)
    boxes = random_boxes(60, generator, 150.0) - 40
    boxes[:3] = (-9, 3, -2, 8), (5, 5, 5, 9), (4, 120, 8, 130)
    found = Detections(torch.from_numpy(boxes), torch.arange(60.0), torch.zeros(60, 28, 28))
    placed = transforms.to_frame(found, (100, 160), (333, 200))
    expected = plain.scale(boxes.astype(np.float64), (100, 160), (333, 200))
    there = (expected[:, 2] > expected[:, 0]) & (expected[:, 3] > expected[:, 1])
    assert there.sum() < 58
    agree(placed.boxes, expected[there], 1e-4)
    agree(placed.scores, np.arange(60.0)[there], 0)


def input_sizes() -> None:
    """Every rule, by the published one; halves are decided by the last bit and left out."""
    for height in range(20, 400, 7):
        for width in range(20, 400, 9):
            factor = 256 / min(height, width)
            if max(height, width) * factor > 427:
                factor = 427 / max(height, width)
            if min(abs(side * factor % 1 - 0.5) for side in (height, width)) > 1e-9:
                expected = plain.input_size(height, width, 256, 427)
                assert transforms.network_size(height, width, 256, 427) == expected


def levels() -> None:
    """Any shape of box."""
    generator = np.random.default_rng(6)
    sides = np.exp(generator.uniform(0, 7, (500, 2)))
    sides[:5, 0] = 0
    boxes = np.concatenate([np.zeros((500, 2)), sides], 1).astype(np.float32)
    expected = [plain.level_of(box) - 2 for box in boxes.astype(np.float64).tolist()]
    assert roi_heads.pyramid_levels(torch.from_numpy(boxes)).tolist() == expected


CASES = {
    "decoding": decoding,
    "selection": selection,
    "proposals": proposals,
    "masks": masks,
    "frames": frames,
    "input sizes": input_sizes,
    "levels": levels,
}


@pytest.mark.parametrize("case", CASES)
def test_ours_agrees_with_the_plain_implementation(case: str) -> None:
    CASES[case]()


@pytest.mark.parametrize(
    ("case", "fault"),
    [pytest.param(case, fault, id=fault.name) for case, faults in UNSEEN.items() for fault in faults],
)
def test_a_fault_that_no_recording_shows_is_noticed(case: str, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    fault.put_in(monkeypatch)
    with pytest.raises(AssertionError):
        CASES[case]()
