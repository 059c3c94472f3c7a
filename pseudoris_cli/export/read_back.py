"""Read the referred masks of a jsonl export or of any REFER data set, one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pseudoris_cli.codecs import safe_pickle
from pseudoris_cli.codecs.coco_segmentation import read_mask
from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import Rle


@dataclass(frozen=True, slots=True)
class Referred:
    """A mask with its sentences; `image_key` is the name under which the export's image folder has the image."""

    image_key: str
    image_id: int
    ref_id: int
    rle: Rle
    captions: tuple[str, ...]


def read_jsonl(path: Path) -> Iterator[Referred]:
    """The lines of a jsonl export; `image_key` is their `file_name`. Raises UsageError naming a damaged line."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                captions = tuple(sentence["caption"] for sentence in record["sentences"])
                rle = read_mask(record["segmentation"], record["height"], record["width"])
                yield Referred(record["file_name"], record["image_id"], record["ref_id"], rle, captions)
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(f"{path}, line {number}: is not a line of a jsonl export ({error!r})") from error


def read_refer(dataset: Path, split_by: str, split: str) -> Iterator[Referred]:
    """The refs of one split of `dataset` (a folder with instances.json), with their raw sentences.

    Accepts polygons and run-length encodings. Both files are loaded into memory, as REFER does. Raises UsageError for damaged
    files.
    """
    refs = safe_pickle.load(dataset / f"refs({split_by}).p")
    try:
        instances = json.loads((dataset / "instances.json").read_text(encoding="utf-8"))
        images = {image["id"]: image for image in instances["images"]}
        annotations = {annotation["id"]: annotation for annotation in instances["annotations"]}
        for ref in refs:
            if ref["split"] != split:
                continue
            image = images[ref["image_id"]]
            rle = read_mask(annotations[ref["ann_id"]]["segmentation"], image["height"], image["width"])
            captions = tuple(sentence["raw"] for sentence in ref["sentences"])
            yield Referred(image["file_name"], image["id"], ref["ref_id"], rle, captions)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{dataset} is not a REFER data set: {error!r}") from error
