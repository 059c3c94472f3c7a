"""Records to columns and back: nothing of a mask is lost, and kept captions come best first."""

from __future__ import annotations

import numpy as np
import pytest

from pseudoris_cli.records import ImageRef, Mask, Rle
from pseudoris_cli.storage.rows import kept_rows, mask_row, masks_by_image, optional_float, rows_of_images

PLAIN = Mask(0, Rle(2, 3, "06"), (0.0, 0.0, 3.0, 2.0), 6, 0.9, 0.95)
FULL = Mask(1, Rle(2, 3, "06"), (1.0, 0.0, 2.0, 2.0), 4, 0.8, 0.85, 0.7, 0.6, (17, "cat"))


def columns_of(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_masks_come_back_whole_and_in_order():
    rows = [mask_row(ImageRef(key, 1, key), mask) for key in ("a", "b") for mask in (FULL, PLAIN)]
    columns = columns_of(rows)
    assert masks_by_image(columns) == {"a": (PLAIN, FULL), "b": (PLAIN, FULL)}
    assert masks_by_image(columns, {"b", "elsewhere"}) == {"b": (PLAIN, FULL)}
    assert rows_of_images(columns, ["a"]) == rows[:2]


def test_missing_columns_and_parts_are_empty():
    """Version 1 of the schema has no category columns; a missing part has no columns at all."""
    columns = columns_of([mask_row(ImageRef("a", 1, "a"), FULL)])
    del columns["category"], columns["category_id"]
    assert masks_by_image(columns)["a"][0].category is None
    assert masks_by_image({}) == {}
    assert rows_of_images({}, {"a"}) == []


@pytest.mark.parametrize(("value", "expected"), [(None, None), (float("nan"), None), (np.float32(0.5), 0.5), (1, 1.0)])
def test_null_is_none(value, expected):
    assert optional_float(value) == expected


def test_kept_captions_are_ranked_by_doc_or_correctness():
    nan = float("nan")
    columns = {
        "image_key": ["b", "b", "b", "b", "a", "a"],
        "mask_id": [1, 0, 0, 0, 0, 0],
        "doc": [1.1, 1.2, 1.5, 1.2, nan, nan],
        "correctness": [0.1, 0.9, 0.1, 0.1, 0.2, 0.3],
        "candidate_id": [0, 3, 2, 1, 0, 1],
        "caption": list("uvwxyz"),
        "kept": [True, True, True, True, True, True],
    }
    assert [row.caption for row in kept_rows(columns)] == ["w", "x", "v", "u", "z", "y"]
    assert kept_rows(columns | {"kept": [False] * 6}) == []
