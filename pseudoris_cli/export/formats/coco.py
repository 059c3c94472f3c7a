"""`coco`: COCO instances with run-length codes, for pycocotools and every detection library.

    annotations/instances_<split>.json; pictures in images/train2014/ with --images

An annotation's `segmentation` is COCO's dict, which `annToMask` decodes. `ref_id` and `captions` are extra fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pseudoris_cli.export.base import BySplit, ExportContext, ExportImage, Write, picture_folder, place_picture
from pseudoris_cli.export.json_stream import InstancesFile, annotation, describe, image_record


@contextmanager
def open_writer(context: ExportContext, folder: Path) -> Iterator[Write]:
    """Write one instances file per split; images without a referred object are left out."""

    def instances_file(split: str) -> InstancesFile:
        return InstancesFile(folder / "annotations" / f"instances_{split}.json", describe(context))

    with ExitStack() as stack:
        files = BySplit(stack, instances_file)

        def write(image: ExportImage) -> None:
            if not image.objects:
                return
            place_picture(image, context, folder / picture_folder(context))
            files[image.split].add_image(image_record(image))
            for thing in image.objects:
                record = {
                    **annotation(image, thing),
                    "segmentation": thing.mask.rle.to_coco(),
                    "ref_id": thing.ref_id,
                    "captions": [sentence.caption for sentence in thing.sentences],
                }
                files[image.split].add_annotation(record, thing.category[1])

        yield write
