"""Other people's data through the real command: every kind of source, its choices and refusals, real categories to every format."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import locations
import numpy as np
import pyarrow.parquet as pq
import pytest
from invoking import Outcome, invoke, rows_of
from PIL import Image

from pseudoris_cli.codecs.coco_segmentation import read_mask
from pseudoris_cli.dataset import PseudoRISDataset
from pseudoris_cli.export import base
from pseudoris_cli.export.read_back import read_refer
from pseudoris_cli.rle import decode_rle

pytestmark = pytest.mark.timeout(300)
FIXTURES = locations.FIXTURES / "formats"
PICTURES = FIXTURES / "refer" / "images" / "train2014"
INSTANCES = FIXTURES / "refer" / "refcoco+" / "instances.json"
OWN_MASKS = ("--set", "masks.proposals.backend=coco_masks", "--set", f"masks.proposals.path={INSTANCES}")
"""REFER's own annotations as masks: no network runs, and every mask has one of COCO's categories."""
SMALL = ("--config", "configs/random.yaml", "--device", "cpu")


def masks(work: Path, *more: str | Path) -> Outcome:
    return invoke("masks", "--work", work, "--device", "cpu", *OWN_MASKS, *more)


def keys(work: Path) -> set[str]:
    return {row["image_key"] for row in rows_of(work, "masks")}


# --- in -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("refer", ()),
        ("refer/refcoco+", ("--source-split", "train", "--source-split-by", "unc")),
        ("refer/refcoco+/refs(unc).p", ()),
        ("etris/anns/refcoco+", ("--image-root", PICTURES)),
        ("pseudo_ris/anns/refcoco+/train.json", ("--image-root", PICTURES)),
        ("etris/lmdb/refcoco+", ()),
        ("etris/lmdb/refcoco+/train.lmdb", ()),
        ("pseudo_ris/lmdb/refcoco+/train.lmdb", ()),
    ],
)
def test_every_kind_of_source_gives_the_same_masks(path: str, more: tuple[Any, ...], tmp_path: Path) -> None:
    done = masks(tmp_path / "work", "--images", FIXTURES / path, *more)
    assert done.code == 0, done.stderr
    expected = json.loads((FIXTURES / "expected.json").read_text())["kinds"]["etris"]["train"]["records"]
    assert keys(tmp_path / "work") == {record["img_name"] for record in expected}
    assert masks(tmp_path / "work").stdout.count("nothing to do") == 1


def test_a_split_is_chosen_once_and_remembered(tmp_path: Path) -> None:
    first = masks(tmp_path / "work", "--images", FIXTURES / "refer", "--source-split", "testA")
    assert first.code == 0, first.stderr
    source = json.loads((tmp_path / "work" / "source.json").read_text())
    assert source["options"] == {"split": "testA", "split_by": "unc"}
    again = masks(tmp_path / "work", "--images", FIXTURES / "refer", "--source-split", "testA")
    assert "nothing to do" in again.stdout
    assert "nothing to do" in masks(tmp_path / "work", "--images", FIXTURES / "refer").stdout
    other = masks(tmp_path / "work", "--source-split", "val")
    assert (other.code, "--source-split testA, not to 'val'" in other.stderr) == (2, True)
    refs = pickle.loads((FIXTURES / "refer/refcoco+/refs(unc).p").read_bytes(), encoding="latin1")
    names = {image["id"]: image["file_name"] for image in json.loads(INSTANCES.read_text())["images"]}
    assert keys(tmp_path / "work") == {names[ref["image_id"]] for ref in refs if ref["split"] == "testA"}


@pytest.mark.parametrize(
    ("path", "more", "says"),
    [
        ("refer", ("--source-split", "dev"), "has no split 'dev'; it has testA, testB, train, val"),
        ("refer", ("--source-split-by", "umd"), "is not split by 'umd'; it has unc"),
        ("etris/lmdb/refcoco+", ("--source-split", "val"), "has no split 'val'; it has train"),
        ("refer/images/train2014", ("--source-split", "val"), "nothing to choose"),
    ],
)
def test_a_choice_that_is_not_there_is_answered_with_those_that_are(
    path: str, more: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    done = masks(tmp_path / "work", "--images", FIXTURES / path, *more)
    assert (done.code, done.stdout) == (2, "")
    assert says in done.stderr
    assert not (tmp_path / "work" / "source.json").exists()


def test_the_authors_lmdb_is_found_without_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is what `pseudoris masks --gpu 0` takes in their directory."""
    shutil.copytree(PICTURES, tmp_path / "datasets/images/train2014")
    shutil.copytree(FIXTURES / "pseudo_ris/lmdb", tmp_path / "datasets/lmdb")
    monkeypatch.chdir(tmp_path)
    done = invoke("masks", "--device", "cpu", *OWN_MASKS)
    assert (done.code, "laid out like the authors'" in done.stderr) == (0, True)
    source = json.loads((tmp_path / "pseudoris-work/source.json").read_text())
    assert source["root"] == str(tmp_path / "datasets/lmdb/refcoco+/train.lmdb")
    assert len(keys(tmp_path / "pseudoris-work")) == 7


