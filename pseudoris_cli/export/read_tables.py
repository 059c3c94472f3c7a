"""Read the referred masks of exports in tables and mask files: hf (Parquet), etris, reference-csv."""

from __future__ import annotations

import ast
import csv
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from pseudoris_cli.codecs.coco_segmentation import read_mask
from pseudoris_cli.export.read_back import Referred
from pseudoris_cli.records import Rle
from pseudoris_cli.rle import encode_rle

CSV_FOLDER, MASK_FOLDER = "pseudo_supervision/cutler_sam", "datasets/pseudo_masks/cutler_sam"
LEAST_DOC = 1.0
"""The DoC above which the trainer of reference-csv takes a caption."""


class TableRows:
    """Pictures inside the rows of Parquet files; a key is `<file>:<row group>:<row>`, or the path of a linked picture.

    The last row group stays in memory, so reading in order is cheap and reading at random decodes a group for each picture.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._last: tuple[str, Any] = ("", None)

    def __reduce__(self) -> tuple[type[TableRows], tuple[Path]]:
        return type(self), (self.root,)

    def read(self, key: str) -> bytes:
        """The bytes of a picture. FileNotFoundError if its file is gone."""
        if Path(key).is_absolute():
            return Path(key).read_bytes()
        group_key, row = key.rsplit(":", 1)
        if self._last[0] != group_key:
            name, group = group_key.rsplit(":", 1)
            with pq.ParquetFile(self.root / "data" / name) as file:
                self._last = group_key, file.read_row_group(int(group), columns=["image.bytes"]).column("image")
        value: bytes = self._last[1][int(row)].as_py()["bytes"]
        return value


def hf_files(root: Path, split: str) -> list[Path]:
    """The Parquet files of a split of an hf export."""
    return sorted((root / "data").glob(f"{split}-[0-9]*.parquet"))


def hf_has_pictures(root: Path, split: str) -> bool:
    """Whether the rows hold the pictures, or where these are."""
    return any("image" in pq.read_schema(path).names for path in hf_files(root, split)[:1])


def hf(root: Path, split: str, find_image: Callable[[str], Path]) -> Iterator[Referred]:
    """The references of an hf export."""
    columns = ["image_id", "file_name", "width", "height", "objects"]
    for path in hf_files(root, split):
        with pq.ParquetFile(path) as file:
            pictured = "image" in file.schema_arrow.names
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=[*columns, *(["image.path"] if pictured else [])])
                for number, row in enumerate(table.to_pylist()):
                    linked = row["image"]["path"] if pictured else ""
                    inside = linked if Path(linked).is_absolute() else f"{path.name}:{group}:{number}"
                    key = inside if pictured else row["file_name"]
                    for obj in row["objects"]:
                        rle = read_mask(obj["segmentation"], row["height"], row["width"])
                        yield Referred(key, row["image_id"], obj["ref_id"], rle, tuple(obj["sentences"]))


def etris_file(root: Path, split: str) -> Path | None:
    """The annotations of a split of an etris export."""
    return next(iter(sorted(root.glob(f"anns/*/{split}.json"))), None)


def etris(root: Path, split: str, find_image: Callable[[str], Path]) -> Iterator[Referred]:
    """The references of an etris export; sentences as ETRIS reads them, cleaned."""
    path = etris_file(root, split)
    assert path is not None
    for one in json.loads(path.read_bytes()):
        rle = _mask_file(root / "masks" / path.parent.name / f"{one['segment_id']}.png")
        captions = tuple(sentence["sent"] for sentence in one["sentences"])
        yield Referred(one["img_name"], one["img_id"], one["segment_id"], rle, captions)


def reference_csv_file(root: Path, split: str) -> Path:
    """The table of a split of a reference-csv export."""
    suffix = "" if split == "train" else f"_{split}"
    return root / CSV_FOLDER / f"distinctive_captions_cc3m{suffix}.csv"


def reference_csv(root: Path, split: str, find_image: Callable[[str], Path]) -> Iterator[Referred]:
    """The masks of a reference-csv export with the captions that its trainer draws from, masks that have none left out.

    Those are the captions with DoC > 1, and of an image's only mask the better half.
    """
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with reference_csv_file(root, split).open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.DictReader(file, strict=True), 1):
                texts, docs = ast.literal_eval(row["pseudo_caption"]), ast.literal_eval(row["doc"])
                order = np.argsort(-np.asarray(docs, float), kind="stable")
                if row["one_mask"] == "1":
                    drawn = order[: len(texts) // 2]
                else:
                    drawn = np.array([index for index in order if docs[index] > LEAST_DOC], int)
                captions = tuple(dict.fromkeys(str(texts[index]) for index in drawn))
                if captions:
                    rle = _mask_file(root / MASK_FOLDER / row["img_id"] / f"{row['seg_id']}.png")
                    yield Referred(row["img_name"], int(row["img_id"]), number, rle, captions)
    finally:
        csv.field_size_limit(limit)


def _mask_file(path: Path) -> Rle:
    with Image.open(path) as picture:
        return encode_rle(np.asarray(picture.convert("L")) > 127)
