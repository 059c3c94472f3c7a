"""A mask as COCO polygons that pycocotools rasterises to the very same mask.

pycocotools (`rleFrPoly` in maskApi.c) multiplies coordinates by 5, rounds, walks along the edges, and toggles column x where
the walk passes from 5x + 2 to 5x + 3, at the row `ceil((v + 0.5) / 5 - 0.5)`; what lies between two toggles of a column is in
the mask. A ring along the edges of pixels, on whole numbers, passes there on its horizontal edges only: one toggle for each
column and at just the row where the pixels change. So the outline on pixel corners comes back exactly, whatever its form, and
an edge that is walked twice, as the bridge to a hole, toggles twice and leaves nothing.

Everything is worked out on the run-length code: its cost follows the length of the outline, not the size of the image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from pseudoris_cli.records import Rle
from pseudoris_cli.rle import ious, run_lengths

EMPTY = [0, 0, 0, 1, 0, 2]
"""The ring of a mask without pixels, since readers fail on an empty list: three points on a vertical line enclose nothing."""
Rings = list[list[int]]


def to_polygons(rle: Rle) -> Rings:
    """The outline of a mask: flat rings [x1, y1, x2, y2, ...] on whole numbers, pixel (x, y) covering [x, x+1] x [y, y+1].

    One ring for each 4-connected component, clockwise as seen, of 4 points or more, from its topmost left corner. A hole is
    joined to its ring by a vertical bridge that is walked both ways, so even-odd and non-zero filling agree; the area that the
    rings enclose is the number of pixels.
    """
    columns, tops, bottoms = _vertical_runs(rle)
    if not len(columns):
        return [list(EMPTY)]
    edges = _horizontal_edges(columns, tops, bottoms, rle.height)
    order, starts = _cycles(edges.following, range(len(edges.y)))
    is_hole = ~edges.is_top[order[starts]]
    if is_hole.any():
        edges = _bridged(edges, order[starts][is_hole], (columns, tops, bottoms), rle.height)
        order, starts = _cycles(edges.following, order[starts][~is_hole].tolist())
    points = np.stack([edges.tail, edges.y, edges.head, edges.y], 1)[order].reshape(-1, 2)
    return _rings(points, 2 * starts, is_hole.any())


def polygon_iou(rle: Rle, polygons: Rings) -> float:
    """IoU of a mask and what pycocotools makes of its polygons; 1 where they are equal, two empty masks included."""
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, rle.height, rle.width))
    back = Rle(rle.height, rle.width, merged["counts"].decode("ascii"))
    if back.counts == rle.counts or np.array_equal(_toggles(back), _toggles(rle)):
        return 1.0
    return float(ious([rle], [back])[0, 0])


@dataclass(frozen=True)
class _Edges:
    """Horizontal edges of the outline in the direction of walking, the object on the right hand.

    Each goes from (tail, y) to (head, y); `is_top`: the object lies below it, and it is walked to the right. `following` is the
    edge that comes next, after a vertical step. Ordered by (y, not is_top, left end), bridges' pieces last.
    """

    tail: np.ndarray
    head: np.ndarray
    y: np.ndarray
    is_top: np.ndarray
    following: np.ndarray


def _toggles(rle: Rle) -> np.ndarray:
    """Where the mask begins and where it ends, in turn, in column-major order: equal for equal masks."""
    runs = run_lengths(rle)
    positions = np.cumsum(runs)
    changes = positions[:-1]
    if not runs[1:].all():  # a run of length zero changes nothing
        values, times = np.unique(changes, return_counts=True)
        changes = values[times % 2 == 1]
    return np.append(changes, positions[-1]) if len(changes) % 2 else changes


def _vertical_runs(rle: Rle) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(column, top, bottom) of every run of the mask within one column, in column-major order; bottom is exclusive."""
    toggles = _toggles(rle)
    begins, ends = toggles[0::2], toggles[1::2]
    first = begins // rle.height
    count = (ends - 1) // rle.height - first + 1
    total = int(count.sum())
    if total > len(count):  # some run goes on in the next column
        within = np.arange(total) - np.repeat(np.cumsum(count) - count, count)
        first, begins, ends = np.repeat(first, count) + within, np.repeat(begins, count), np.repeat(ends, count)
    offset = first * rle.height
    return first, np.maximum(begins - offset, 0), np.minimum(ends - offset, rle.height)


