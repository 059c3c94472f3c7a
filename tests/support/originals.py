"""Run by tests/export/formats/test_originals.py with the interpreter of an old environment (pyarrow 11, OpenCV, pandas).

It makes the calls that REFER, ETRIS' RefDataset and the Pseudo-RIS release make on their data, in their order, and compares
what comes out with what went in. `python originals.py EXPORT EXPECTED.json` prints how many of each it has seen.

EXPECTED: {"refs": [{ref_id, split, image, size, counts, captions, category}], "masks": [{image, counts, captions, docs}]}
"""

import ast
import json
import pickle
import random
import sys
import warnings
from collections import Counter
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pandas as pd
import pyarrow as pa
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

warnings.filterwarnings("ignore", category=FutureWarning)  # pyarrow 11 calls its own functions deprecated
SPLITS = ("train", "val", "testA", "testB")


def refer_split(refs, split):
    """REFER: train and val compare whole, testA and testB look for their last letter."""
    return [ref for ref in refs if (split[-1] in ref["split"] if split.startswith("test") else ref["split"] == split)]


def check_refer(out, expected, seen):
    """Refs from the pickle, masks from polygons or run-length codes summed over the parts, pictures from either folder."""
    with (out / "refcoco" / "refs(pseudo).p").open("rb") as file:
        refs = pickle.load(file)
    instances = json.load((out / "refcoco" / "instances.json").open())
    annotations = {one["id"]: one for one in instances["annotations"]}
    images = {one["id"]: one for one in instances["images"]}
    names = {one["id"]: one["name"] for one in instances["categories"]}
    assert all(type(ref[key]) is int for ref in refs for key in ("ref_id", "ann_id", "image_id", "category_id"))
    assert sum(len(refer_split(refs, split)) for split in SPLITS) == len(refs)
    for split in SPLITS:
        for ref in refer_split(refs, split):
            wanted = expected[ref["ref_id"]]
            assert wanted["split"] == split
            annotation, image = annotations[ref["ann_id"]], images[ref["image_id"]]
            codes = annotation["segmentation"]
            if type(codes[0]) is list:
                codes = coco_mask.frPyObjects(codes, image["height"], image["width"])
            layers = coco_mask.decode(codes)
            mask = np.sum(layers, axis=2).astype(np.uint8)
            np.testing.assert_array_equal(mask, decoded(wanted))
            assert sum(coco_mask.area(codes)) == annotation["area"]
            assert [ref["category_id"], names[ref["category_id"]]] == wanted["category"]
            assert [sentence["raw"] for sentence in ref["sentences"]] == wanted["captions"]
            assert all(sentence["sent"].split() == sentence["tokens"] for sentence in ref["sentences"])
            for folder in ("images/mscoco/images/train2014", "images/train2014"):
                check_picture(cv2.imread(str(out / folder / image["file_name"])), mask)
            seen["refer"] += 1


def check_etris(out, expected, seen):
    """One LMDB for each split: __len__ and __keys__, then every record, picture and mask decoded by OpenCV."""
    for path in sorted((out / "lmdb" / "refcoco").glob("*.lmdb")):
        environment = lmdb.open(
            str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False, meminit=False
        )
        anns = json.load((out / "anns" / "refcoco" / f"{path.stem}.json").open())
        with environment.begin(write=False) as transaction:
            length = pa.deserialize(transaction.get(b"__len__"))
            keys = pa.deserialize(transaction.get(b"__keys__"))
            assert length == len(keys) == len(anns)
            for key, annotation in zip(keys, anns, strict=True):
                check_record(out, pa.deserialize(transaction.get(key)), annotation, expected, path.stem)
                seen["etris"] += 1


