"""One image with its objects as plain values: the row of `hf`, and the JSON beside a picture of `webdataset`."""

from __future__ import annotations

from typing import Any

from pseudoris_cli.export.base import ExportImage

FIELDS = ("image_id", "image_key", "file_name", "width", "height")


def image_row(image: ExportImage) -> dict[str, Any]:
    """The image's `FIELDS` and its `objects`, without the picture."""
    objects = [
        {
            "ref_id": obj.ref_id,
            "ann_id": obj.ann_id,
            "mask_id": obj.mask.mask_id,
            "category_id": obj.category[0],
            "category": obj.category[1],
            "bbox": [int(value) for value in obj.mask.bbox],
            "area": int(obj.mask.area),
            "segmentation": obj.mask.rle.to_coco(),
            "sentences": [sentence.caption for sentence in obj.sentences],
            "doc": [sentence.doc for sentence in obj.sentences],
        }
        for obj in image.objects
    ]
    return {name: getattr(image, name) for name in FIELDS} | {"objects": objects}
