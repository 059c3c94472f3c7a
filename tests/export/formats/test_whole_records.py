"""What each format writes of one object, field by field: readers go by these names and values (docs/formats)."""

from __future__ import annotations

import csv
import json
import pickle
from dataclasses import replace

import lmdb
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from pseudoris_cli.codecs.pyarrow_serialize import decode
from pseudoris_cli.export import base
from pseudoris_cli.export.base import ExportImage, ExportObject, ExportSentence, ScoredMask
from pseudoris_cli.export.formats import coco, etris, hf, jsonl, refcoco, reference_csv
from pseudoris_cli.export.read_back import read_refer
from pseudoris_cli.records import Mask
from pseudoris_cli.rle import encode_rle, rle_area, rle_bbox


def sentence(sent_id: int, text: str, doc: float) -> ExportSentence:
    return ExportSentence(
        sent_id=sent_id,
        candidate_id=sent_id + 20,
        caption=text,
        crop="crop_1.1",
        sampler="top_k=5",
        correctness=0.25,
        uniqueness=1.5,
        doc=doc,
    )


@pytest.fixture
def image() -> ExportImage:
    """One dog at x 2, y 3, 4 wide and 2 high, in a picture of 12 x 10 pixels."""
    pixels = np.zeros((10, 12), bool)
    pixels[3:5, 2:6] = True
    rle = encode_rle(pixels)
    mask = Mask(4, rle, rle_bbox(rle), rle_area(rle), 0.9, 0.95)
    sentences = (sentence(11, "The dog, left!", 3.5), sentence(12, "a brown dog", 2.5))
    dog = ExportObject(ref_id=5, ann_id=6, mask=mask, sentences=sentences, category=(18, "dog"))
    return ExportImage(
        image_key="in/the dog.png",
        image_id=7,
        file_name="by/name.png",
        width=12,
        height=10,
        split="val",
        objects=(dog,),
        candidates=(ScoredMask(mask=mask, candidates=sentences), ScoredMask(mask=mask, candidates=sentences[:1])),
    )


RLE = {"size": [10, 12], "counts": encode_rle(np.pad(np.ones((2, 4), bool), ((3, 5), (2, 6)))).counts}


def written(form, image, context, folder, **values):
    base.write_formats([form], iter([image]), replace(context, **values), folder)
    return folder


def test_jsonl(image, context, tmp_path):
    [line] = (written(jsonl, image, context, tmp_path) / "val.jsonl").read_text().splitlines()
    scores = {"crop": "crop_1.1", "sampler": "top_k=5", "correctness": 0.25, "uniqueness": 1.5}
    assert json.loads(line) == {
        "ref_id": 5,
        "ann_id": 6,
        "image_key": "in/the dog.png",
        "image_id": 7,
        "file_name": "by/name.png",
        "width": 12,
        "height": 10,
        "split": "val",
        "mask_id": 4,
        "category_id": 18,
        "category": "dog",
        "bbox": [2, 3, 4, 2],
        "area": 8,
        "segmentation": RLE,
        "sentences": [
            {"sent_id": 11, "candidate_id": 31, "caption": "The dog, left!", **scores, "doc": 3.5},
            {"sent_id": 12, "candidate_id": 32, "caption": "a brown dog", **scores, "doc": 2.5},
        ],
    }


INFO = {
    "description": "refcoco (pseudo), pseudo-labelled by pseudoris",
    "provenance": {"versions": {"masks": "abc"}, "weights": [{"weights": "sam_vit_h"}]},
}
PICTURE = {"id": 7, "file_name": "by/name.png", "height": 10, "width": 12}
ANNOTATION = {"id": 6, "image_id": 7, "category_id": 18, "area": 8, "bbox": [2, 3, 4, 2], "iscrowd": 0}
CATEGORIES = [{"id": 18, "name": "dog", "supercategory": "dog"}]


def test_coco(image, context, tmp_path):
    folder = written(coco, image, context, tmp_path, provenance=INFO["provenance"])
    assert json.loads((folder / "annotations/instances_val.json").read_text()) == {
        "info": INFO,
        "licenses": [],
        "images": [PICTURE],
        "annotations": [ANNOTATION | {"segmentation": RLE, "ref_id": 5, "captions": ["The dog, left!", "a brown dog"]}],
        "categories": CATEGORIES,
    }
    assert [path.name for path in (folder / "annotations").iterdir()] == ["instances_val.json"]


@pytest.mark.parametrize(("style", "parts"), [("polygon", [[2, 3, 6, 3, 6, 5, 2, 5]]), ("rle", [RLE])])
def test_refcoco(image, context, tmp_path, style, parts):
    folder = written(refcoco, image, context, tmp_path, provenance=INFO["provenance"], segmentation=style) / "refcoco"
    assert json.loads((folder / "instances.json").read_text()) == {
        "info": INFO,
        "licenses": [],
        "images": [PICTURE],
        "annotations": [ANNOTATION | {"segmentation": parts}],
        "categories": CATEGORIES,
    }
    ref = {
        "sent_ids": [11, 12],
        "file_name": "by/name_4.png",
        "ann_id": 6,
        "ref_id": 5,
        "image_id": 7,
        "split": "val",
        "sentences": [
            {"tokens": ["the", "dog", "left"], "raw": "The dog, left!", "sent_id": 11, "sent": "the dog left"},
            {"tokens": ["a", "brown", "dog"], "raw": "a brown dog", "sent_id": 12, "sent": "a brown dog"},
        ],
        "category_id": 18,
    }
    assert pickle.loads((folder / "refs(pseudo).p").read_bytes()) == [ref]
    assert json.loads((folder / "refs(pseudo).json").read_text()) == [ref]


