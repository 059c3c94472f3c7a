"""REFER roots, ETRIS annotations and LMDBs as image sources, on data made by the originals' own scripts."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import locations
import pytest

from pseudoris_cli.errors import UsageError
from pseudoris_cli.sources import detect, etris_anns, etris_lmdb, refer
from pseudoris_cli.sources import registry as sources

FIXTURES = locations.FIXTURES / "formats"
PICTURES = FIXTURES / "refer" / "images" / "train2014"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text())["kinds"]


def _lmdb(kind):
    return FIXTURES / kind / "lmdb" / "refcoco+" / "train.lmdb"


def _open(path, image_root=None, **options):
    return sources.open_source(sources.describe(Path(path), options, image_root))


@pytest.mark.parametrize("kind", ["etris", "pseudo_ris"])
def test_an_lmdb_gives_its_pictures(kind):
    source = _open(_lmdb(kind))
    records = EXPECTED[kind]["train"]["records"]
    images = list(source.images())
    assert [image.key for image in images] == list(dict.fromkeys(record["img_name"] for record in records))
    for image in images:
        record = next(r for r in records if r["img_name"] == image.key)
        assert image.image_id == record.get("img_id", int(Path(image.key).stem[-12:]))
        assert hashlib.sha256(source.read(image.key)).hexdigest() == record["img_sha256"]
        assert source.stamp(image.key).size == _lmdb(kind).stat().st_size
    with pytest.raises(FileNotFoundError):
        source.read("nothing.jpg")


def test_lmdbs_are_shared_by_sources_threads_and_copies():
    first, second = _open(_lmdb("etris")), _open(_lmdb("etris").parent, split="train")
    key = next(iter(first.images())).key
    copy = pickle.loads(pickle.dumps(second))
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(lambda source: source.read(key), [first, second, copy] * 8))
    assert set(pictures) == {(PICTURES / key).read_bytes()}


def test_all_three_kinds_list_the_same_images():
    from_lmdb = list(_open(_lmdb("pseudo_ris")).images())
    assert list(_open(FIXTURES / "refer").images()) == from_lmdb
    assert list(_open(FIXTURES / "refer" / "refcoco+", split_by="unc", split="train").images()) == from_lmdb
    for kind in ("etris", "pseudo_ris"):
        anns = FIXTURES / kind / "anns" / "refcoco+"
        assert list(_open(anns, PICTURES).images()) == from_lmdb
        assert list(_open(anns / "train.json", PICTURES).images()) == from_lmdb
    assert _open(FIXTURES / "refer").read(from_lmdb[0].key) == (PICTURES / from_lmdb[0].key).read_bytes()


def test_refer_splits_and_pictures(tmp_path):
    def count(split):
        return len(list(_open(FIXTURES / "refer", split=split).images()))

    assert count("test") == count("testA") + count("testB")
    assert count("all") == len(list(PICTURES.iterdir()))
    with pytest.raises(UsageError, match="no split 'dev'; it has testA, testB, train, val"):
        count("dev")
    with pytest.raises(UsageError, match="not split by 'umd'; it has unc"):
        _open(FIXTURES / "refer", split_by="umd")
    shutil.copytree(FIXTURES / "refer" / "refcoco+", tmp_path / "refcoco+")
    with pytest.raises(UsageError, match="--image-root"):
        _open(tmp_path)
    assert len(list(_open(tmp_path, PICTURES).images())) == count("train")
    refs = tmp_path / "refcoco+" / "refs(unc).p"
    shutil.copy(refs, refs.with_name("refs(umd).p"))
    with pytest.raises(UsageError, match=r"split by umd, unc; say which: --source-split-by umd"):
        _open(tmp_path, PICTURES)
    assert _open(tmp_path, PICTURES, split_by="umd").split_by == "umd"
    assert _open(refs, PICTURES).split_by == "unc"
    with pytest.raises(UsageError, match="is split by unc, not by 'umd'"):
        _open(refs, PICTURES, split_by="umd")
    shutil.copytree(FIXTURES / "refer" / "refcoco+", tmp_path / "refcocog")
    with pytest.raises(UsageError, match=r"several data sets \(refcoco\+, refcocog\)"):
        _open(tmp_path, PICTURES)


def test_kinds_are_told_apart(tmp_path):
    assert detect.detect(_lmdb("etris")) == detect.detect(_lmdb("etris").parent) == "etris_lmdb"
    assert detect.detect(FIXTURES / "refer") == detect.detect(FIXTURES / "refer" / "refcoco+") == "refer"
    assert detect.detect(FIXTURES / "refer" / "refcoco+" / "instances.json") == "coco"
    assert detect.detect(FIXTURES / "etris" / "anns" / "refcoco+") == "etris_anns"
    assert detect.detect(FIXTURES / "etris" / "anns" / "refcoco+" / "train.json") == "etris_anns"
    assert detect.detect(PICTURES) == "folder"
    (tmp_path / "images.txt").write_text("a.jpg\n")
    assert detect.detect(tmp_path / "images.txt") == "listing"
    shutil.copy(_lmdb("etris"), tmp_path / "unnamed")
    assert detect.detect(tmp_path / "unnamed") == "etris_lmdb"
    with pytest.raises(UsageError, match="single image"):
        detect.detect(next(PICTURES.iterdir()))
    assert detect.detect(FIXTURES / "refer" / "refcoco+" / "refs(unc).p") == "refer"


def test_the_authors_directory_is_known(tmp_path):
    assert detect.authors_source(tmp_path) is None
    (tmp_path / "datasets/images/train2014").mkdir(parents=True)
    assert detect.authors_source(tmp_path) == tmp_path / "datasets/images/train2014"
    (tmp_path / "datasets/lmdb/refcoco+").mkdir(parents=True)
    shutil.copy(_lmdb("pseudo_ris"), tmp_path / "datasets/lmdb/refcoco+")
    assert detect.authors_source(tmp_path) == tmp_path / "datasets/lmdb/refcoco+/train.lmdb"
    assert detect.detect(detect.authors_source(tmp_path)) == "etris_lmdb"


def test_a_moved_lmdb_is_found_by_image_root(tmp_path):
    shutil.copy(_lmdb("etris"), tmp_path / "train.lmdb")
    wanted = list(_open(_lmdb("etris")).images())
    for moved in (tmp_path, tmp_path / "train.lmdb"):
        assert list(etris_lmdb.open_source(Path("/nowhere/train.lmdb"), {}, moved).images()) == wanted


def test_what_was_chosen_is_remembered_and_opens_it_again():
    anns = FIXTURES / "etris/anns/refcoco+"
    for path, options, chosen in [
        (FIXTURES / "refer", {}, {"split": "train", "split_by": "unc"}),
        (FIXTURES / "refer", {"split": "testA"}, {"split": "testA", "split_by": "unc"}),
        (_lmdb("etris"), {}, {}),
        (_lmdb("etris").parent, {}, {"split": "train"}),
        (anns, {"split": "train"}, {"split": "train"}),
        (anns / "train.json", {}, {}),
    ]:
        description = sources.describe(path, options, None if "lmdb" in str(path) else PICTURES)
        assert description["options"] == chosen
        again = sources.describe(path, description["options"], None if "lmdb" in str(path) else PICTURES)
        assert again == description
        assert next(sources.open_source(description).images())


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("etris/lmdb/refcoco+", {"split": "val"}, "no split 'val'; it has train"),
        ("etris/anns/refcoco+", {"split": "../x"}, "no split '../x'; it has train"),
        ("etris/anns/refcoco+/train.json", {"split": "val"}, "--source-split val: .* nothing to choose"),
        ("etris/lmdb/refcoco+/train.lmdb", {"split": "train"}, "--source-split train: .* nothing to choose"),
        ("etris/lmdb/refcoco+", {"split_by": "unc"}, "--source-split-by unc: .* nothing to choose"),
        ("refer/images/train2014", {"split": "train"}, "--source-split train: .*'folder'.* nothing to choose"),
    ],
)
def test_what_cannot_be_chosen_is_said(path, options, message):
    with pytest.raises(UsageError, match=message):
        sources.describe(FIXTURES / path, options, PICTURES if "anns" in path else None)


def test_modules_are_the_kinds():
    for module in (refer, etris_anns, etris_lmdb):
        assert callable(module.open_source)
