"""grefcoco, swift, sa-co, sa2va, tao, webdataset: read as their trainers do, with references to several objects and to none."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import trainers
from PIL import Image
from pycocotools import mask as coco_mask

from pseudoris_cli.errors import UsageError
from pseudoris_cli.export import base
from pseudoris_cli.export.base import ExportObject, ExportReference, ExportSentence
from pseudoris_cli.export.formats import grefcoco, jsonl, refcoco, sa2va, sa_co, swift, tao, webdataset
from pseudoris_cli.rle import decode_rle

BOTH, NOTHING = "both of them", 'a "blue" zebra'


@pytest.fixture
def rich(images):
    """The first image has an expression for two objects, one of which nothing else means, and one for nothing; the last only
    such a one."""
    first, last = images[0], images[8]
    two = (first.objects[0], replace(first.objects[2], sentences=(), ref_id=901))
    several = ExportReference(ref_id=901, objects=two, sentences=(sentence(7001, BOTH),))
    none = ExportReference(ref_id=902, objects=(), sentences=(sentence(7002, NOTHING),))
    images[0] = replace(first, objects=first.objects[:2], more_references=(several, none))
    images[8] = replace(last, more_references=(replace(none, ref_id=903, sentences=(sentence(7003, NOTHING),)),))
    return images


def sentence(sent_id: int, text: str) -> ExportSentence:
    return ExportSentence(sent_id=sent_id, candidate_id=0, caption=text)


def expected(images, split):
    """(picture, expression) -> the masks that it means."""
    found = {}
    for image in images:
        for reference in image.references if image.split == split else ():
            for one in reference.sentences:
                objects = found.setdefault((image.file_name, one.caption), {})
                objects |= {obj.ann_id: obj for obj in reference.objects}
    return {key: list(objects.values()) for key, objects in found.items()}


def written(form, images, context, folder, **values):
    folder.mkdir(exist_ok=True)
    base.write_formats([form], iter(images), replace(context, images="copy", **values), folder)
    return folder


def same(masks: list[np.ndarray], objects: list[ExportObject]) -> bool:
    wanted = [decode_rle(obj.mask.rle) for obj in objects]
    return len(masks) == len(wanted) and all(np.array_equal(a, b) for a, b in zip(masks, wanted, strict=True))


@pytest.mark.parametrize("split", ["train", "val"])
def test_grefcoco(rich, context, tmp_path, split):
    out = written(grefcoco, rich, context, tmp_path / "out")
    records = trainers.read_grefs(out, "pseudo", split)
    sentences = {s.sent_id: (image, r) for image in rich for r in image.references for s in r.sentences}
    assert len(records) == sum(image.split == split for image, _ in sentences.values())
    for record in records:
        image, reference = sentences[record["sent_id"]]
        assert record["image"]["file_name"] == image.file_name
        assert same(record["masks"], list(reference.objects))
        assert (out / "images/train2014" / image.file_name).is_file()
    if split == "train":
        assert {r["raw"]: len(r["masks"]) for r in records if r["sent_id"] > 7000} == {BOTH: 2, NOTHING: 0}
        refs = {ref["ref_id"]: ref for ref in json.loads((out / "grefcoco/grefs(pseudo).json").read_bytes())}
        assert (refs[902]["ann_id"], refs[902]["category_id"]) == ([-1], -1)
        assert (refs[901]["ann_id"], refs[901]["category_id"]) == ([1, 3], 1)


def test_grefcoco_lists_every_target_once_with_its_category(rich, context, tmp_path):
    dog = replace(rich[0].objects[0], category=(18, "dog"))
    several = replace(rich[0].more_references[0], objects=(dog, rich[0].more_references[0].objects[1]))
    rich[0] = replace(rich[0], objects=(dog, rich[0].objects[1]), more_references=(several,))
    out = written(grefcoco, rich[:1], context, tmp_path / "out")
    instances = json.loads((out / "grefcoco/instances.json").read_bytes())
    assert [one["id"] for one in instances["annotations"]] == [1, 2, 3]
    assert [one["id"] for one in instances["categories"]] == [1, 18]
    refs = json.loads((out / "grefcoco/grefs(pseudo).json").read_bytes())
    assert refs[-1]["category_id"] == [18, 1]


def test_two_formats_do_not_write_one_file(images, context, tmp_path):
    for forms in ([refcoco, grefcoco], [grefcoco, refcoco]):
        with pytest.raises(UsageError, match=r"two formats would write grefcoco/instances\.json; choose another"):
            base.write_formats(forms, iter(images), replace(context, dataset="grefcoco"), tmp_path / forms[0].__name__)


def test_detectron2_keeps_polygons_and_loses_run_length_codes(images, context, tmp_path):
    found = {}
    for style in ("polygon", "rle"):
        out = written(refcoco, images, context, tmp_path / style, segmentation=style)
        found[style] = trainers.read_refer_for_detectron2(out / "refcoco", "train")
    sentences = sum(len(obj.sentences) for image in images if image.split == "train" for obj in image.objects)
    assert found == {"polygon": sentences, "rle": 0}


@pytest.mark.parametrize("split", ["train", "val"])
def test_sa_co(rich, context, tmp_path, split, capsys):
    path = written(sa_co, rich, context, tmp_path / "out") / "annotations" / f"{split}.json"
    queries, truth = trainers.read_sa_co_queries(path), trainers.read_sa_co_truth(path)
    wanted = expected(rich, split)
    assert {(query["file_name"], query["query_text"]) for query in queries} == set(wanted)
    assert len(queries) == len(wanted) == len(truth)
    sizes = {image.file_name: (image.width, image.height) for image in rich}
    for query in queries:
        assert query["original_cat_id"] == 1
        objects = wanted[query["file_name"], query["query_text"]]
        annotations = truth[query["coco_img_id"]]
        assert same([coco_mask.decode(one["segmentation"]).astype(bool) for one in annotations], objects)
        width, height = sizes[query["file_name"]]
        for one, obj in zip(annotations, objects, strict=True):
            box = [one["bbox"][0] * width, one["bbox"][1] * height, one["bbox"][2] * width, one["bbox"][3] * height]
            assert np.allclose(box, obj.mask.bbox)
            assert np.isclose(one["area"] * width * height, obj.mask.area)
            assert (one["category_id"], one["iscrowd"]) == (1, 0)
    if split == "train":
        assert [query["query_text"] for query in queries if not truth[query["coco_img_id"]]] == [NOTHING, NOTHING]


def test_sa_co_joins_a_phrase_that_two_objects_have(images, context, tmp_path):
    twins = tuple(replace(obj, sentences=(sentence(10 + n, "a cup"),)) for n, obj in enumerate(images[0].objects))
    path = written(sa_co, [replace(images[0], objects=twins)], context, tmp_path / "out") / "annotations/train.json"
    [query] = trainers.read_sa_co_queries(path)
    assert query["coco_img_id"] == 10
    assert len(trainers.read_sa_co_truth(path)[10]) == 3


@pytest.mark.parametrize("choice", ["best", "all"])
def test_sa2va(rich, context, tmp_path, choice):
    out = written(sa2va, rich, context, tmp_path / "out", sentences=choice) / "refcoco"
    for split, name in (("train", "annotations.json"), ("val", "annotations_val.json")):
        read = trainers.read_sa2va(out, name)
        count = 1 if choice == "best" else 99
        wanted = [
            [(s.caption, obj) for obj in image.objects for s in obj.sentences[:count]]
            for image in rich
            if image.split == split and image.objects
        ]
        assert [[text for text, _ in pairs] for pairs in read] == [
            [text.lower().removesuffix(".") for text, _ in pairs] for pairs in wanted
        ]
        for pairs, objects in zip(read, wanted, strict=True):
            assert same([mask for _, mask in pairs], [obj for _, obj in objects])


def test_sa2va_without_words_or_pictures(images, context, tmp_path):
    """Its reader looks at the last letter of a text, so a blank one is left out."""
    blank = tuple(replace(obj, sentences=(sentence(5, " "),)) for obj in images[0].objects)
    base.write_formats([sa2va], iter([replace(images[0], objects=blank), images[1]]), context, tmp_path)
    assert [item["image"] for item in json.loads((tmp_path / "refcoco/annotations.json").read_bytes())] == [
        images[1].file_name
    ]
    assert not (tmp_path / "refcoco/images").exists()


def test_swift(rich, context, tmp_path):
    out = written(swift, rich, context, tmp_path / "out")
    for split in ("train", "val"):
        lines = (out / f"{split}.jsonl").read_text().splitlines()
        wanted = [
            (image, reference, one.caption)
            for image in rich
            for reference in image.references
            for one in reference.sentences
            if image.split == split
        ]
        assert len(lines) == len(wanted)
        for line, (image, reference, text) in zip(lines, wanted, strict=True):
            question, answer, boxes = trainers.read_swift(line)
            assert question == f"<image>Locate the {text} in the image"
            assert [item["label"] for item in json.loads(answer)] == [text] * len(reference.objects)
            assert [item["bbox_2d"] for item in json.loads(answer)] == boxes
            for box, obj in zip(boxes, reference.objects, strict=True):
                x, y, width, height = obj.mask.bbox
                assert box == [x, y, x + width, y + height]
            [path] = json.loads(line)["images"]
            assert (out / path).is_file()
            assert path.endswith(image.file_name)


def test_swift_in_words():
    """The exact texts of a plain expression: what ms-swift's documentation shows."""
    assert swift.conversation("red cup", (), "a.jpg") == {
        "messages": [
            {"role": "user", "content": "<image>Locate the <ref-object> in the image"},
            {"role": "assistant", "content": "[]"},
        ],
        "images": ["a.jpg"],
        "objects": {"ref": ["red cup"], "bbox": []},
    }


