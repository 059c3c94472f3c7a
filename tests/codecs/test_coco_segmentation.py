"""Foreign segmentations: the masks that pycocotools makes of good ones, ValueError for all that would harm it."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from pseudoris_cli.codecs.coco_segmentation import read_mask, unpack_counts
from pseudoris_cli.rle import decode_rle, encode_rle

BLOB = np.zeros((20, 30), bool)
BLOB[3:9, 4:11] = True
BLOB[12:15, 20:] = True


def _code(mask):
    return encode_rle(mask).to_coco()


def test_run_length_codes_come_back():
    code = _code(BLOB)
    for segmentation in (code, [code], {**code, "counts": unpack_counts(code["counts"])}):
        np.testing.assert_array_equal(decode_rle(read_mask(segmentation, 20, 30)), BLOB)
    other = np.roll(BLOB, 2, axis=1)
    np.testing.assert_array_equal(decode_rle(read_mask([code, _code(other)], 20, 30)), BLOB | other)


def test_random_masks_come_back():
    for seed in range(50):
        rng = np.random.default_rng(seed)
        mask = rng.random(tuple(rng.integers(1, 60, 2))) < rng.random()
        np.testing.assert_array_equal(decode_rle(read_mask(_code(mask), *mask.shape)), mask)


def test_polygons_are_united():
    polygons = [[2, 2, 10, 2, 10, 10, 2, 10], [8, 8, 18, 8, 18, 18, 8, 18]]
    united = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, 20, 30)))
    np.testing.assert_array_equal(decode_rle(read_mask(polygons, 20, 30)), united.astype(bool))


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        {},
        "x",
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, float("nan")]],
        [[1e300] * 6],
        [["1", 2, 3, 4, 5, 6]],
        [None],
        [{"size": [20, 30], "counts": "PPPPPPPPPP"}],
        {"size": [20, 30], "counts": ""},
        {"size": [20, 30], "counts": "o" * 50},
        {"size": [20, 30], "counts": "\xff\xff"},
        {"size": [20, 30], "counts": [600, -1, 1]},
        {"size": [20, 30], "counts": [True, 599]},
        {"size": [20, 30], "counts": [300, 299]},
        {"size": [20, 30], "counts": encode_rle(np.ones((50, 50), bool)).counts},
        {"size": [50, 50], "counts": encode_rle(np.ones((50, 50), bool)).counts},
    ],
)
def test_what_would_harm_is_refused(segmentation):
    with pytest.raises(ValueError):
        read_mask(segmentation, 20, 30)


@pytest.mark.parametrize("frame", [(0, 30), (-20, -30), (1 << 40, 1 << 40), (None, None), (20.0, 30)])
def test_absurd_frames_are_refused(frame):
    with pytest.raises(ValueError, match="cannot be"):
        read_mask({"size": list(frame), "counts": "o"}, *frame)
