"""Binary masks as runs: the device finds the positions where pixels change, the host works on these few positions.

A mask is represented by its `edges`, int64 positions in column-major pixels: [start, end) of its first run, its second, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def find_edges(masks: Tensor) -> list[np.ndarray]:
    """The edges of M masks, bool [M, width·height] column-major on the CPU."""
    if not len(masks):
        return []
    changed = (masks[:, 1:] != masks[:, :-1]).numpy()
    rows = [np.flatnonzero(row) + 1 for row in changed]  # faster on a CPU than all at once
    return _joined(rows, masks[:, [0, -1]].numpy(), masks.shape[1])


def changes_of(masks: Tensor) -> Tensor:
    """Where M masks, bool [M, pixels], change: int64 mask · (pixels - 1) + the pixel before, on the masks' device.

    The host waits until their number is known.
    """
    return (masks[:, 1:] != masks[:, :-1]).flatten().nonzero()[:, 0]


def edges_of(changes: np.ndarray, ends: np.ndarray, pixels: int) -> list[np.ndarray]:
    """The edges of M masks from `changes_of` them and from their first and last pixel, [M, 2] of 0 and 1."""
    first = np.arange(len(ends)) * (pixels - 1)
    rows = np.split(changes, np.searchsorted(changes, first[1:])) if len(ends) else []
    return _joined([row - start + 1 for row, start in zip(rows, first, strict=True)], ends, pixels)


def _joined(inner: Sequence[np.ndarray], ends: np.ndarray, pixels: int) -> list[np.ndarray]:
    """Edges from inner changes and the first and last pixel of each mask."""
    zero, end = np.zeros(1, np.int64), np.full(1, pixels)
    return [
        np.concatenate([zero[:first], row, end[:last]])
        for row, (first, last) in zip(inner, ends.astype(int), strict=True)
    ]


def count_true(masks: Tensor) -> Tensor:
    """Pixels set in each row of bool [M, pixels], an integer [M] (numpy counts bytes faster than torch on a CPU)."""
    if masks.device.type == "cpu":
        return torch.tensor([int(np.count_nonzero(row)) for row in masks.numpy()])
    return masks.sum(1, dtype=torch.int32)


def area(edges: np.ndarray) -> int:
    """The number of pixels of a mask."""
    return int(edges[1::2].sum() - edges[::2].sum())


def box_xyxy(edges: np.ndarray, height: int) -> tuple[int, int, int, int]:
    """The tight box xyxy with inclusive maximum, in an image of this height; all zero for an empty mask."""
    if not len(edges):
        return 0, 0, 0, 0
    starts, lasts = edges[::2], edges[1::2] - 1
    first_column, last_column = starts // height, lasts // height
    if (first_column != last_column).any():  # a run that continues in the next column touches bottom and top
        top, bottom = 0, height - 1
    else:
        top, bottom = int((starts % height).min()), int((lasts % height).max())
    return int(first_column[0]), top, int(last_column[-1]), bottom


def by_column(edges: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The runs of a mask, split where columns of this height end: starts, ends and columns, each int64 [R]."""
    starts, ends = edges[::2], edges[1::2]
    first = starts // height
    pieces = (ends - 1) // height - first + 1  # one in every column of the run
    run = np.repeat(np.arange(len(starts)), pieces)
    column = first[run] + np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    base = column * height
    return np.maximum(starts[run], base), np.minimum(ends[run], base + height), column


def uncrop(edges: np.ndarray, crop_xyxy: tuple[int, int, int, int], height: int) -> np.ndarray:
    """The edges, in an image of this height, of a mask of a crop (x1 and y1 exclusive); see segment_anything's uncrop_masks."""
    x0, y0, _, y1 = crop_xyxy
    crop_height = y1 - y0
    if crop_height == height:
        return edges + x0 * height
    starts, ends, column = by_column(edges, crop_height)
    shift = (x0 + column) * height + y0 - column * crop_height
    return np.column_stack([starts + shift, ends + shift]).ravel()


def counts(edges: np.ndarray, pixels: int) -> list[int]:
    """COCO's uncompressed run lengths: background first, no empty run at the end."""
    lengths = np.diff(np.concatenate([[0], edges, [pixels]])).tolist()
    return lengths[:-1] if len(lengths) > 1 and lengths[-1] == 0 else lengths
