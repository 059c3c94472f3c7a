"""Run-length codes: pycocotools reads what `Rle.to_coco` gives, and JSON holds it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from pseudoris_cli.rle import decode_rle, encode_rle, intersections, ious, rle_area, rle_bbox


@given(st.integers(1, 12), st.integers(1, 12), st.randoms(use_true_random=False))
def test_the_coco_form_survives_json_and_pycocotools(height, width, random):
    mask = np.array([[random.random() < 0.5 for _ in range(width)] for _ in range(height)])
    rle = encode_rle(mask)
    code = rle.to_coco()
    assert code == {"size": [height, width], "counts": rle.counts}
    assert json.loads(json.dumps(code)) == code
    assert np.array_equal(coco_mask.decode(code), mask)
    assert np.array_equal(decode_rle(rle), mask)
    assert rle_area(rle) == mask.sum()


def test_overlaps_count_common_pixels():
    left, right = np.zeros((2, 4, 6), bool)
    left[:, :3] = right[1:3, 2:5] = True
    a, b, empty = encode_rle(left), encode_rle(right), encode_rle(np.zeros((4, 6), bool))
    assert rle_bbox(b) == (2, 1, 3, 2)
    assert rle_bbox(empty) == (0, 0, 0, 0)
    assert intersections([a, empty], [b], pixels_per_block=5).tolist() == [[2], [0]]
    assert ious([a, empty], [b, empty]) == pytest.approx(np.array([[2 / 16, 0], [0, 0]]))
    assert ious([], [a]).shape == (0, 1)
