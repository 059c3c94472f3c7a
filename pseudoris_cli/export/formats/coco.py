"""`coco`: COCO instances with run-length encodings, for pycocotools and every detection library.

    annotations/instances_<split>.json; image files in images/train2014/ with --images

An annotation's `segmentation` is COCO's dict, which `annToMask` decodes. `ref_id` and `captions` are extra fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pseudoris_cli.export.base import BySplit, ExportContext, ExportImage, Write, image_folder, save_image_file
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
            save_image_file(image, context, folder / image_folder(context))
            files[image.split].add_image(image_record(image))
            for obj in image.objects:
                record = {
                    **annotation(image, obj),
                    "segmentation": obj.mask.rle.to_coco(),
                    "ref_id": obj.ref_id,
                    "captions": [sentence.caption for sentence in obj.sentences],
                }
                files[image.split].add_annotation(record, obj.category[1])

        yield write
