"""`tao`: one line per picture with its expressions and their boxes, the schema of NVIDIA TAO's referring-expression service.

    annotations.jsonl                   all splits, each line with its own
    images/train2014/<file_name>        the image files, with --images

A box is [x1, y1, x2, y2] in pixels. An expression without instances means nothing in the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pseudoris_cli.export.base import ExportContext, ExportImage, ExportObject, Write, image_folder, save_image_file
from pseudoris_cli.export.json_stream import dumps

REFERENCES = True


@contextmanager
def open_writer(context: ExportContext, folder: Path) -> Iterator[Write]:
    """Write the one file."""
    pictures = "" if context.images == "none" else f"{image_folder(context)}/"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "annotations.jsonl").open("w", encoding="ascii", newline="\n") as file:

        def write(image: ExportImage) -> None:
            if image.references:
                save_image_file(image, context, folder / image_folder(context))
                file.write(dumps(record(image, pictures + image.file_name)) + "\n")

        yield write


def record(image: ExportImage, path: str) -> dict[str, Any]:
    """One line: ids are text, as in TAO."""
    return {
        "image_id": str(image.image_id),
        "image_path": path,
        "file_name": image.file_name,
        "width": image.width,
        "height": image.height,
        "expressions": [
            {
                "expression_id": f"expr_{sentence.sent_id}",
                "text": sentence.caption,
                "instances": [_instance(obj) for obj in reference.objects],
            }
            for reference in image.references
            for sentence in reference.sentences
        ],
        "source": "image_referring_expression",
        "split": image.split,
    }


def _instance(obj: ExportObject) -> dict[str, Any]:
    x, y, width, height = (int(value) for value in obj.mask.bbox)
    return {"bbox_id": f"bbox_{obj.ann_id}", "bbox": [x, y, x + width, y + height]}