def test_swift_beside_jsonl_has_a_folder(images, context, tmp_path):
    base.write_formats([swift, jsonl], iter(images), context, tmp_path)
    assert json.loads((tmp_path / "train.jsonl").read_text().splitlines()[0])["ref_id"] == 0
    trainers.read_swift((tmp_path / "swift/train.jsonl").read_text().splitlines()[0])


def test_tao(rich, context, tmp_path):
    out = written(tao, rich, context, tmp_path / "out")
    records = trainers.read_tao(out / "annotations.jsonl")
    assert [record["image_id"] for record in records] == [str(image.image_id) for image in rich]
    for record, image in zip(records, rich, strict=True):
        assert (record["width"], record["height"], record["split"]) == (image.width, image.height, image.split)
        assert Image.open(out / record["image_path"]).size == (image.width, image.height)
        wanted = [
            (s.caption, [tuple(obj.mask.bbox) for obj in reference.objects])
            for reference in image.references
            for s in reference.sentences
        ]
        boxes = [
            (one["text"], [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in (i["bbox"] for i in one["instances"])])
            for one in record["expressions"]
        ]
        assert boxes == wanted
    ids = [one["expression_id"] for record in records for one in record["expressions"]]
    assert len(set(ids)) == len(ids)


def members(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def test_webdataset_members(images, context, tmp_path):
    out = written(webdataset, images, context, tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == ["train-000000.tar", "val-000000.tar"]
    found = members(out / "train-000000.tar")
    train = [image for image in images if image.split == "train" and image.objects]
    assert list(found) == [f"{image.image_id:012d}.{kind}" for image in train for kind in ("jpg", "json")]
    for image in train:
        key = f"{image.image_id:012d}"
        assert found[f"{key}.jpg"] == context.read_image(image.image_key)
        row = json.loads(found[f"{key}.json"])
        assert row["file_name"] == image.file_name
        for obj, given in zip(row["objects"], image.objects, strict=True):
            assert np.array_equal(coco_mask.decode(obj["segmentation"]), decode_rle(given.mask.rle))
            assert obj["sentences"] == [s.caption for s in given.sentences]
            assert obj.get("doc") == (None if given.sentences[0].doc is None else [s.doc for s in given.sentences])


def test_webdataset_shards_are_whole_and_no_larger_than_asked(stream_images, context, tmp_path):
    images = list(stream_images(60))
    out = written(webdataset, images, context, tmp_path / "out", shard_bytes=32 << 10)
    shards = sorted(out.glob("train-*.tar"))
    assert len(shards) > 3
    assert all(path.stat().st_size <= (32 << 10) + 10240 for path in shards)
    assert all(path.stat().st_size % 10240 == 0 for path in shards)
    keys = [name.partition(".")[0] for path in shards for name in members(path)]
    assert keys[0::2] == keys[1::2] == [f"{image.image_id:012d}" for image in images if image.split == "train"]
    one = written(webdataset, images[:1], context, tmp_path / "one", shard_bytes=1)  # a picture larger than a shard
    assert len(members(one / "train-000000.tar")) == 2


def test_webdataset_without_pictures(images, context, tmp_path):
    base.write_formats([webdataset], iter(images), context, tmp_path)
    assert {name.partition(".")[2] for name in members(tmp_path / "train-000000.tar")} == {"json"}
