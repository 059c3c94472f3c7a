"""Bands around masks and the most interior point of a mask, in numpy: small exact tools for drawing."""

from __future__ import annotations

import numpy as np

GRID = 96
"""Cells along the longer side of the grid on which distances are taken; exact to a pixel for masks up to that size."""


def dilated(mask: np.ndarray, radius: int) -> np.ndarray:
    """A bool mask [H, W] grown by `radius` pixels in all eight directions (a square structuring element)."""
    return _along(_along(mask, radius, 0, True), radius, 1, True)


def eroded(mask: np.ndarray, radius: int) -> np.ndarray:
    """A bool mask [H, W] shrunk by `radius` pixels; beyond the picture there is no mask, so its border shrinks too."""
    return _along(_along(mask, radius, 0, False), radius, 1, False)


def _along(mask: np.ndarray, radius: int, axis: int, grow: bool) -> np.ndarray:
    """Along one axis, whether any (to grow) or every pixel within `radius` is set; reaches double at each step."""
    found, reach, length = mask, 0, mask.shape[axis]
    merge = np.logical_or if grow else np.logical_and
    while reach < radius:
        step = min(reach + 1, radius - reach, length)
        start, end = (slice(None, step), slice(-step, None))
        front, back = (slice(None, length - step), slice(step, None))
        if axis:
            start, end, front, back = ((slice(None), one) for one in (start, end, front, back))  # type: ignore[assignment]
        wider = found.copy()
        merge(wider[front], found[back], out=wider[front])
        merge(wider[back], found[front], out=wider[back])
        if not grow:
            wider[start] = wider[end] = False
        found, reach = wider, reach + step
        if step == length:
            break
    return found


def bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is set in a bool mask [H, W], right and bottom exclusive; zeros if nothing is."""
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return 0, 0, 0, 0
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[top:bottom].any(0))
    return int(columns[0]), top, int(columns[-1]) + 1, bottom


def most_interior_point(mask: np.ndarray) -> tuple[float, float, float]:
    """(x, y, radius) in pixels of the centre of the largest disc that fits into a bool mask [H, W]; radius 0 if it is empty.

    The Euclidean distance transform is taken on a grid of at most GRID cells a side; a cell belongs to the mask if all its
    pixels do (if no cell does, where any pixel does). Outside of the picture is outside of the mask.
    """
    left, top, right, bottom = bounds(mask)
    if right <= left:
        return 0.0, 0.0, 0.0
    cell = -(-max(right - left, bottom - top) // GRID)
    cells = _pooled(mask[top:bottom, left:right], cell)
    framed = np.zeros((cells.shape[0] + 2, cells.shape[1] + 2), bool)
    framed[1:-1, 1:-1] = cells
    squared = _squared_distances(framed)[1:-1, 1:-1]
    deepest = np.argwhere(squared >= 0.95 * squared.max())  # a long shape has many: the one nearest to its middle
    row, column = deepest[((deepest - _middle(cells)) ** 2).sum(1).argmin()]
    x, y = left + (column + 0.5) * cell - 0.5, top + (row + 0.5) * cell - 0.5
    return min(x, right - 1.0), min(y, bottom - 1.0), float(np.sqrt(squared[row, column])) * cell - cell / 2


def _middle(mask: np.ndarray) -> np.ndarray:
    """The mean row and column of what is set: whole numbers are summed, so that the order of summing changes nothing."""
    by_row, by_column = np.count_nonzero(mask, 1), np.count_nonzero(mask, 0)
    sums = by_row @ np.arange(len(by_row)), by_column @ np.arange(len(by_column))
    return np.array(sums) / by_row.sum()


def _pooled(mask: np.ndarray, cell: int) -> np.ndarray:
    if cell == 1:
        return mask
    height, width = mask.shape
    padded = np.zeros((height + -height % cell, width + -width % cell), bool)
    padded[:height, :width] = mask
    full = _merged(_merged(padded, cell, np.logical_and).T, cell, np.logical_and).T
    if full.any():
        return full
    return _merged(_merged(padded, cell, np.logical_or).T, cell, np.logical_or).T


def _merged(mask: np.ndarray, cell: int, merge: np.ufunc) -> np.ndarray:
    """Each `cell` rows as one."""
    found = mask[::cell].copy()
    for row in range(1, cell):
        merge(found, mask[row::cell], out=found)
    return found


def _squared_distances(mask: np.ndarray) -> np.ndarray:
    """Squared Euclidean distance of each set cell to the nearest unset one, by columns and then by rows; float32 [H, W].

    At most GRID + 2 cells a side, so that sums fit into 16 bits.
    """
    height, width = mask.shape
    rows = np.arange(height, dtype=np.int16)[:, None]
    none = np.int16(height + width)  # further than any cell: in this column nothing is unset
    above = np.maximum.accumulate(np.where(mask, -none, rows), 0)
    below = np.minimum.accumulate(np.where(mask, height + none, rows)[::-1], 0)[::-1]
    gap = np.minimum(np.minimum(rows - above, below - rows), none).astype(np.uint16)
    offset = np.arange(width, dtype=np.int32)
    along = ((offset[:, None] - offset[None, :]) ** 2).astype(np.uint16)
    beside = np.ascontiguousarray((gap**2).T)  # [from column, row]: the least of whole rows of memory is found fastest
    return (along[:, :, None] + beside[None]).min(1).T.astype(np.float32)
