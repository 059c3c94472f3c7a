"""Removal of small regions of a mask, on its runs: holes are filled, then islands removed.

Reproduces segment_anything's `remove_small_regions` (Kirillov et al., 2023, appendix B), which labels pixels by OpenCV's connected
components with 8-connectivity, for holes too. `edges` are as in `run_lengths`.
"""

from __future__ import annotations

import numpy as np

from pseudoris_cli.networks.sam import run_lengths


def remove_small_regions(edges: np.ndarray, height: int, pixels: int, min_area: int) -> tuple[np.ndarray, bool]:
    """The edges of a mask, in an image of this height and number of pixels, without holes and islands below `min_area` pixels.

    Where every island is small the largest stays, the leftmost of equals. The second result is whether there was a small hole or
    island, even one that stays, as in the official function.
    """
    frame = np.array([[0, pixels]], np.int64)
    runs, regions, areas = _regions(_flip(edges, frame), height)
    holes = areas < min_area
    edges = _flip(edges, runs[holes[regions]])
    runs, regions, areas = _regions(edges, height)
    islands = areas < min_area
    found = bool(holes.any() or islands.any())
    if len(areas) and islands.all():
        islands[areas.argmax()] = False
    return _flip(edges, runs[islands[regions]]), found


def _flip(edges: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """The mask with the pixels of runs [R, 2] inverted: edges that both have cancel."""
    positions, times = np.unique(np.concatenate([edges, runs.ravel()]), return_counts=True)
    return positions[times % 2 == 1]


def _regions(edges: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The runs [R, 2] of a mask within columns, the region [R] of each, and the area of each region, from left to right."""
    starts, ends, column = run_lengths.by_column(edges, height)
    # the neighbours of a run in the next column are consecutive: from the first that ends at its start or later to the last that
    # begins at its end or before
    first = np.maximum(np.searchsorted(ends, starts + height), np.searchsorted(column, column + 1))
    last = np.minimum(np.searchsorted(starts, ends + height, "right"), np.searchsorted(column, column + 2))
    parent = list(range(len(starts)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = run = parent[parent[run]]
        return run

    for run, (begin, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        for other in range(begin, end):
            one, two = sorted((root(run), root(other)))
            parent[two] = one
    roots, regions = np.unique([root(run) for run in range(len(starts))], return_inverse=True)
    areas = np.bincount(regions, weights=ends - starts, minlength=len(roots)).astype(np.int64)
    return np.column_stack([starts, ends]), regions, areas
