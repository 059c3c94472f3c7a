"""The etris export: LMDB values, annotations and mask files as ETRIS' loader takes them."""

from __future__ import annotations

import errno
import json
import resource
from types import SimpleNamespace

import lmdb
import numpy as np
import pytest
from PIL import Image

from pseudoris_cli.codecs.pyarrow_serialize import decode
from pseudoris_cli.codecs.refer_tokens import clean
from pseudoris_cli.export import base
from pseudoris_cli.export.formats import etris
from pseudoris_cli.rle import decode_rle
from pseudoris_cli.sources import etris_anns, etris_lmdb


def _records(path):
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as environment, environment.begin() as data:
        keys = decode(data.get(b"__keys__"))
        assert decode(data.get(b"__len__")) == len(keys) == data.stat()["entries"] - 2
        assert keys == [str(number).encode() for number in range(len(keys))]
        return [decode(data.get(key)) for key in keys]


def test_records_annotations_and_masks_agree(images, context, tmp_path):
    base.write_formats([etris], iter(images), context, tmp_path)
    for split in ("train", "val"):
        records = _records(tmp_path / "lmdb" / "refcoco" / f"{split}.lmdb")
        annotations = json.loads((tmp_path / "anns" / "refcoco" / f"{split}.json").read_text())
        pairs = [(image, obj) for image in images if image.split == split for obj in image.objects]
        assert len(records) == len(annotations) == len(pairs) > 0
        for record, annotation, (image, obj) in zip(records, annotations, pairs, strict=True):
            assert list(record) == ["img", "mask", "cat", "seg_id", "img_name", "img_id", "num_sents", "sents"]
            assert record["img"] == context.read_image(image.image_key)
            assert record["mask"] == (tmp_path / "masks" / "refcoco" / f"{obj.ref_id}.png").read_bytes()
            assert (record["cat"], record["seg_id"], record["img_id"]) == (0, obj.ref_id, image.image_id)
            assert record["sents"] == [clean(sentence.caption)[0] for sentence in obj.sentences]
            assert record["num_sents"] == len(record["sents"]) == annotation["sentences_num"]
            assert [s["sent"] for s in annotation["sentences"]] == record["sents"]
            assert [s["sent_id"] for s in annotation["sentences"]] == [s.sent_id for s in obj.sentences]
            mask = decode_rle(obj.mask.rle)
            ys, xs = np.nonzero(mask)
            assert annotation["bbox"] == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            with Image.open(tmp_path / "masks" / "refcoco" / f"{obj.ref_id}.png") as file:
                assert file.mode == "L"
                np.testing.assert_array_equal(np.asarray(file), mask * np.uint8(255))
    assert not list(tmp_path.rglob("*lock*"))


def test_our_own_sources_read_it(images, context, tmp_path):
    base.write_formats([etris], iter(images), context, tmp_path)
    wanted = [(i.file_name, i.image_id) for i in images if i.split == "train" and i.objects]
    source = etris_lmdb.open_source(tmp_path / "lmdb" / "refcoco", {}, None)
    assert [(image.key, image.image_id) for image in source.images()] == wanted
    assert source.read(wanted[0][0]) == context.read_image(images[0].image_key)
    anns = etris_anns.open_source(tmp_path / "anns" / "refcoco", {}, tmp_path)
    assert [(image.key, image.image_id) for image in anns.images()] == wanted


def test_same_input_same_bytes(images, context, tmp_path, folder_bytes):
    for name in ("a", "b"):
        base.write_formats([etris], iter(images), context, tmp_path / name)
    assert folder_bytes(tmp_path / "a") == folder_bytes(tmp_path / "b")


def test_the_map_grows_with_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(etris, "_FIRST_MAP_SIZE", 1 << 16)
    monkeypatch.setattr(etris, "_BATCH_BYTES", 1 << 14)
    with etris.RecordFile(tmp_path / "x.lmdb") as file:
        for number in range(200):
            file.append({"img": bytes([number]) * 9000, "sents": [str(number)]})
    assert [record["img"][0] for record in _records(tmp_path / "x.lmdb")] == list(range(200))


def test_categories_are_etris_own():
    coco = [
        *range(1, 12),
        *range(13, 26),
        27,
        28,
        *range(31, 45),
        *range(46, 66),
        67,
        70,
        *range(72, 83),
        *range(84, 91),
    ]
    assert [etris.category(number) for number in coco] == list(range(80))
    assert [etris.category(n) for n in (0, 12, 26, 91, 500)] == [0, 12, 26, 91, 500]


@pytest.mark.parametrize("kind", ["empty", "val only"])
def test_a_split_without_objects_has_no_files(kind, images, context, tmp_path):
    chosen = [] if kind == "empty" else [image for image in images if image.split == "val"]
    base.write_formats([etris], iter(chosen), context, tmp_path)
    assert not list(tmp_path.rglob("train*"))


@pytest.mark.parametrize(("free", "number"), [(0, errno.ENOSPC), (1 << 40, errno.EIO)])
def test_a_write_that_fails_is_the_operating_system_s_error(free, number, tmp_path, monkeypatch):
    """LMDB raises an error of its own; nobody above knows it."""
    monkeypatch.setattr(etris.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    monkeypatch.setattr(etris, "_BATCH_BYTES", 1 << 14)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write():
        with etris.RecordFile(tmp_path / "x.lmdb") as file:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
            for _ in range(100):
                file.append({"img": bytes(9000), "sents": ["a"]})

    try:
        with pytest.raises(OSError, match=r"x\.lmdb") as raised:
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert raised.value.errno == number
