"""Small regions on runs against segment_anything's `remove_small_regions` on pixels, and masks by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.utils.amg import remove_small_regions as official

from pseudoris_cli.networks.sam import run_lengths
from pseudoris_cli.networks.sam.small_regions import remove_small_regions


def drawn(*rows: str) -> np.ndarray:
    """A mask from rows of text: # is set."""
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def edges_of(mask: np.ndarray) -> np.ndarray:
    return run_lengths.find_edges(torch.from_numpy(mask).t().reshape(1, -1).contiguous())[0]


def cleaned(mask: np.ndarray, min_area: int) -> np.ndarray:
    """The mask [H, W] after the removal on its runs, which must be those of the result."""
    height, width = mask.shape
    edges, _ = remove_small_regions(edges_of(mask), height, mask.size, min_area)
    pixels = np.zeros(mask.size, bool)
    for start, end in edges.reshape(-1, 2):
        pixels[start:end] = True
    result = pixels.reshape(width, height).T
    np.testing.assert_array_equal(edges, edges_of(result))
    return result


OBJECT = drawn(
    "#.........",
    "...####...",
    "..##.###..",
    "..#..##...",
    "..#####.##",
    "........##",
)
WITHOUT_SPECK = drawn(
    "..........",
    "...####...",
    "..##.###..",
    "..#..##...",
    "..#####.##",
    "........##",
)
FILLED = drawn(
    "..........",
    "...####...",
    "..######..",
    "..#####...",
    "..#####.##",
    "........##",
)
ALONE = drawn(
    "..........",
    "...####...",
    "..######..",
    "..#####...",
    "..#####...",
    "..........",
)


@pytest.mark.parametrize(
    ("min_area", "expected"),
    [(0, OBJECT), (1, OBJECT), (2, WITHOUT_SPECK), (3, WITHOUT_SPECK), (4, FILLED), (5, ALONE), (30, ALONE)],
)
def test_holes_are_filled_and_islands_removed_below_the_area(min_area: int, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(cleaned(OBJECT, min_area), expected)


def test_regions_touch_at_corners_and_not_across_the_frame() -> None:
    diagonal = drawn("#...", ".#..", "..#.")
    np.testing.assert_array_equal(cleaned(diagonal, 3), diagonal)
    ends = drawn("....", "...#", "##.#", "#...")  # the last pixel of one column, the first of the next
    np.testing.assert_array_equal(cleaned(ends, 3), drawn("....", "....", "##..", "#..."))


def test_where_all_islands_are_small_the_largest_stays() -> None:
    np.testing.assert_array_equal(cleaned(drawn("#..#", "...#"), 3), drawn("...#", "...#"))
    np.testing.assert_array_equal(cleaned(drawn("#..#", "...."), 3), drawn("#...", "...."))


def test_a_filled_hole_joins_what_would_be_too_small_alone() -> None:
    ring = drawn(".....", ".###.", ".#.#.", ".###.", ".....", "....#")
    np.testing.assert_array_equal(cleaned(ring, 9)[1:4, 1:4], np.ones((3, 3), bool))
    assert cleaned(ring, 9).sum() == 9


@pytest.mark.parametrize("value", [False, True])
def test_an_empty_and_a_full_mask_stay(value: bool) -> None:
    mask = np.full((4, 5), value)
    np.testing.assert_array_equal(cleaned(mask, 10), mask)


@settings(deadline=None, max_examples=300)
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31), st.sampled_from([0, 0.2, 0.4, 0.6, 0.8, 1]), st.data()
)
def test_the_official_removal_gives_the_same(
    opencv: None, height: int, width: int, seed: int, density: float, data: st.DataObject
) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < density
    min_area = data.draw(st.integers(1, 12))
    filled, had_holes = official(mask, min_area, "holes")
    expected, had_islands = official(filled, min_area, "islands")
    assert remove_small_regions(edges_of(mask), height, mask.size, min_area)[1] == (had_holes or had_islands)
    found = cleaned(mask, min_area)
    if (
        found.sum() == expected.sum() < min_area
    ):  # all islands small: which of equals stays depends on the order of search
        return
    np.testing.assert_array_equal(found, expected)
