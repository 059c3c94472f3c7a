"""coco, hf and jsonl exports read back; what holds for every format: discovery, streaming, equal bytes, shared folders."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from pseudoris_cli.errors import UsageError
from pseudoris_cli.export import base
from pseudoris_cli.export.formats import coco, etris, hf, jsonl
from pseudoris_cli.rle import decode_rle


def test_coco_masks_come_back(images, context, tmp_path, capsys):
    base.write_formats([coco], iter(images), context, tmp_path)
    seen = 0
    for split in ("train", "val"):
        loaded = COCO(str(tmp_path / "annotations" / f"instances_{split}.json"))
        for image in images:
            for obj in image.objects if image.split == split else ():
                annotation = loaded.anns[obj.ann_id]
                np.testing.assert_array_equal(loaded.annToMask(annotation), decode_rle(obj.mask.rle))
                assert annotation["captions"] == [sentence.caption for sentence in obj.sentences]
                assert loaded.imgs[annotation["image_id"]]["file_name"] == image.file_name
                assert annotation["area"] == obj.mask.area
                seen += 1
    assert seen == sum(len(image.objects) for image in images)


def test_jsonl_lines_are_complete(images, context, tmp_path):
    base.write_formats([jsonl], iter(images), context, tmp_path)
    lines = [json.loads(line) for split in ("train", "val") for line in (tmp_path / f"{split}.jsonl").open()]
    by_ref = {line["ref_id"]: line for line in lines}
    for image in images:
        for obj in image.objects:
            line = by_ref.pop(obj.ref_id)
            np.testing.assert_array_equal(coco_mask.decode(line["segmentation"]).astype(bool), decode_rle(obj.mask.rle))
            assert [s["caption"] for s in line["sentences"]] == [s.caption for s in obj.sentences]
            assert [s["doc"] for s in line["sentences"]] == [s.doc for s in obj.sentences]
            assert (line["image_id"], line["file_name"], line["split"]) == (
                image.image_id,
                image.file_name,
                image.split,
            )
    assert not by_ref


@pytest.mark.parametrize("mode", ["copy", "link", "none"])
def test_hf_rows_pictures_and_card(mode, images, context, tmp_path):
    context = replace(context, images=mode, locate_image=lambda key: tmp_path / key)
    base.write_formats([hf], iter(images), context, tmp_path / "out")
    rows = [row for path in sorted((tmp_path / "out/data").iterdir()) for row in pq.read_table(path).to_pylist()]
    by_key = {row["image_key"]: row for row in rows}
    referred = [image for image in images if image.objects]
    assert set(by_key) == {image.image_key for image in referred}
    for image in referred:
        row = by_key[image.image_key]
        for got, obj in zip(row["objects"], image.objects, strict=True):
            np.testing.assert_array_equal(coco_mask.decode(got["segmentation"]).astype(bool), decode_rle(obj.mask.rle))
            assert got["sentences"] == [sentence.caption for sentence in obj.sentences]
            assert got["bbox"] == list(obj.mask.bbox)
        if mode == "copy":
            assert row["image"] == {"bytes": context.read_image(image.image_key), "path": image.file_name}
        elif mode == "link":
            assert row["image"] == {"bytes": None, "path": str((tmp_path / image.image_key).resolve())}
        else:
            assert "image" not in row
    card = (tmp_path / "out/README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    splits = {item["split"]: item["path"] for item in header["configs"][0]["data_files"]}
    for split, pattern in splits.items():
        count = sum(image.split == split for image in referred)
        assert sum(len(pq.read_table(path)) for path in (tmp_path / "out").glob(pattern)) == count
        masks = [obj for image in referred if image.split == split for obj in image.objects]
        assert f"| {split} | {count} | {len(masks)} | {sum(len(obj.sentences) for obj in masks)} |" in card
    assert "| masks.sam | sam vit_h | sam_vit_h | Apache-2.0 |  |\n" in card
    assert "digest: a7bf" in card


def test_hf_files_are_bounded(images, context, tmp_path, monkeypatch):
    monkeypatch.setattr(hf, "_GROUP_ROWS", 2)
    monkeypatch.setattr(hf, "_SHARD_BYTES", 1)
    base.write_formats([hf], iter(images), context, tmp_path)
    files = sorted((tmp_path / "data").glob("train-*.parquet"))
    assert [len(pq.read_table(path)) for path in files] == [2, 2, 2]


def test_every_file_of_the_folder_is_a_format():
    names = base.format_names()
    ours = ["coco", "etris", "grefcoco", "hf", "jsonl", "refcoco", "reference-csv", "sa-co", "sa2va"]
    assert names == [*ours, "swift", "tao", "webdataset"]
    assert [name for name in names if base.wants_references([base.load_format(name)])] == [
        "grefcoco",
        "sa-co",
        "swift",
        "tao",
    ]
    assert [name for name in names if base.wants_candidates([base.load_format(name)])] == ["reference-csv"]
    with pytest.raises(UsageError, match="choose from coco, etris"):
        base.load_format("../evil")


@pytest.mark.parametrize("name", base.format_names())
def test_no_format_depends_on_anything_but_its_input(name, images, context, tmp_path, folder_bytes):
    """Equal bytes from one pass over an iterator, wherever the folder is."""
    context = replace(context, images="copy")
    renderer = base.load_format(name)
    for folder in ("a", "deeper/b"):
        (tmp_path / folder).mkdir(parents=True)
        base.write_formats([renderer], iter(images), context, tmp_path / folder)
    first = folder_bytes(tmp_path / "a")
    assert first == folder_bytes(tmp_path / "deeper/b")
    assert first


def test_all_formats_share_a_folder_and_one_pass(images, context, tmp_path, folder_bytes):
    context = replace(context, images="copy")
    alone: dict[str, bytes] = {}
    for name in base.format_names():
        (tmp_path / name).mkdir()
        base.write_formats([base.load_format(name)], iter(images), context, tmp_path / name)
        for path, data in folder_bytes(tmp_path / name).items():
            own = (
                f"swift/{path}" if name == "swift" and path.endswith(".jsonl") else path
            )  # both would be <split>.jsonl
            assert alone.setdefault(own, data) == data
    (tmp_path / "together").mkdir()
    base.write_formats(
        [base.load_format(name) for name in base.format_names()], iter(images), context, tmp_path / "together"
    )
    assert folder_bytes(tmp_path / "together") == alone


@pytest.mark.parametrize("name", base.format_names())
def test_memory_is_flat(name, stream_images, context, tmp_path, monkeypatch):
    """Five times the images and about the same peak of Python's memory: a kept kilobyte per mask would be 240 kB."""
    monkeypatch.setattr(hf, "_GROUP_ROWS", 10)
    monkeypatch.setattr(etris, "_BATCH_BYTES", 1 << 16)
    renderer = base.load_format(name)

    def peak(count, run=0):
        folder = tmp_path / f"{count} {run}"
        folder.mkdir()
        tracemalloc.start()
        try:
            base.write_formats([renderer], stream_images(count), context, folder)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(5)
    assert (
        min(peak(100, run) for run in range(2)) - peak(20) < 120_000
    )  # the better of two: other threads are measured too
