"""`jsonl`: one JSON object per line and referred mask, complete in itself; `pseudoris_cli.dataset` and pandas read it.

<split>.jsonl; image files in images/train2014/ with --images
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pseudoris_cli.export.base import (
    BySplit,
    ExportContext,
    ExportImage,
    ExportObject,
    Write,
    image_folder,
    save_image_file,
)
from pseudoris_cli.export.image_row import mask_values
from pseudoris_cli.export.json_stream import dumps


@contextmanager
def open_writer(context: ExportContext, folder: Path) -> Iterator[Write]:
    """Write one file per split."""
    with ExitStack() as stack:
        files = BySplit(stack, lambda split: (folder / f"{split}.jsonl").open("w", encoding="ascii", newline="\n"))

        def write(image: ExportImage) -> None:
            if image.objects:
                save_image_file(image, context, folder / image_folder(context))
            for obj in image.objects:
                files[image.split].write(dumps(record(image, obj, context.judged)) + "\n")

        yield write


def record(image: ExportImage, obj: ExportObject, judged: bool = False) -> dict[str, Any]:
    """One line: the image, the mask as COCO's run-length encoding, and its sentences, best first."""
    return {
        "ref_id": obj.ref_id,
        "ann_id": obj.ann_id,
        "image_key": image.image_key,
        "image_id": image.image_id,
        "file_name": image.file_name,
        "width": image.width,
        "height": image.height,
        "split": image.split,
        **mask_values(obj),
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
                **({"listener": sentence.listener} if judged else {}),
            }
            for sentence in obj.sentences
        ],
    }
