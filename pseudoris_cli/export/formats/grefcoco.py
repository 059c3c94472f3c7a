"""`grefcoco`: the data set that ReLA's G_REFER loads: expressions for one object, for several, and for none.

    grefcoco/grefs(<split_by>).json    the refs; `ann_id` is a list, [-1] where nothing is meant
    grefcoco/instances.json            images, annotations (polygons) and categories
    images/train2014/<file_name>       the image files, with --images

The folder's name is fixed, as in the reader. Its own `split_by` is `unc`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pseudoris_cli.codecs.refer_tokens import clean
from pseudoris_cli.export.base import ExportContext, ExportImage, ExportReference, Write, save_image_file
from pseudoris_cli.export.json_stream import InstancesFile, JsonList, annotation, describe, image_record

REFERENCES = True
NOTHING = -1
"""The annotation, and the category, of a ref without target."""


@contextmanager
def open_writer(context: ExportContext, folder: Path) -> Iterator[Write]:
    """Write G_REFER's two files; images without a reference are left out."""
    root = folder / "grefcoco"
    with (
        JsonList(root / f"grefs({context.split_by}).json") as refs,
        InstancesFile(root / "instances.json", describe(context)) as instances,
    ):

        def write(image: ExportImage) -> None:
            if not (references := image.references):
                return
            instances.add_image(image_record(image))
            save_image_file(image, context, folder / "images" / "train2014")
            for obj in image.targets:
                polygons = context.polygons.of(image.image_key, obj.mask)
                instances.add_annotation({**annotation(image, obj), "segmentation": polygons}, obj.category[1])
            for reference in references:
                refs.append(_ref(image, reference))

        yield write


def _ref(image: ExportImage, reference: ExportReference) -> dict[str, Any]:
    """One of G_REFER's refs."""
    sentences = []
    for sentence in reference.sentences:
        sent, tokens = clean(sentence.caption)
        sentences.append({"raw": sentence.caption, "sent": sent, "sent_id": sentence.sent_id, "tokens": tokens})
    categories = list(dict.fromkeys(obj.category[0] for obj in reference.objects)) or [NOTHING]
    return {
        "ref_id": reference.ref_id,
        "image_id": image.image_id,
        "split": image.split,
        "ann_id": [obj.ann_id for obj in reference.objects] or [NOTHING],
        "category_id": categories[0] if len(categories) == 1 else categories,
        "sentences": sentences,
        "sent_ids": [sentence.sent_id for sentence in reference.sentences],
    }
