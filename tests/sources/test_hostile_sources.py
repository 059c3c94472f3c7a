"""Metadata made to harm: clear errors, nothing executed, no file outside the root, no crash."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import lmdb
import locations
import pytest

from pseudoris_cli.codecs import pyarrow_serialize
from pseudoris_cli.errors import UsageError
from pseudoris_cli.sources import registry as sources

FIXTURES = locations.FIXTURES / "formats"
TRAIN = FIXTURES / "etris" / "lmdb" / "refcoco+" / "train.lmdb"
HOSTILE_NAMES = [
    "../../etc/passwd",
    "/etc/passwd",
    "a/../../b.jpg",
    "..\\b.jpg",
    "",
    "a\0b.jpg",
    7,
    None,
    ["a.jpg"],
    "\ud800.jpg",
]
ABSURD_IDS = [-1, 1 << 63, 1.5, True, "9", [9]]


class _Call:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def _listed(path, image_root, **options):
    return list(sources.open_source(sources.describe(path, options, image_root)).images())


def _refer(folder, refs, images):
    (folder / "refcoco").mkdir(parents=True)
    (folder / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs, 2))
    (folder / "refcoco" / "instances.json").write_text(json.dumps({"images": images}))
    return folder


def _database(path, values):
    with (
        lmdb.open(str(path), subdir=False, map_size=1 << 22, lock=False) as environment,
        environment.begin(write=True) as out,
    ):
        for key, value in values.items():
            out.put(key, value)
    return path


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_do_not_leave_the_root(name, tmp_path):
    root = _refer(tmp_path / "refer", [{"image_id": 1, "split": "train"}], [{"id": 1, "file_name": name}])
    with pytest.raises(UsageError, match="image name"):
        _listed(root, tmp_path)
    (tmp_path / "train.json").write_text(json.dumps([{"img_name": name}]))
    with pytest.raises(UsageError, match="image name"):
        _listed(tmp_path / "train.json", tmp_path)
    if name is None or isinstance(name, (int, list)) or name.isprintable():
        record = pyarrow_serialize.encode({"img": b"x", "img_name": name})
        _database(tmp_path / "x.lmdb", {b"0": record, b"__keys__": pyarrow_serialize.encode([b"0"])})
        with pytest.raises(UsageError, match="image name"):
            _listed(tmp_path / "x.lmdb", None)


@pytest.mark.parametrize("image_id", ABSURD_IDS)
def test_absurd_ids_are_named(image_id, tmp_path):
    (tmp_path / "train.json").write_text(json.dumps([{"img_name": "a.jpg", "img_id": image_id}]))
    with pytest.raises(UsageError, match="object 0: the image id"):
        _listed(tmp_path / "train.json", tmp_path)
    root = _refer(
        tmp_path / "refer", [{"image_id": image_id, "split": "train"}], [{"id": image_id, "file_name": "a.jpg"}]
    )
    with pytest.raises(UsageError, match=r"id"):
        _listed(root, tmp_path)


@pytest.mark.parametrize(
    ("refs", "images", "message"),
    [
        ({}, [], "no list of refs"),
        ([[]], [], "ref 0: has no image_id"),
        ([{"image_id": 1}], [], "ref 0: has no image_id or no split"),
        ([{"image_id": 1, "split": "train"}], [], "not in instances.json"),
        ([], [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "stands for two files"),
        ([], {"id": 1}, "no list of images"),
        ([], ["a"], "image 0: has no id"),
        (
            [{"image_id": 1, "split": "train"}, {"image_id": 2, "split": "train"}],
            [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}],
            "a has the ids 1 and 2",
        ),
        ([_Call()], [], "code"),
    ],
)
def test_broken_refer_roots_are_explained(refs, images, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        _listed(_refer(tmp_path / "refer", refs, images), tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "text", ["[", "{}", "[1]", "[{}]", "[" * 5000, '[{"img_name": "a", "bbox": [NaN, 1e999]}, 2]', "\xff"]
)
def test_broken_annotations_are_explained(text, tmp_path):
    (tmp_path / "anns").mkdir()
    (tmp_path / "anns" / "train.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"train\.json"):
        _listed(tmp_path / "anns" / "train.json", tmp_path, split="train")


def test_unread_fields_may_be_absurd(tmp_path):
    text = '[{"img_name": "a.jpg", "bbox": [NaN, Infinity], "img_name": "b.jpg", "sentences": 1e999}]'
    (tmp_path / "train.json").write_text(text)
    assert [image.key for image in _listed(tmp_path / "train.json", tmp_path)] == ["b.jpg"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "no __keys__"),
        ({b"__keys__": pickle.dumps([b"0"])}, "__keys__"),
        ({b"__keys__": pyarrow_serialize.encode({"a": 1})}, "not a list of keys"),
        ({b"__keys__": pyarrow_serialize.encode([b""])}, "not a list of keys"),
        ({b"__keys__": pyarrow_serialize.encode([b"0"])}, "listed in __keys__ but missing"),
        ({b"__keys__": pyarrow_serialize.encode([b"0"]), b"0": pickle.dumps(_Call())}, "record 0"),
        ({b"__keys__": pyarrow_serialize.encode([b"0"]), b"0": b""}, "record 0: too short"),
        (
            {b"__keys__": pyarrow_serialize.encode([b"0"]), b"0": pyarrow_serialize.encode({"img": b"x"})},
            "record 0: has no img_name",
        ),
        (
            {b"__keys__": pyarrow_serialize.encode([b"0"]), b"0": pyarrow_serialize.encode(5)},
            "record 0: has no img_name",
        ),
    ],
)
def test_broken_lmdbs_are_explained(values, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _database(tmp_path / "x.lmdb", values)
    with pytest.raises(UsageError, match=message):
        _listed(tmp_path / "x.lmdb", None)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("keep", [0, 100, 4096, 8192, 100_000])
def test_lmdbs_cut_short_are_refused(keep, tmp_path):
    (tmp_path / "cut.lmdb").write_bytes(TRAIN.read_bytes()[:keep])
    with pytest.raises(UsageError, match=r"cut\.lmdb"):
        _listed(tmp_path / "cut.lmdb", None)


def test_a_record_without_picture_is_one_image_s_failure(tmp_path):
    values = {
        b"__keys__": pyarrow_serialize.encode([b"0"]),
        b"0": pyarrow_serialize.encode({"img": "text", "img_name": "a.jpg"}),
    }
    source = sources.open_source(sources.describe(_database(tmp_path / "x.lmdb", values), {}, None))
    assert [image.key for image in source.images()] == ["a.jpg"]
    with pytest.raises(OSError, match="holds no image"):
        source.read("a.jpg")


def test_a_vanished_lmdb_is_gone(tmp_path):
    shutil.copy(TRAIN, tmp_path / "x.lmdb")
    source = sources.open_source(sources.describe(tmp_path / "x.lmdb", {}, None))
    (tmp_path / "x.lmdb").unlink()
    assert source.stamp("a.jpg") is None
    with pytest.raises(UsageError, match="no LMDB"):
        next(source.images())
