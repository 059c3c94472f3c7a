"""`coco`: COCO instances with run-length codes, for pycocotools and every detection library.

    annotations/instances_<split>.json; pictures in images/train2014/ with --images

An annotation's `segmentation` is COCO's dict, which `annToMask` decodes. `ref_id` and `captions` are extra fields.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from pseudoris_cli.formats.base import ExportContext, ExportImage, picture_folder, place_picture
from pseudoris_cli.formats.instances import InstancesFile, annotation, describe, image_record


def render(images: Iterable[ExportImage], context: ExportContext, folder: Path) -> None:
    """Write one instances file per split; images without a referred object are left out."""
    files: dict[str, InstancesFile] = {}
    with ExitStack() as stack:
        for image in images:
            if not image.objects:
                continue
            if image.split not in files:
                path = folder / "annotations" / f"instances_{image.split}.json"
                files[image.split] = stack.enter_context(InstancesFile(path, describe(context)))
            place_picture(image, context, folder / picture_folder(context))
            files[image.split].add_image(image_record(image))
            for thing in image.objects:
                rle = thing.mask.rle
                record = {
                    **annotation(image, thing),
                    "segmentation": {"size": [rle.height, rle.width], "counts": rle.counts},
                    "ref_id": thing.ref_id,
                    "captions": [sentence.caption for sentence in thing.sentences],
                }
                files[image.split].add_annotation(record, thing.category[1])