def _horizontal_edges(columns: np.ndarray, tops: np.ndarray, bottoms: np.ndarray, height: int) -> _Edges:
    """All horizontal edges, each as long as it goes, with the vertical steps between them."""
    stride = int(columns[-1]) + 2  # a gap between the last column of a row and the first of the next
    units = np.concatenate([2 * tops * stride + columns, (2 * bottoms + 1) * stride + columns])
    units.sort()
    breaks = np.flatnonzero(np.diff(units) != 1)
    left = units[np.concatenate([[0], breaks + 1])]
    row, left = np.divmod(left, stride)
    right = units[np.append(breaks, len(units) - 1)] % stride + 1
    y, is_top = row >> 1, row & 1 == 0
    # Every vertical line meets corners in pairs. Where two pixels touch at a corner only, the upper one's corner comes first:
    # it ends the edge above, and the components stay apart.
    corners = ((np.stack([left, right], 1) * (height + 1) + y[:, None]) * 2 + is_top[:, None]).ravel()
    along = np.argsort(corners)
    partner = np.empty_like(along)
    partner[along[0::2]], partner[along[1::2]] = along[1::2], along[0::2]
    following = partner[2 * np.arange(len(y)) + is_top] >> 1
    return _Edges(np.where(is_top, left, right), np.where(is_top, right, left), y, is_top, following)


def _cycles(following: np.ndarray, candidates: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    """Follow the edges from every candidate not met before: the edges in order of walking, and where each cycle begins."""
    after = following.tolist()
    seen = bytearray(len(after))
    order: list[int] = []
    starts: list[int] = []
    for edge in candidates:
        if seen[edge]:
            continue
        starts.append(len(order))
        while not seen[edge]:
            seen[edge] = 1
            order.append(edge)
            edge = after[edge]
    return np.array(order), np.array(starts)


def _bridged(edges: _Edges, holes: np.ndarray, runs: tuple[np.ndarray, np.ndarray, np.ndarray], height: int) -> _Edges:
    """The edges with every hole joined to the cycle above it. `holes` are the topmost edges of the holes.

    The bridge goes up from the left end of that edge through one run of the mask, to the edge on which the run begins: of the
    ring or of another hole that lies higher. That edge is cut there; a piece of it is added for each bridge.
    """
    columns, tops, bottoms = runs
    x, stride = edges.head[holes], int(columns[-1]) + 2
    above = np.searchsorted(columns * (height + 1) + bottoms, x * (height + 1) + edges.y[holes])
    y = tops[above]
    of_tops = np.flatnonzero(edges.is_top)
    begins = edges.y[of_tops] * stride + edges.tail[of_tops]
    cut = of_tops[np.searchsorted(begins, y * stride + x, side="right") - 1]
    by_cut = np.lexsort((x, cut))
    holes, x, y, cut = holes[by_cut], x[by_cut], y[by_cut], cut[by_cut]
    is_first = np.append(True, cut[1:] != cut[:-1])
    is_last = np.append(is_first[1:], True)
    into = edges.following[holes]  # down the left side of the hole; its topmost edge comes last
    head, following = edges.head.copy(), edges.following.copy()
    piece_head = np.where(is_last, head[cut], np.roll(x, -1))
    piece_following = np.where(is_last, following[cut], np.roll(into, -1))
    head[cut[is_first]], following[cut[is_first]] = x[is_first], into[is_first]
    following[holes] = len(head) + np.arange(len(holes))
    return _Edges(
        tail=np.concatenate([edges.tail, x]),
        head=np.concatenate([head, piece_head]),
        y=np.concatenate([edges.y, y]),
        is_top=np.append(edges.is_top, np.ones(len(holes), bool)),
        following=np.concatenate([following, piece_following]),
    )


def _rings(points: np.ndarray, starts: np.ndarray, bridged: bool) -> Rings:
    """Rings as flat lists of ints. A bridge that begins on a corner gave that corner twice; it stays once."""
    if bridged:
        keep = np.append(True, (points[1:] != points[:-1]).any(1))
        keep[starts] = True
        starts = (np.cumsum(keep) - 1)[starts]
        points = points[keep]
    flat = points.ravel().tolist()
    ends = [*(2 * starts[1:]).tolist(), len(flat)]
    return [flat[begin:end] for begin, end in zip((2 * starts).tolist(), ends, strict=True)]
