"""A COCO `segmentation` of an untrusted file as a mask: polygons, compressed or uncompressed run-length encodings.

pycocotools does not validate its input and reads out of bounds where it is wrong, so everything is checked before.
"""

from __future__ import annotations

from typing import Any

from pycocotools import mask as coco_mask

from pseudoris_cli.records import Rle
from pseudoris_cli.rle import rle_from_counts


def read_mask(segmentation: Any, height: int, width: int) -> Rle:
    """The mask of a COCO `segmentation`, clipped to an image of this size in pixels; raises ValueError where it is invalid.

    A list may hold run-length encodings instead of polygons, as in REFER's files; its parts are united.
    """
    if not all(type(side) is int and 0 < side < 1 << 16 for side in (height, width)):
        raise ValueError(f"a frame of {width!r}x{height!r} pixels cannot be")
    if isinstance(segmentation, dict):
        if segmentation.get("size") != [height, width]:
            raise ValueError(f"its size is {segmentation.get('size')}, that of the image [{height}, {width}]")
        counts = segmentation.get("counts")
        return rle_from_counts(_checked_counts(counts, height * width), height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("its segmentation is neither polygons nor a run-length encoding")
    if isinstance(segmentation[0], dict):
        codes = [read_mask(part, height, width).to_coco() for part in segmentation]
        return Rle(height, width, coco_mask.merge(codes)["counts"].decode("ascii"))
    polygons = [_checked_polygon(polygon, height, width) for polygon in segmentation]
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return Rle(height, width, merged["counts"].decode("ascii"))


class BadMask(ValueError):
    """An annotation that gives no mask; `kind` says in what way, in the plural, so that a summary can count them."""

    def __init__(self, reason: str, kind: str = "damaged masks") -> None:
        super().__init__(reason)
        self.kind = kind


def read_usable_mask(segmentation: Any, height: int, width: int) -> tuple[Rle, list[BadMask]]:
    """The mask of a `segmentation` from an annotation tool, made of its good polygons; also what is wrong with the others.

    Raises BadMask where nothing of it is a mask.
    """
    if not segmentation or segmentation == [[]]:
        raise BadMask("its segmentation is neither polygons nor a run-length encoding", "boxes without a mask")
    good, bad = segmentation, []
    if isinstance(segmentation, list) and not isinstance(segmentation[0], dict):
        good = []
        for polygon in segmentation:
            try:
                _checked_polygon(polygon, height, width)
                good.append(polygon)
            except ValueError as error:
                bad.append(error if isinstance(error, BadMask) else BadMask(str(error)))
        if not good:
            raise bad[0]
    try:
        return read_mask(good, height, width), bad
    except ValueError as error:
        raise BadMask(str(error)) from error


def _checked_polygon(polygon: Any, height: int, width: int) -> list[float]:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        few = isinstance(polygon, list) and len(polygon) < 6
        kind = "polygons of fewer than three points" if few else "damaged masks"
        raise BadMask("a polygon is a list of x, y, x, y, ... of at least three points", kind)
    if not all(is_number(value) for value in polygon):
        raise ValueError("a polygon holds something that is no finite number")
    for values, side in ((polygon[0::2], width), (polygon[1::2], height)):
        if min(values) >= side or max(values) <= 0:
            raise BadMask("a polygon lies outside the image", "polygons outside the image")
        if min(values) < -side or max(values) > 2 * side:  # also bounds the time to rasterise it
            raise ValueError("a polygon reaches further than one image size outside the image")
    return [float(value) for value in polygon]


def _checked_counts(counts: Any, pixels: int) -> list[int]:
    if isinstance(counts, str):
        counts = unpack_counts(counts)
    if not isinstance(counts, list) or not all(isinstance(run, int) and not isinstance(run, bool) for run in counts):
        raise ValueError("its counts are neither a string nor a list of integers")
    if any(run < 0 for run in counts) or sum(counts) != pixels:
        raise ValueError(f"its runs do not add up to the {pixels} pixels of the image")
    return counts


def unpack_counts(text: str) -> list[int]:
    """Run lengths of COCO's compressed string: five bits a character, from the third run on as differences (maskApi.c)."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("its counts are not a compressed run-length encoding")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise ValueError("its compressed run-length encoding is cut off")
    return runs


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number; true and false are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15  # false for NaN
