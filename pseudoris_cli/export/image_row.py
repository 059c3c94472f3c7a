"""An image and its objects as plain values: the row of `hf`, the JSON beside a picture of `webdataset`, the masks of `jsonl`."""

from __future__ import annotations

from typing import Any

from pseudoris_cli.export.base import ExportImage, ExportObject

FIELDS = ("image_id", "image_key", "file_name", "width", "height")


def mask_values(obj: ExportObject) -> dict[str, Any]:
    """The mask of an object with its category, as every JSON of ours writes it."""
    return {
        "mask_id": obj.mask.mask_id,
        "category_id": obj.category[0],
        "category": obj.category[1],
        "bbox": [int(value) for value in obj.mask.bbox],
        "area": int(obj.mask.area),
        "segmentation": obj.mask.rle.to_coco(),
    }


def image_row(image: ExportImage, judged: bool = False) -> dict[str, Any]:
    """The image's `FIELDS` and its `objects`, without the picture; with the listener's probabilities if there was one."""
    objects = [
        {
            "ref_id": obj.ref_id,
            "ann_id": obj.ann_id,
            **mask_values(obj),
            "sentences": [sentence.caption for sentence in obj.sentences],
            "doc": [sentence.doc for sentence in obj.sentences],
            **({"listener": [sentence.listener for sentence in obj.sentences]} if judged else {}),
        }
        for obj in image.objects
    ]
    return {name: getattr(image, name) for name in FIELDS} | {"objects": objects}
