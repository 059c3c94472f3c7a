"""`sa-co`: pictures with a phrase each, as SAM 3's evaluation and the SA-Co benchmarks have them.

    annotations/<split>.json            one entry of `images` for each (picture, phrase); its id is that of the phrase's sentence
    images/train2014/<file_name>        the image files, with --images

Boxes and areas are fractions of the picture. A phrase without annotations is a negative: nothing in the picture fits it.
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
from pseudoris_cli.export.json_stream import InstancesFile, describe

REFERENCES = True
CATEGORY = 1, "object"
"""The phrase is the category, so there is one."""


@contextmanager
def open_writer(context: ExportContext, folder: Path) -> Iterator[Write]:
    """Write one file per split."""
    with ExitStack() as stack:
        files = BySplit(stack, lambda split: _Pairs(folder / "annotations" / f"{split}.json", context))

        def write(image: ExportImage) -> None:
            pairs = _pairs(image)
            if pairs:
                save_image_file(image, context, folder / image_folder(context))
            for text, (sent_id, objects) in pairs.items():
                files[image.split].add(image, text, sent_id, objects)

        yield write


def _pairs(image: ExportImage) -> dict[str, tuple[int, list[ExportObject]]]:
    """Phrase -> the id of its first sentence, and every object that it means: a phrase of two objects is one pair."""
    pairs: dict[str, tuple[int, list[ExportObject]]] = {}
    for reference in image.references:
        for sentence in reference.sentences:
            _, objects = pairs.setdefault(sentence.caption, (sentence.sent_id, []))
            objects += [obj for obj in reference.objects if obj not in objects]
    return pairs


class _Pairs(InstancesFile):
    """The file of a split."""

    def __init__(self, path: Path, context: ExportContext) -> None:
        super().__init__(path, describe(context))
        self.name_category(*CATEGORY)
        self._count = 0

    def add(self, image: ExportImage, text: str, sent_id: int, objects: list[ExportObject]) -> None:
        """One phrase of a picture with what it means."""
        self.add_image(
            {
                "id": sent_id,
                "file_name": image.file_name,
                "text_input": text,
                "height": image.height,
                "width": image.width,
                "is_instance_exhaustive": 1,
                "is_pixel_exhaustive": 1,
                "queried_category": str(CATEGORY[0]),
                "image_id": image.image_id,
            }
        )
        for obj in objects:
            self._count += 1
            self.add_annotation(_annotation(image, obj, self._count, sent_id), CATEGORY[1])


def _annotation(image: ExportImage, obj: ExportObject, number: int, sent_id: int) -> dict[str, Any]:
    x, y, width, height = (int(value) for value in obj.mask.bbox)
    return {
        "id": number,
        "image_id": sent_id,
        "bbox": [x / image.width, y / image.height, width / image.width, height / image.height],
        "area": int(obj.mask.area) / (image.width * image.height),
        "segmentation": obj.mask.rle.to_coco(),
        "category_id": CATEGORY[0],
        "iscrowd": 0,
        "source": "pseudoris",
        "ann_id": obj.ann_id,
    }