def check_record(out, record, annotation, expected, split):
    wanted = expected[record["seg_id"]]
    assert wanted["split"] == split
    picture = cv2.imdecode(np.frombuffer(record["img"], np.uint8), cv2.IMREAD_COLOR)
    mask = cv2.imdecode(np.frombuffer(record["mask"], np.uint8), cv2.IMREAD_GRAYSCALE)
    on_disk = cv2.imread(str(out / "masks" / "refcoco" / f"{record['seg_id']}.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(mask, 255 * decoded(wanted))
    np.testing.assert_array_equal(on_disk, mask)
    check_picture(picture, mask)
    sentence = record["sents"][np.random.choice(record["num_sents"])]
    assert isinstance(sentence, str)
    assert sentence == sentence.strip() != ""
    assert record["num_sents"] == len(record["sents"]) == len(wanted["captions"])
    assert record["cat"] == annotation["cat"]
    assert 0 <= record["cat"] < 80
    assert (record["img_name"], record["img_id"]) == (annotation["img_name"], annotation["img_id"])
    x1, y1, x2, y2 = annotation["bbox"]
    ys, xs = np.nonzero(mask)
    assert (x1, y1, x2, y2) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def check_release(out, masks, seen):
    """The CSV by pandas, lists by eval, the three ways to pick a caption, masks and pictures by OpenCV."""
    by_place = {(one["image"], one["seg_id"]): one for one in masks}
    for path in sorted((out / "pseudo_supervision" / "cutler_sam").glob("*.csv")):
        for _, row in pd.read_csv(path).iterrows():
            captions, docs = ast.literal_eval(row["pseudo_caption"]), eval(row["doc"])
            assert eval(row["pseudo_caption"]) == captions
            assert row["num_sent"] == len(captions) == len(docs)
            picture = cv2.imread(str(out / "datasets/images/train2014" / row["img_name"]))
            place = out / "datasets/pseudo_masks/cutler_sam" / str(row["img_id"]) / f"{row['seg_id']}.png"
            mask = cv2.imread(str(place), cv2.IMREAD_GRAYSCALE)
            wanted = by_place.pop((row["img_name"], row["seg_id"]))
            assert captions == wanted["captions"]
            assert docs == wanted["docs"]
            np.testing.assert_array_equal(mask, 255 * decoded(wanted))
            check_picture(picture, mask)
            if row["one_mask"] == 0:
                good = np.where(np.array(docs) > 1.0)[0]
                picked = random.choice(good) if len(good) > 0 else np.random.choice(row["num_sent"])
            else:
                picked = random.choice(np.argsort(docs)[::-1][: row["num_sent"] // 2])
                seen["one_mask"] += 1
            assert captions[picked]
            assert random.choice([caption for i, caption in enumerate(captions) if i % 11 == 1])
            seen["release"] += 1
    assert not by_place


def check_coco(out, expected, seen):
    for path in sorted((out / "annotations").glob("instances_*.json")):
        loaded = COCO(str(path))
        for annotation in loaded.loadAnns(loaded.getAnnIds()):
            wanted = expected[annotation["ref_id"]]
            np.testing.assert_array_equal(loaded.annToMask(annotation), decoded(wanted))
            assert annotation["captions"] == wanted["captions"]
            category = loaded.loadCats([annotation["category_id"]])[0]
            assert [category["id"], category["name"]] == wanted["category"]
            seen["coco"] += 1


def check_picture(picture, mask):
    """In the mask's frame, with its white block at the top left and nowhere else."""
    assert picture.shape[:2] == mask.shape
    assert picture[4:10, 4:10].min() > 200
    assert max(corner.max() for corner in (picture[-6:, :6], picture[:6, -6:], picture[-6:, -6:])) < 150


def decoded(wanted):
    return coco_mask.decode({"size": wanted["size"], "counts": wanted["counts"].encode()})


def main():
    out, expected = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    refs = {ref["ref_id"]: ref for ref in expected["refs"]}
    seen = Counter()
    check_refer(out, refs, seen)
    check_etris(out, refs, seen)
    check_release(out, expected["masks"], seen)
    check_coco(out, refs, seen)
    print(json.dumps({"pyarrow": pa.__version__, **seen}))


if __name__ == "__main__":
    main()
