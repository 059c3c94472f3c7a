"""The training targets of the demo's Cascade R-CNN, by hand."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from pseudoris_cli.networks.cascade_rcnn.boxes import apply_deltas


@pytest.fixture
def targets(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "training"))
    import detection_targets

    return detection_targets


def scene() -> np.ndarray:
    owner = np.zeros((40, 50), np.uint8)
    owner[10:20, 5:25] = 1
    owner[30:40, 40:50] = 2
    return owner


def test_boxes_span_the_masks(targets: ModuleType) -> None:
    truth = targets.truth_of(scene())
    assert truth.boxes.tolist() == [[5, 10, 25, 20], [40, 30, 50, 40]]
    assert truth.masks.sum((1, 2)).tolist() == [200, 100]


def test_offsets_are_what_the_network_decodes(targets: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 20, 2, generator=generator) * 50
    boxes, wanted = torch.cat([corners, corners + 5 + torch.rand(2, 20, 2, generator=generator) * 40], dim=2)
    weights = (20.0, 20.0, 10.0, 10.0)
    assert torch.allclose(
        apply_deltas(targets.encode_offsets(boxes, wanted, weights), boxes, weights), wanted, atol=1e-3
    )


def test_anchors_are_objects_background_or_ignored(targets: ModuleType) -> None:
    anchors = torch.tensor([[5, 10, 25, 20], [5, 10, 25, 30], [0, 0, 4, 4], [36, 26, 50, 40]]).float()
    labels = targets.match_anchors(anchors, targets.truth_of(scene()))
    assert labels.tolist() == [0, targets.IGNORED, targets.BACKGROUND, 1]  # the last is the best of object 1


def test_boxes_are_matched_at_the_stages_threshold_and_sampled(targets: ModuleType) -> None:
    boxes = torch.tensor([[5, 10, 25, 18], [5, 10, 25, 16], [40, 30, 50, 40]] + [[0, 0, 9, 9]] * 20).float()
    labels = targets.match_boxes(boxes, targets.truth_of(scene()), 0.7)
    assert labels[:4].tolist() == [0, targets.BACKGROUND, 1, targets.BACKGROUND]
    rows = targets.sample(labels, 8, 0.25, torch.Generator().manual_seed(0))
    assert len(rows) == len(set(rows.tolist())) == 8
    assert sorted(rows[labels[rows] >= 0].tolist()) == [0, 2]


def test_mask_targets_are_the_mask_inside_the_box(targets: ModuleType) -> None:
    boxes = torch.tensor([[5.0, 10.0, 25.0, 20.0], [35.0, 30.0, 55.0, 50.0]])
    full, partly = targets.mask_targets(targets.truth_of(scene()), torch.tensor([0, 1]), boxes, 4)
    assert full.min() > 0.7
    assert (partly > 0.5).tolist() == [[False, True, True, False]] * 2 + [[False] * 4] * 2
