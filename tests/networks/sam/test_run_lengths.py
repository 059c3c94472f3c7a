"""Runs, boxes and uncropping against segment_anything's dense versions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.utils.amg import batched_mask_to_box, mask_to_rle_pytorch, uncrop_masks

from pseudoris_cli.networks.sam import run_lengths


def edges_of(masks: torch.Tensor) -> list[np.ndarray]:
    """Edges of bool [M, H, W]."""
    return run_lengths.find_edges(masks.transpose(1, 2).flatten(1).contiguous())


@st.composite
def some_masks(draw: st.DrawFn) -> torch.Tensor:
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    seed, density = draw(st.integers(0, 2**31)), draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)) < density


@settings(deadline=None)
@given(some_masks())
def test_runs_area_and_box_are_those_of_the_pixels(masks: torch.Tensor) -> None:
    _, height, width = masks.shape
    for mask, edges, rle, box in zip(
        masks, edges_of(masks), mask_to_rle_pytorch(masks), batched_mask_to_box(masks), strict=True
    ):
        counts = rle["counts"]
        # the official code writes an empty last run never, and an empty first run where the first pixel is set
        assert run_lengths.counts(edges, height * width) == counts
        assert run_lengths.area(edges) == int(mask.sum())
        assert run_lengths.box_xyxy(edges, height) == tuple(box.tolist())


@settings(deadline=None)
@given(some_masks(), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_an_uncropped_mask_is_the_padded_mask(
    masks: torch.Tensor, left: int, top: int, right: int, bottom: int
) -> None:
    _, height, width = masks.shape
    crop = (left, top, left + width, top + height)
    full_height, full_width = top + height + bottom, left + width + right
    uncropped = uncrop_masks(masks, list(crop), full_height, full_width)
    for edges, expected in zip(edges_of(masks), edges_of(uncropped), strict=True):
        np.testing.assert_array_equal(run_lengths.uncrop(edges, crop, full_height), expected)


@settings(deadline=None)
@given(some_masks())
def test_what_a_gpu_finds_is_what_a_cpu_finds(masks: torch.Tensor) -> None:
    flat = masks.flatten(1)
    changes = run_lengths.changes_of(flat).numpy()
    ends = flat[:, [0, -1]].long().numpy()
    found = run_lengths.edges_of(changes, ends, flat.shape[1])
    for one, other in zip(run_lengths.find_edges(flat), found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_masks() -> None:
    none = torch.zeros(0, 12, dtype=torch.bool)
    assert run_lengths.find_edges(none) == []
    assert run_lengths.edges_of(run_lengths.changes_of(none).numpy(), np.empty((0, 2), np.int64), 12) == []
    assert run_lengths.count_true(torch.zeros(0, 12, dtype=torch.bool)).tolist() == []


def test_pixels_are_counted() -> None:
    assert run_lengths.count_true(torch.tensor([[True, False, True], [False, False, False]])).tolist() == [2, 0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_a_line_of_pixels(shape: tuple[int, int]) -> None:
    (edges,) = edges_of(torch.ones(1, *shape, dtype=torch.bool))
    assert edges.tolist() == [0, shape[0] * shape[1]]
    assert run_lengths.counts(edges, shape[0] * shape[1]) == [0, shape[0] * shape[1]]