# --- out ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """REFER's train split with REFER's masks, captioned and filtered by random networks, in every format."""
    folder = tmp_path_factory.mktemp("foreign")
    done = masks(folder / "work", "--images", FIXTURES / "refer", "--limit", "5", "--set", "source.part_size=2")
    assert done.code == 0, done.stderr
    for command in (("captions",), ("filter", "--set", "filter.fallback=best")):
        done = invoke(*command, "--work", folder / "work", *SMALL)
        assert done.code == 0, done.stderr
    done = export(folder, "out", *(word for name in base.format_names() for word in ("--format", name)))
    assert done.code == 0, done.stderr
    return folder


def export(folder: Path, out: str, *more: str) -> Outcome:
    return invoke("export", "--work", folder / "work", "--out", folder / out, "--split", "train=.5,val=.5", *more)


def annotated() -> dict[tuple[str, str], dict[str, Any]]:
    """(file name, run lengths) -> REFER's annotation."""
    data = json.loads(INSTANCES.read_text())
    images = {image["id"]: image for image in data["images"]}
    found = {}
    for annotation in data["annotations"]:
        image = images[annotation["image_id"]]
        rle = read_mask(annotation["segmentation"], image["height"], image["width"])
        found[image["file_name"], rle.counts] = annotation
    return found


def test_categories_come_through_every_format(place: Path) -> None:
    """COCO's ids in all formats, 0..79 in ETRIS' as its own scripts map them."""
    out, known = place / "out", annotated()
    names = {one["id"]: one["name"] for one in json.loads(INSTANCES.read_text())["categories"]}
    lines = [json.loads(line) for split in ("train", "val") for line in (out / f"{split}.jsonl").open()]
    wanted = {line["ref_id"]: known[line["file_name"], line["segmentation"]["counts"]]["category_id"] for line in lines}
    assert len(set(wanted.values())) >= 5
    assert {line["ref_id"]: (line["category_id"], line["category"]) for line in lines} == {
        ref_id: (category, names[category]) for ref_id, category in wanted.items()
    }
    instances = json.loads((out / "refcoco/instances.json").read_text())
    by_ann = {one["id"]: one["category_id"] for one in instances["annotations"]}
    refs = json.loads((out / "refcoco/refs(pseudo).json").read_text())
    assert {ref["ref_id"]: ref["category_id"] for ref in refs} == wanted
    assert {ref["ref_id"]: by_ann[ref["ann_id"]] for ref in refs} == wanted
    assert {one["id"]: one["name"] for one in instances["categories"]} == {i: names[i] for i in set(wanted.values())}
    coco = [
        one for path in out.glob("annotations/instances_*.json") for one in json.loads(path.read_text())["annotations"]
    ]
    assert {one["ref_id"]: one["category_id"] for one in coco} == wanted
    rows = [row for path in out.glob("data/*.parquet") for row in pq.read_table(path)["objects"].to_pylist()]
    assert {one["ref_id"]: (one["category_id"], one["category"]) for row in rows for one in row} == {
        ref_id: (category, names[category]) for ref_id, category in wanted.items()
    }
    mapped = {annotation["id"]: annotation["category_id"] for annotation in known.values()}
    etris_of = {mapped[ref["ann_id"]]: cat for ref, cat in originals_categories()}
    anns = [one for path in out.glob("anns/refcoco/*.json") for one in json.loads(path.read_text())]
    assert {one["segment_id"] for one in anns} == set(wanted)
    compared = Counter(
        etris_of[wanted[one["segment_id"]]] == one["cat"] for one in anns if wanted[one["segment_id"]] in etris_of
    )
    assert compared[False] == 0
    assert compared[True] > 10


