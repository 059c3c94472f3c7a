"""`jsonl`: one JSON object per line and referred mask, complete in itself; `pseudoris_cli.data` and pandas read it.

<split>.jsonl; pictures in images/train2014/ with --images
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from pseudoris_cli.formats.base import ExportContext, ExportImage, ExportObject, picture_folder, place_picture
from pseudoris_cli.formats.instances import dumps


def render(images: Iterable[ExportImage], context: ExportContext, folder: Path) -> None:
    """Write one file per split."""
    files: dict[str, TextIO] = {}
    with ExitStack() as stack:
        for image in images:
            if not image.objects:
                continue
            if image.split not in files:
                path = folder / f"{image.split}.jsonl"
                files[image.split] = stack.enter_context(path.open("w", encoding="ascii", newline="\n"))
            place_picture(image, context, folder / picture_folder(context))
            for thing in image.objects:
                files[image.split].write(dumps(record(image, thing)) + "\n")


def record(image: ExportImage, thing: ExportObject) -> dict[str, Any]:
    """One line: the picture, the mask as COCO's run-length code, and its sentences, best first."""
    rle = thing.mask.rle
    return {
        "ref_id": thing.ref_id,
        "ann_id": thing.ann_id,
        "image_key": image.image_key,
        "image_id": image.image_id,
        "file_name": image.file_name,
        "width": image.width,
        "height": image.height,
        "split": image.split,
        "mask_id": thing.mask.mask_id,
        "category_id": thing.category[0],
        "category": thing.category[1],
        "bbox": [int(value) for value in thing.mask.bbox],
        "area": int(thing.mask.area),
        "segmentation": {"size": [rle.height, rle.width], "counts": rle.counts},
        "sentences": [
            {
                "sent_id": sentence.sent_id,
                "candidate_id": sentence.candidate_id,
                "caption": sentence.caption,
                "crop": sentence.crop,
                "sampler": sentence.sampler,
                "correctness": sentence.correctness,
                "uniqueness": sentence.uniqueness,
                "doc": sentence.doc,
            }
            for sentence in thing.sentences
        ],
    }
