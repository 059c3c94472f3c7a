"""Records to columns and back: nothing of a mask is lost, and kept captions come best first."""

from __future__ import annotations

import numpy as np
import pytest

from pseudoris_cli.records import Caption, CaptionCandidate, ImageRef, Mask, Rle
from pseudoris_cli.storage.rows import (
    candidates_by_image,
    caption_row,
    kept_rows,
    mask_row,
    masks_by_image,
    optional_float,
    rows_of_images,
)
from pseudoris_cli.storage.schema import COLUMNS, from_table, to_table

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


def test_a_row_of_masks_names_every_value_by_its_column():
    row = mask_row(ImageRef("a/b.png", 7, "b.png"), FULL)
    assert row == {
        "image_key": "a/b.png",
        "image_id": 7,
        "file_name": "b.png",
        "width": 3,
        "height": 2,
        "mask_id": 1,
        "rle_size": [2, 3],
        "rle_counts": "06",
        "bbox": [1.0, 0.0, 2.0, 2.0],
        "area": 4,
        "predicted_iou": 0.8,
        "stability_score": 0.85,
        "detector_score": 0.7,
        "match_iou": 0.6,
        "category_id": 17,
        "category": "cat",
    }
    assert list(row) == [column.name for column in COLUMNS["masks"]]
    plain = mask_row(ImageRef("a", 1, "a"), PLAIN)
    assert [plain[name] for name in ("detector_score", "match_iou", "category_id", "category")] == [None] * 4


def test_captions_come_back_as_candidates_of_their_image():
    said = [
        ("a", Caption(0, 1, "dog", "masked", "beam", -1.5, 4)),
        ("b", Caption(2, 0, "cat", "crop_1.1", "top_p=0.4", -2, 5)),
    ]
    said.append(("a", Caption(1, 0, "cow", "masked", "beam", -3, 6)))
    rows = [caption_row(ImageRef(key, 9, key), caption) for key, caption in said]
    assert rows[1] == {
        "image_key": "b",
        "image_id": 9,
        "mask_id": 2,
        "candidate_id": 0,
        "caption": "cat",
        "crop": "crop_1.1",
        "sampler": "top_p=0.4",
        "logprob": -2,
        "tokens": 5,
    }
    found = candidates_by_image(from_table(to_table("captions", columns_of(rows))))
    assert found == {
        "a": [CaptionCandidate(0, 1, "dog"), CaptionCandidate(1, 0, "cow")],
        "b": [CaptionCandidate(2, 0, "cat")],
    }
    assert {type(one.mask_id) for one in found["a"]} == {int}
    assert "c" not in found


def test_a_row_is_read_with_plain_numbers():
    """JSON and pickles of exports take no numpy numbers."""
    back = from_table(to_table("masks", columns_of([mask_row(ImageRef("a", 1, "a"), FULL)])))
    [mask] = masks_by_image(back)["a"]
    values = (mask.mask_id, mask.area, mask.predicted_iou, mask.stability_score, mask.detector_score, mask.category[0])
    assert [type(value) for value in values] == [int, int, float, float, float, int]
    assert mask.predicted_iou == pytest.approx(0.8)
    assert mask.category == (17, "cat")
