"""The composed resize against Sam.postprocess_masks."""

from __future__ import annotations

import pytest
import torch
from segment_anything.utils.transforms import ResizeLongestSide

from pseudoris_cli.networks.sam.resize import compose, resize_columns_first
from pseudoris_cli.networks.sam.sizes import SIZES, empty


@pytest.mark.parametrize("size", [(427, 640), (640, 427), (128, 128), (130, 131), (50, 33), (3, 100), (700, 9)])
def test_one_step_equals_two(size: tuple[int, int]) -> None:
    sam = empty(SIZES["tiny"])
    logits = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))
    covered = ResizeLongestSide.get_preprocess_shape(*size, 128)
    expected = sam.postprocess_masks(logits[None], covered, size)[0]
    vertical, horizontal = (compose(32, 128, covered[axis], size[axis], torch.device("cpu")) for axis in (0, 1))
    needed = logits[:, : vertical.inputs, : horizontal.inputs]
    found = resize_columns_first(needed, vertical, horizontal).transpose(1, 2)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < 5e-6


def test_what_the_image_does_not_cover_is_not_read() -> None:
    axis = compose(256, 1024, 683, 427, torch.device("cpu"))
    assert axis.inputs == 172  # row 682 lies at 170.1
    assert max(weights.count_nonzero(1).max() for *_, weights in axis.blocks) == 3