def test_etris(image, context, tmp_path):
    picture = b"the bytes of a picture"
    folder = written(
        etris, image, context, tmp_path, read_image=lambda key: picture if key == "in/the dog.png" else b""
    )
    assert json.loads((folder / "anns/refcoco/val.json").read_text()) == [
        {
            "bbox": [2, 3, 6, 5],
            "cat": 16,
            "segment_id": 5,
            "img_name": "by/name.png",
            "img_id": 7,
            "sentences": [
                {"idx": 0, "sent_id": 11, "sent": "the dog left"},
                {"idx": 1, "sent_id": 12, "sent": "a brown dog"},
            ],
            "sentences_num": 2,
        }
    ]
    path = str(folder / "lmdb/refcoco/val.lmdb")
    with lmdb.open(path, subdir=False, readonly=True, lock=False) as environment, environment.begin() as data:
        record = decode(data.get(b"0"))
    assert record == {
        "img": picture,
        "mask": (folder / "masks/refcoco/5.png").read_bytes(),
        "cat": 16,
        "seg_id": 5,
        "img_name": "by/name.png",
        "img_id": 7,
        "num_sents": 2,
        "sents": ["the dog left", "a brown dog"],
    }


def test_hf(image, context, tmp_path):
    folder = written(hf, image, context, tmp_path)
    [path] = (folder / "data").iterdir()
    assert path.name == "val-00000.parquet"
    [row] = pq.read_table(path).to_pylist()
    assert row == {
        "image_id": 7,
        "image_key": "in/the dog.png",
        "file_name": "by/name.png",
        "width": 12,
        "height": 10,
        "objects": [
            {
                "ref_id": 5,
                "ann_id": 6,
                "mask_id": 4,
                "category_id": 18,
                "category": "dog",
                "bbox": [2, 3, 4, 2],
                "area": 8,
                "segmentation": RLE,
                "sentences": ["The dog, left!", "a brown dog"],
                "doc": [3.5, 2.5],
            }
        ],
    }
    card = (folder / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1]) == {
        "pretty_name": "refcoco (pseudo)",
        "license": "other",
        "task_categories": ["image-segmentation"],
        "tags": ["referring-image-segmentation", "pseudo-labels", "pseudoris"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "val", "path": "data/val-*.parquet"}]},
        ],
    }
    assert "| split | images | masks | sentences |\n| --- | --- | --- | --- |\n| val | 1 | 1 | 2 |\n" in card
    assert (
        "| used for | network | weights | licence of the weights | remark |\n| --- | --- | --- | --- | --- |\n"
        "| masks.sam | sam vit_h | sam_vit_h | Apache-2.0 |  |\n"
    ) in card
    assert yaml.safe_load(card.split("```yaml\n")[1].split("```")[0]) == dict(context.provenance)


def test_reference_csv(image, context, tmp_path):
    folder = written(reference_csv, image, context, tmp_path)
    path = folder / "pseudo_supervision/cutler_sam/distinctive_captions_cc3m_val.csv"
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["index", "img_name", "img_id", "seg_id", "num_sent", "pseudo_caption", "doc", "one_mask"],
        ["0", "by/name.png", "7", "0", "2", "['The dog, left!', 'a brown dog']", "[3.5, 2.5]", "0"],
        ["1", "by/name.png", "7", "1", "1", "['The dog, left!']", "[3.5]", "0"],
    ]
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    assert found == {f"datasets/pseudo_masks/cutler_sam/7/{n}.png" for n in (0, 1)}


@pytest.mark.parametrize(
    ("form", "places"),
    [
        (coco, ["images/train2014/by/name.png"]),
        (jsonl, ["images/train2014/by/name.png"]),
        (refcoco, ["images/mscoco/images/train2014/by/name.png", "images/train2014/by/name.png"]),
        (etris, ["images/train2014/by/name.png"]),
        (reference_csv, ["datasets/images/train2014/by/name.png"]),
        (hf, []),
    ],
)
def test_the_picture_is_where_the_readers_look(form, places, image, context, tmp_path):
    folder = written(form, image, context, tmp_path, images="copy", read_image=lambda key: key.encode())
    for place in places:
        assert (folder / place).read_bytes() == b"in/the dog.png"
    assert len({path.resolve() for path in folder.rglob("name.png")}) == bool(places)


def test_refclef_has_its_own_image_folder(image, context, tmp_path):
    """REFER looks for refclef's pictures elsewhere than for those of the others."""
    folder = written(
        refcoco, image, context, tmp_path, images="copy", dataset="refclef", read_image=lambda key: key.encode()
    )
    assert (folder / "images/saiapr_tc-12/by/name.png").read_bytes() == b"in/the dog.png"
    assert not (folder / "images/mscoco").exists()


def test_a_picture_that_is_there_is_left_alone(image, context, tmp_path):
    """Formats share their pictures, and a picture is written once."""
    there = tmp_path / "by" / "name.png"
    there.parent.mkdir()
    there.write_bytes(b"there")
    base.save_image_file(image, replace(context, images="copy", read_image=lambda key: b"other"), tmp_path)
    assert there.read_bytes() == b"there"


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_is_read_back_whole_wherever_its_refs_stand(split, images, context, tmp_path):
    base.write_formats([refcoco], iter(images), context, tmp_path)
    found = [one.ref_id for one in read_refer(tmp_path / "refcoco", "pseudo", split)]
    assert found == [one.ref_id for image in images if image.split == split for one in image.objects]
