"""Bands around masks and the most interior point of a mask, in numpy: small exact tools for drawing."""

from __future__ import annotations

import numpy as np

GRID = 96
"""Cells along the longer side of the grid on which distances are taken; exact to a pixel for masks up to that size."""


def dilated(mask: np.ndarray, radius: int) -> np.ndarray:
    """A bool mask [H, W] grown by `radius` pixels in all eight directions (a square structuring element)."""
    return _shifted_or(_shifted_or(mask, radius, 0), radius, 1)


def eroded(mask: np.ndarray, radius: int) -> np.ndarray:
    """A bool mask [H, W] shrunk by `radius` pixels; beyond the picture there is no mask, so its border shrinks too."""
    if radius <= 0:
        return mask
    padded = np.pad(~mask, radius, constant_values=True)
    return ~dilated(padded, radius)[radius:-radius, radius:-radius]


def _shifted_or(mask: np.ndarray, radius: int, axis: int) -> np.ndarray:
    """Along one axis, whether any pixel within `radius` is set; reaches double at each step."""
    found, reach = mask, 0
    while reach < radius:
        step = min(reach + 1, radius - reach)
        wider = found.copy()
        ahead, behind = [slice(None)] * mask.ndim, [slice(None)] * mask.ndim
        ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
        if mask.shape[axis] > step:
            wider[tuple(behind)] |= found[tuple(ahead)]
            wider[tuple(ahead)] |= found[tuple(behind)]
        found, reach = wider, reach + step
    return found


def bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is set in a bool mask [H, W], right and bottom exclusive; zeros if nothing is."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


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
    squared = _squared_distances(np.pad(cells, 1))[1:-1, 1:-1]
    deepest = np.argwhere(squared >= 0.95 * squared.max())  # a long shape has many: the one nearest to its middle
    row, column = deepest[((deepest - np.argwhere(cells).mean(0)) ** 2).sum(1).argmin()]
    x, y = left + (column + 0.5) * cell - 0.5, top + (row + 0.5) * cell - 0.5
    return min(x, right - 1.0), min(y, bottom - 1.0), float(np.sqrt(squared[row, column])) * cell - cell / 2


def _pooled(mask: np.ndarray, cell: int) -> np.ndarray:
    if cell == 1:
        return mask
    height, width = mask.shape
    padded = np.pad(mask, ((0, -height % cell), (0, -width % cell)))
    blocks = padded.reshape(padded.shape[0] // cell, cell, padded.shape[1] // cell, cell)
    full = blocks.all((1, 3))
    return np.asarray(full if full.any() else blocks.any((1, 3)))


def _squared_distances(mask: np.ndarray) -> np.ndarray:
    """Squared Euclidean distance of each set cell to the nearest unset one, by columns and then by rows; float32 [H, W]."""
    height, width = mask.shape
    gap = np.where(mask, np.float32(height + width), np.float32(0))
    for row in range(1, height):
        np.minimum(gap[row], gap[row - 1] + 1, out=gap[row])
    for row in range(height - 2, -1, -1):
        np.minimum(gap[row], gap[row + 1] + 1, out=gap[row])
    offset = np.arange(width, dtype=np.float32)
    along = (offset[:, None] - offset[None, :]) ** 2
    return (gap[:, None, :] ** 2 + along[None]).min(2)