def originals_categories() -> list[tuple[dict[str, Any], int]]:
    """REFER's refs of the train split with the category that the originals' scripts gave them."""
    refs = pickle.loads((FIXTURES / "refer/refcoco+/refs(unc).p").read_bytes(), encoding="latin1")
    records = json.loads((FIXTURES / "expected.json").read_text())["kinds"]["etris"]["train"]["records"]
    cats = {record["seg_id"]: record["cat"] for record in records}
    return [(ref, cats[ref["ref_id"]]) for ref in refs if ref["ref_id"] in cats]


def test_masks_boxes_and_captions_read_back_as_they_were_made(place: Path) -> None:
    made = {(row["image_key"], row["mask_id"]): row for row in rows_of(place / "work", "masks")}
    index: dict[int, list[Any]] = {}
    for row in rows_of(place / "work", "export"):
        index.setdefault(row["ref_id"], [made[row["image_key"], row["mask_id"]], row["split"], []])[2].append(
            row["caption"]
        )
    seen = 0
    for split in ("train", "val"):
        jsonl = PseudoRISDataset(place / "out" / f"{split}.jsonl", per="mask", image_root=PICTURES)
        refer = list(read_refer(place / "out/refcoco", "pseudo", split))
        assert len(jsonl) == len(refer)
        for item, ref in zip(jsonl, refer, strict=True):
            row, wanted_split, captions = index[ref.ref_id]
            assert (split, ref.rle.counts, list(ref.captions)) == (wanted_split, row["rle_counts"], captions)
            assert item["caption"] in captions
            np.testing.assert_array_equal(item["mask"].numpy(), decode_rle(ref.rle))
            ys, xs = np.nonzero(item["mask"].numpy())
            box = [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]
            assert box == [int(value) for value in row["bbox"]]
            png = place / "out/masks/refcoco" / f"{ref.ref_id}.png"
            np.testing.assert_array_equal(np.asarray(Image.open(png)) > 0, item["mask"].numpy())
            seen += 1
    assert seen == len(index) > 10


def test_ids_splits_and_pictures_stay_under_growth(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "grown")
    grown = tmp_path / "grown"
    before = json.loads((grown / "out/refcoco/refs(pseudo).json").read_text())
    for command in (
        ("masks", *OWN_MASKS, "--device", "cpu"),
        ("captions", *SMALL),
        ("filter", "--set", "filter.fallback=best", *SMALL),
    ):
        done = invoke(*command, "--work", grown / "work", "--set", "source.part_size=2")
        assert done.code == 0, done.stderr
    done = export(grown, "out", "--format", "refcoco", "--images", "copy")
    assert done.code == 0, done.stderr
    after = json.loads((grown / "out/refcoco/refs(pseudo).json").read_text())
    assert len(after) > len(before)
    assert after[: len(before)] == before
    for image in json.loads((grown / "out/refcoco/instances.json").read_text())["images"]:
        copied = grown / "out/images/train2014" / image["file_name"]
        assert copied.read_bytes() == (PICTURES / image["file_name"]).read_bytes()
    assert not (grown / "out/anns").exists(), "an export is whole: formats that were not asked for are gone"


def test_max_captions_links_and_refusals(place: Path) -> None:
    done = export(place, "few", "--format", "jsonl", "--max-captions", "1", "--images", "link")
    assert done.code == 0, done.stderr
    lines = [json.loads(line) for path in (place / "few").glob("*.jsonl") for line in path.open()]
    whole = [json.loads(line) for split in ("train", "val") for line in (place / "out" / f"{split}.jsonl").open()]
    first = {line["ref_id"]: line["sentences"][:1] for line in whole}
    assert {line["ref_id"]: line["sentences"] for line in lines} == first
    link = place / "few/images/train2014" / lines[0]["file_name"]
    assert link.is_symlink()
    assert link.resolve() == (PICTURES / lines[0]["file_name"]).resolve()
    assert export(place, "few", "--format", "jsonl", "--images", "move").code == 2
    assert export(place, "few", "--format", "jsonl", "--split", "dev=1").code == 2
    (place / "mine").mkdir()
    (place / "mine/notes.txt").write_text("precious")
    refused = export(place, "mine", "--format", "jsonl")
    assert (refused.code, "was not made by pseudoris" in refused.stderr) == (2, True)
    assert export(place, "mine", "--format", "jsonl", "--overwrite").code == 0
    assert not (place / "mine/notes.txt").exists()
