"""`refcoco`: the data set that REFER (lichengunc/refer, and ETRIS' and Pseudo-RIS' copies of it) loads.

    <dataset>/instances.json           images, annotations and categories
    <dataset>/refs(<split_by>).p       the refs, a protocol-2 pickle
    <dataset>/refs(<split_by>).json    the same refs for everybody else
    images/train2014/<file_name>       the image files, with --images; images/mscoco/images/train2014 links there

An annotation's `segmentation` is a list of polygons, which every reader knows; with `--segmentation rle` a list with one
run-length encoding, the only run-length form that REFER decodes.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from pseudoris_cli.codecs.refer_tokens import clean
from pseudoris_cli.codecs.safe_pickle import PickleList
from pseudoris_cli.export.base import ExportContext, ExportImage, ExportObject, Write, image_folder, save_image_file
from pseudoris_cli.export.json_stream import InstancesFile, JsonList, annotation, describe, image_record

OPTIONS = ("segmentation",)


log = logging.getLogger("pseudoris")


@contextmanager
def open_writer(context: ExportContext, folder: Path) -> Iterator[Write]:
    """Write REFER's three files; images without a referred object are left out."""
    root = folder / context.dataset
    refs_name = f"refs({context.split_by})"
    images = folder / image_folder(context)
    with (
        PickleList(root / f"{refs_name}.p") as refs_pickle,
        JsonList(root / f"{refs_name}.json") as refs_json,
        InstancesFile(root / "instances.json", describe(context)) as instances,
    ):

        def write(image: ExportImage) -> None:
            if not image.objects:
                return
            instances.add_image(image_record(image))
            save_image_file(image, context, images)
            for obj in image.objects:
                polygons = context.segmentation == "polygon"
                parts = context.polygons.of(image.image_key, obj.mask) if polygons else [obj.mask.rle.to_coco()]
                record = {**annotation(image, obj), "segmentation": parts}
                instances.add_annotation(record, obj.category[1])
                ref = ref_record(image, obj)
                refs_pickle.append(ref)
                refs_json.append(ref)

        yield write
    if images.is_dir() and images.name == "train2014":
        _link_for_original_refer(folder)


def ref_record(image: ExportImage, obj: ExportObject) -> dict[str, Any]:
    """One of REFER's refs."""
    sentences = []
    for sentence in obj.sentences:
        sent, tokens = clean(sentence.caption)
        sentences.append({"tokens": tokens, "raw": sentence.caption, "sent_id": sentence.sent_id, "sent": sent})
    name = PurePosixPath(image.file_name)
    return {
        "sent_ids": [sentence.sent_id for sentence in obj.sentences],
        "file_name": str(name.with_name(f"{name.stem}_{obj.mask.mask_id}{name.suffix}")),
        "ann_id": obj.ann_id,
        "ref_id": obj.ref_id,
        "image_id": image.image_id,
        "split": image.split,
        "sentences": sentences,
        "category_id": obj.category[0],
    }


def _link_for_original_refer(folder: Path) -> None:
    """The original REFER looks below images/mscoco; ETRIS' copy does not."""
    link = folder / "images" / "mscoco" / "images" / "train2014"
    if link.is_symlink():
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        link.symlink_to(Path("..") / ".." / "train2014", target_is_directory=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        for parent in (link.parent, link.parent.parent):
            parent.rmdir()
        log.warning(
            "no symbolic links there (%s): the original REFER, which reads images/mscoco/images/train2014, finds the images in "
            "images/train2014; ETRIS' copy reads them as they are",
            error.strerror,
        )
