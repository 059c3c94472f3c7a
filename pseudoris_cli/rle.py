"""Masks as COCO run-length encodings (pycocotools), their areas, boxes and overlaps. Runs on the CPU without torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from pseudoris_cli.records import Rle


def encode_rle(mask: np.ndarray) -> Rle:
    """A bool or uint8 mask [H, W] as a compressed run-length encoding."""
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return Rle(mask.shape[0], mask.shape[1], encoded["counts"].decode("ascii"))


def decode_rle(rle: Rle) -> np.ndarray:
    """The mask as bool [H, W]."""
    return coco_mask.decode(rle.to_coco()).astype(bool)


def rle_from_counts(counts: Sequence[int], height: int, width: int) -> Rle:
    """Compress COCO's uncompressed run lengths: column-major, the first run is background."""
    encoded = coco_mask.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)
    return Rle(height, width, encoded["counts"].decode("ascii"))


def run_lengths(rle: Rle) -> np.ndarray:
    """The run lengths of a valid code, int64, column-major, the first run background (maskApi.c's rleFrString).

    A run is written in digits of five bits, lowest first, with a bit that says whether another follows; the highest bit of the
    last digit is the sign. From the third run on it is the difference from the run two before.
    """
    digits = np.frombuffer(rle.counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(digits & 32 == 0)
    first = np.append(0, last[:-1] + 1)
    place = np.arange(len(digits)) - np.repeat(first, last - first + 1)
    runs = np.add.reduceat((digits & 31) << 5 * place, first)
    runs -= ((digits[last] >> 4) & 1) << 5 * (last - first + 1)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def rle_area(rle: Rle) -> int:
    """Number of pixels of the mask."""
    return int(coco_mask.area(rle.to_coco()))


def rle_bbox(rle: Rle) -> tuple[float, float, float, float]:
    """The tight box [x, y, width, height] in pixels, width = xmax - xmin + 1; all zero for an empty mask."""
    x, y, w, h = coco_mask.toBbox(rle.to_coco())
    return float(x), float(y), float(w), float(h)


def intersections(a: Sequence[Rle], b: Sequence[Rle], pixels_per_block: int = 1 << 20) -> np.ndarray:
    """Pixels common to every pair of masks of one image, int64 [len(a), len(b)].

    One float32 matrix product over blocks of `pixels_per_block` pixels, so that memory does not grow with the image. The
    result is exact: a block's counts stay below 2**24, up to which float32 holds every integer.
    """
    if not a or not b:
        return np.zeros((len(a), len(b)), np.int64)
    left = coco_mask.decode([rle.to_coco() for rle in a]).reshape(-1, len(a), order="F")
    right = left if a is b else coco_mask.decode([rle.to_coco() for rle in b]).reshape(-1, len(b), order="F")
    total = np.zeros((len(a), len(b)), np.int64)
    for start in range(0, len(left), pixels_per_block):
        block = slice(start, start + pixels_per_block)
        product = left[block].T.astype(np.float32) @ right[block].astype(np.float32)
        total += product.astype(np.int64)
    return total


def ious(a: Sequence[Rle], b: Sequence[Rle]) -> np.ndarray:
    """Intersection over union of every pair, float64 [len(a), len(b)]; 0 where both masks are empty."""
    common = intersections(a, b)
    union = np.array([rle_area(x) for x in a])[:, None] + np.array([rle_area(x) for x in b])[None, :] - common
    return common / np.maximum(union, 1)
