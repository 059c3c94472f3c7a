"""`etris`: what ETRIS' RefDataset trains on, and Pseudo-RIS' copy of it (which also wants `img_id`; ETRIS ignores it).

    anns/<dataset>/<split>.json        one object per ref, boxes as corners, categories 0..79
    masks/<dataset>/<ref_id>.png       0/255, one folder for all splits
    lmdb/<dataset>/<split>.lmdb        one record per ref with image and mask files, values as pyarrow 11 serialised them
    images/train2014/<file_name>       the image files, with --images; the LMDB holds them in any case

Image files are stored as `codecs.image_upright.portable` returns them: OpenCV, with which ETRIS decodes, shows them
upright, like the masks.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import lmdb

from pseudoris_cli.codecs import pyarrow_serialize
from pseudoris_cli.codecs.mask_png import encode_png
from pseudoris_cli.codecs.refer_tokens import clean
from pseudoris_cli.export.base import (
    BySplit,
    ExportContext,
    ExportImage,
    ExportObject,
    Write,
    image_folder,
    read_image_file,
    save_image_file,
)
from pseudoris_cli.export.json_stream import JsonList

_FIRST_MAP_SIZE = 1 << 26
_BATCH_BYTES = 1 << 25
_UNUSED = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
_COCO_IDS = [number for number in range(1, 91) if number not in _UNUSED]
"""The eighty ids that COCO uses; ETRIS numbers them 0..79 in order."""


@contextmanager
def open_writer(context: ExportContext, folder: Path) -> Iterator[Write]:
    """Write annotations, masks and LMDBs; a split without objects gets no files (an empty LMDB stops ETRIS' scripts)."""
    masks = folder / "masks" / context.dataset
    masks.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        annotations = BySplit(stack, lambda split: JsonList(folder / "anns" / context.dataset / f"{split}.json"))
        records = BySplit(stack, lambda split: RecordFile(folder / "lmdb" / context.dataset / f"{split}.lmdb"))

        def write(image: ExportImage) -> None:
            if not image.objects:
                return
            image_file = read_image_file(image, context)
            save_image_file(image, context, folder / image_folder(context))
            for obj in image.objects:
                mask = encode_png(obj.mask.rle)
                (masks / f"{obj.ref_id}.png").write_bytes(mask)
                annotation = _annotation(image, obj)
                annotations[image.split].append(annotation)
                records[image.split].append(_record(annotation, image_file, mask))

        yield write


def category(coco_id: int) -> int:
    """ETRIS' category of a COCO id, 0..79; a number that COCO does not use passes unchanged, as in ETRIS."""
    return _COCO_IDS.index(coco_id) if coco_id in _COCO_IDS else coco_id


class RecordFile:
    """An LMDB in one file, written in batches; `__keys__` and `__len__` come last. Use as a context manager.

    The map grows with the data, where folder2lmdb.py asks for 2 TiB that some systems refuse.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._environment = lmdb.open(
            str(path), subdir=False, lock=False, sync=False, meminit=True, map_size=_FIRST_MAP_SIZE
        )
        self._batch: list[tuple[bytes, bytes]] = []
        self._bytes = 0
        self._count = 0

    def append(self, record: dict[str, Any]) -> None:
        """Write one more record."""
        value = pyarrow_serialize.encode(record)
        self._batch.append((str(self._count).encode(), value))
        self._count += 1
        self._bytes += len(value)
        if self._bytes >= _BATCH_BYTES:
            self._flush()

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                keys = [str(number).encode() for number in range(self._count)]
                self._batch.append((b"__keys__", pyarrow_serialize.encode(keys)))
                self._batch.append((b"__len__", pyarrow_serialize.encode(self._count)))
                self._flush()
        finally:
            self._environment.close()

    def _flush(self) -> None:
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in self._batch:
                        transaction.put(key, value)
                break
            except lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except lmdb.Error as error:  # LMDB calls a full disk an input/output error
                full = shutil.disk_usage(self._path.parent).free < self._bytes + (1 << 20)
                raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(self._path)) from error
        self._batch, self._bytes = [], 0


def _annotation(image: ExportImage, obj: ExportObject) -> dict[str, Any]:
    """One object of anns/<dataset>/<split>.json, as tools/data_process.py writes it (`img_id` as in Pseudo-RIS)."""
    x, y, width, height = (int(value) for value in obj.mask.bbox)
    return {
        "bbox": [x, y, x + width, y + height],
        "cat": category(obj.category[0]),
        "segment_id": obj.ref_id,
        "img_name": image.file_name,
        "img_id": image.image_id,
        "sentences": [
            {"idx": number, "sent_id": sentence.sent_id, "sent": clean(sentence.caption)[0]}
            for number, sentence in enumerate(obj.sentences)
        ],
        "sentences_num": len(obj.sentences),
    }


def _record(annotation: dict[str, Any], image_file: bytes, mask: bytes) -> dict[str, Any]:
    """One record of the LMDB; the order of the keys is folder2lmdb.py's."""
    return {
        "img": image_file,
        "mask": mask,
        "cat": annotation["cat"],
        "seg_id": annotation["segment_id"],
        "img_name": annotation["img_name"],
        "img_id": annotation["img_id"],
        "num_sents": annotation["sentences_num"],
        "sents": [sentence["sent"] for sentence in annotation["sentences"]],
    }
