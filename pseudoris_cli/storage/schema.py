"""Columns of every artifact and their version. docs/artifacts.md is generated from here."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

SCHEMA_VERSION = 2
READABLE = (1, 2)
"""Version 1 had no category columns; what was made with it is read as class-agnostic."""

Columns: TypeAlias = dict[str, Any]
"""Column name to its values, all of one length: a numpy array for numbers, a list for text and nested values."""

_MASK = ("mask_id", pa.int32(), "0..n-1 within the image, best first")
_KEY = ("image_key", pa.string(), "POSIX path within the source; the key of every join")
_CANDIDATE = ("candidate_id", pa.int32(), "0..n-1 within the mask")


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, Arrow type, meaning, and whether it may be null."""

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = False


def _columns(*rows: tuple[Any, ...]) -> tuple[Column, ...]:
    return tuple(Column(*row) for row in rows)


_CAPTION = _columns(
    _KEY,
    ("image_id", pa.int64(), "as in masks"),
    _MASK,
    _CANDIDATE,
    ("caption", pa.string(), "the candidate expression"),
    (
        "crop",
        pa.string(),
        "masked, crop_1.0, crop_1.1 or crop_1.2; of a vision-language model its view, such as marks+crop",
    ),
    ("sampler", pa.string(), "beam, top_k=5 .. top_p=0.8; vlm"),
    (
        "logprob",
        pa.float32(),
        "sum of log-softmax of the own logits before any rule, end token included; 0 if not told (vlm)",
    ),
    ("tokens", pa.int32(), "generated tokens, end token included; 0 if not told (vlm)"),
)
_SCORE = _columns(
    ("noun", pa.string(), "head noun of the caption"),
    ("correctness", pa.float32(), "cosine of the masked crop and the noun prompt", True),
    ("uniqueness", pa.float32(), "similarity over the largest of the other masks; null with one mask", True),
    ("doc", pa.float32(), "distinctiveness of caption; null with one mask", True),
    ("flags", pa.string(), "what was clamped or undefined, comma separated"),
)

_LISTENER = _columns(
    ("listener", pa.float32(), "probability that the listener picks this mask; null where it was not asked", True),
    ("listener_best_other", pa.float32(), "the largest probability of another mask", True),
    ("listener_none", pa.float32(), "probability of none or several", True),
    ("listener_choice", pa.int32(), "the mask that it picks, -1 for none or several", True),
    ("listener_targets", pa.list_(pa.int32()), "every mask that it says the text fits; null unless judge.multi", True),
)

COLUMNS: dict[str, tuple[Column, ...]] = {
    "masks": _columns(
        _KEY,
        ("image_id", pa.int64(), "the source's id, else from the COCO file name, else a 52-bit hash of the key"),
        ("file_name", pa.string(), "name of the image as exports write it"),
        ("width", pa.int32(), "pixels, EXIF-upright"),
        ("height", pa.int32(), "pixels, EXIF-upright"),
        _MASK,
        ("rle_size", pa.list_(pa.int32()), "[height, width]"),
        ("rle_counts", pa.string(), "COCO compressed run lengths"),
        ("bbox", pa.list_(pa.float32()), "[x, y, width, height], width = xmax - xmin + 1"),
        ("area", pa.int64(), "pixels"),
        ("predicted_iou", pa.float32(), "SAM's own estimate"),
        ("stability_score", pa.float32(), "SAM's stability"),
        ("detector_score", pa.float32(), "score of the detection; null without detector", True),
        ("match_iou", pa.float32(), "IoU of the detection and its SAM mask; null without detector", True),
        ("category_id", pa.int64(), "category of a mask of your own; null for class-agnostic masks", True),
        ("category", pa.string(), "its name", True),
    ),
    "captions": _CAPTION,
    "scores": (*_columns(_KEY, _MASK, _CANDIDATE), *_SCORE),
    "judge": (
        *_columns(
            _KEY,
            ("mask_id", pa.int32(), "as in masks; -1 for a text of another image that fits nothing here"),
            _CANDIDATE,
            ("caption", pa.string(), "the candidate expression"),
        ),
        *_LISTENER,
        *_columns(
            ("listener_shown", pa.list_(pa.int32()), "the masks that it was shown; null where it was not asked", True)
        ),
    ),
    "filter": (
        *_CAPTION,
        *_SCORE,
        *_columns(
            ("duplicates", pa.int32(), "how many candidates of the mask have this text"),
            ("kept", pa.bool_(), "the selection's verdict"),
            (
                "reason",
                pa.string(),
                "why not kept; empty when kept, but `by hand` where that was decided by hand, either way",
            ),
        ),
    ),
    "export": _columns(
        ("ref_id", pa.int64(), "one per mask with a kept expression, in plan order"),
        ("ann_id", pa.int64(), "annotation of the ref"),
        ("sent_id", pa.int64(), "one per kept expression"),
        ("split", pa.string(), "train, val, ...; empty where the image is in no list of --split"),
        _KEY,
        _MASK,
        _CANDIDATE,
        ("caption", pa.string(), "the kept expression"),
    ),
}
"""Stage name to the columns that all its parts have, in order."""

_KIND = _columns(
    (
        "kind",
        pa.string(),
        "attribute, position, relation, action or other: what tells the object apart, as the captioner says",
    ),
)
OPTIONAL: dict[str, tuple[tuple[Column, ...], ...]] = {
    "captions": (_KIND,),
    "filter": (_LISTENER, _KIND),
}
"""Stage name to groups of columns that follow where a run makes them: every part of a version has all of a group, or none."""


def columns_of(stage: str, given: Container[str]) -> tuple[Column, ...]:
    """The columns of a part of a stage, of which `given` are there: those of an optional group only if any of it is."""
    groups = (group for group in OPTIONAL.get(stage, ()) if any(column.name in given for column in group))
    return COLUMNS[stage] + tuple(column for group in groups for column in group)


def arrow_schema(stage: str, given: Container[str] = ()) -> pa.Schema:
    """The Arrow schema of a stage's parts; `given` as for `columns_of`."""
    return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in columns_of(stage, given)])


def to_table(stage: str, columns: dict[str, Any]) -> pa.Table:
    """Columns (lists or numpy arrays of one length) as a table. NaN in a nullable float column becomes null.

    Raises ValueError for a missing or unknown column or a null where none may be.
    """
    wanted = columns_of(stage, columns)
    expected = [c.name for c in wanted]
    if sorted(columns) != sorted(expected):
        raise ValueError(f"{stage}: columns {sorted(columns)} are not {sorted(expected)}")
    arrays = []
    for column in wanted:
        array = pa.array(columns[column.name], column.type, from_pandas=column.nullable)
        if array.null_count and not column.nullable:
            raise ValueError(f"{stage}: column {column.name} may not be null")
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=arrow_schema(stage, columns))


def from_table(table: pa.Table) -> dict[str, Any]:
    """Columns of a table: numpy arrays for numbers (null as NaN), lists for text and nested values."""
    columns: dict[str, Any] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_nested(column.type) or pa.types.is_string(column.type):
            columns[name] = column.to_pylist()
        else:
            columns[name] = column.to_numpy(zero_copy_only=False)
    return columns
