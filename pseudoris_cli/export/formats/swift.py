"""`swift`: conversations for fine-tuning vision-language models with ms-swift to locate what an expression means.

    <split>.jsonl                       one line per expression; beside the format `jsonl` in swift/<split>.jsonl
    images/train2014/<file_name>        the image files, with --images

ms-swift puts `objects.ref` and `objects.bbox` in place of <ref-object> and <bbox>, one after another, and converts the boxes,
[x1, y1, x2, y2] in pixels, to what each model expects. `images` is relative to the export (ROOT_IMAGE_DIR).
"""

from __future__ import annotations

import json
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
from pseudoris_cli.export.json_stream import dumps

REFERENCES = True
QUESTION = "<image>Locate the <ref-object> in the image"
ANSWER = '\t{"bbox_2d": <bbox>, "label": "<ref-object>"}'


@contextmanager
def open_writer(context: ExportContext, folder: Path) -> Iterator[Write]:
    """Write one file per split."""
    lines = folder / "swift" if "jsonl" in context.formats else folder
    lines.mkdir(parents=True, exist_ok=True)
    pictures = "" if context.images == "none" else f"{image_folder(context)}/"
    with ExitStack() as stack:
        files = BySplit(stack, lambda split: (lines / f"{split}.jsonl").open("w", encoding="ascii", newline="\n"))

        def write(image: ExportImage) -> None:
            if image.references:
                save_image_file(image, context, folder / image_folder(context))
            for reference in image.references:
                for sentence in reference.sentences:
                    record = conversation(sentence.caption, reference.objects, pictures + image.file_name)
                    files[image.split].write(dumps(record) + "\n")

        yield write


def conversation(text: str, objects: tuple[ExportObject, ...], picture: str) -> dict[str, Any]:
    """A question for what `text` means, and the answer with one box an object (an empty list where nothing is meant)."""
    answers = ",\n".join([ANSWER] * len(objects))
    in_json = json.dumps(text, ensure_ascii=False)[1:-1]  # the answer is JSON once it is filled in
    return {
        "messages": [
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": f"[\n{answers}\n]" if objects else "[]"},
        ],
        "images": [picture],
        "objects": {"ref": [text, *[in_json] * len(objects)], "bbox": [corners(obj) for obj in objects]},
    }


def corners(obj: ExportObject) -> list[int]:
    """[x1, y1, x2, y2] in pixels, x2 = x1 + width."""
    x, y, width, height = (int(value) for value in obj.mask.bbox)
    return [x, y, x + width, y + height]
