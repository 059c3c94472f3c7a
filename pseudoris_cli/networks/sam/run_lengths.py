"""Binary masks as runs: the device finds the positions where pixels change, the host works on these few positions.

A mask is represented by its `edges`, int64 positions in column-major pixels: [start, end) of its first run, its second, and so on.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def find_edges(masks: Tensor) -> list[np.ndarray]:
    """The edges of M masks, bool [M, width·height] column-major on any device; one transfer for all of them."""
    if not len(masks):
        return []
    changed = masks[:, 1:] != masks[:, :-1]
    ends = masks[:, [0, -1]].cpu().numpy()
    inner = _changes_by_row(changed) if masks.device.type == "cpu" else _changes_at_once(changed)
    zero, end = np.zeros(1, np.int64), np.full(1, masks.shape[1])
    return [
        np.concatenate([zero[:first], row, end[:last]])
        for row, (first, last) in zip(inner, ends.astype(int), strict=True)
    ]


def _changes_by_row(changed: Tensor) -> list[np.ndarray]:
    """The positions where each row of bool [M, pixels - 1] is set, plus 1; faster on a CPU."""
    return [np.flatnonzero(row) + 1 for row in changed.numpy()]


def _changes_at_once(changed: Tensor) -> list[np.ndarray]:
    """The same with one search and one transfer for all rows; faster on a GPU."""
    mask, position = changed.nonzero().cpu().numpy().T
    return np.split(position + 1, np.searchsorted(mask, np.arange(1, len(changed))))


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
