"""Readers written after the rules of today's trainers, for the tests: each function names the code whose rules it follows.

They read as the originals do, with their failures: an assertion or an exception here is one there.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

Mask = np.ndarray


def read_grefs(root: Path, split_by: str, split: str) -> list[dict[str, Any]]:
    """ReLA, `grefer.py` (G_REFER) and `grefcoco.py` (load_grefcoco_json): one record for each sentence of a split.

    Annotation -1 is None; a ref whose annotations are [None] is a no-target sample; polygons with fewer than six numbers are
    dropped, and an annotation without any is a NameError there. Masks are decoded as the mapper does (merge).
    """
    folder = root / "grefcoco"
    refs = json.loads((folder / f"grefs({split_by}).json").read_bytes())
    instances = json.loads((folder / "instances.json").read_bytes())
    annotations: dict[int, Any] = {-1: None} | {one["id"]: one for one in instances["annotations"]}
    images = {one["id"]: one for one in instances["images"]}
    categories = {one["id"] for one in instances["categories"]}
    assert len({ref["ref_id"] for ref in refs}) == len(refs), "Duplicate ref id"
    assert split in {ref["split"] for ref in refs}, f"Invalid split name: {split}"
    records = []
    for ref in refs:
        if ref["split"] != split:
            continue
        image = images[ref["image_id"]]
        assert isinstance(ref["ann_id"], list)
        wanted = [annotations[number] for number in ref["ann_id"]]
        masks: list[Mask] = []
        if None in wanted:
            assert wanted == [None]
            assert ref["ann_id"] == [-1]
        for annotation in wanted if None not in wanted else []:
            assert annotation["iscrowd"] == 0
            assert annotation["image_id"] == ref["image_id"]
            assert annotation["category_id"] in categories
            polygons = [one for one in annotation["segmentation"] if len(one) % 2 == 0 and len(one) >= 6]
            assert polygons, "an undefined counter stops the original here"
            merged = coco_mask.merge(coco_mask.frPyObjects(polygons, image["height"], image["width"]))
            masks.append(coco_mask.decode(merged).astype(bool))
        for sentence in ref["sentences"]:
            assert isinstance(sentence["tokens"], list)
            records.append({"raw": sentence["raw"], "sent_id": sentence["sent_id"], "masks": masks, "image": image})
        assert ref["sent_ids"] == [sentence["sent_id"] for sentence in ref["sentences"]]
    return records


def read_refer_for_detectron2(folder: Path, split: str) -> int:
    """ReLA, `refcoco.py` (load_refcoco_json): sentences of a split whose annotation has a polygon of six numbers or more."""
    [refs_file] = folder.glob("refs(*).json")
    instances = json.loads((folder / "instances.json").read_bytes())
    annotations = {one["id"]: one for one in instances["annotations"]}
    count = 0
    for ref in json.loads(refs_file.read_bytes()):
        if ref["split"] == split:
            segmentation = annotations[ref["ann_id"]]["segmentation"]
            usable = [one for one in segmentation if len(one) % 2 == 0 and len(one) >= 6]
            count += len(ref["sentences"]) if usable else 0
    return count


def read_sa_co_queries(path: Path) -> list[dict[str, Any]]:
    """SAM 3, `coco_json_loaders.py` (SAM3_EVAL_API_FROM_JSON_NP): one query an entry of `images`."""
    return [
        {
            "query_text": image["text_input"],
            "original_cat_id": int(image["queried_category"]),
            "file_name": image["file_name"],
            "coco_img_id": image["id"],
        }
        for image in json.loads(path.read_bytes())["images"]
    ]


def read_sa_co_truth(path: Path) -> dict[int, list[dict[str, Any]]]:
    """SAM 3, `cgf1_eval.py`: pycocotools' COCO with an image id for each (picture, phrase); exhaustive entries are evaluated."""
    from pycocotools.coco import COCO

    truth = COCO(str(path))
    assert all("is_instance_exhaustive" in image for image in truth.dataset["images"])
    usable = [image["id"] for image in truth.dataset["images"] if image["is_instance_exhaustive"]]
    return {number: truth.loadAnns(truth.getAnnIds([number])) for number in usable}


def read_sa2va(data_root: Path, ann_file: str) -> list[list[tuple[str, Mask]]]:
    """Sa2VA, `Sa2VAFinetuneDataset`: pictures from `images/`, phrases lower-cased, parts of a mask added up."""
    from PIL import Image

    found = []
    for item in json.loads((data_root / ann_file).read_bytes()):
        width, height = Image.open(data_root / "images" / item["image"]).size
        pairs = []
        for index in range(len(item["mask"])):
            phrase = item["text"][index].lower()
            phrase = phrase[:-1] if phrase[-1] == "." else phrase
            mask = np.zeros((height, width), np.uint8)
            for polygon in item["mask"][index]:
                mask += coco_mask.decode(coco_mask.frPyObjects([polygon], height, width)).squeeze()
            assert mask.max() == 1
            pairs.append((phrase, mask.astype(bool)))
        found.append(pairs)
    return found


def read_swift(line: str) -> tuple[str, str, list[list[int]]]:
    """ms-swift, `RowPreprocessor` and the templates: (question, answer, boxes) with the placeholders filled in, in order.

    Roles and contents are checked, a box has 2 or 4 numbers, `ref` and `bbox` are used up one after the other.
    """
    row = json.loads(line)
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
    assert set(row) == {"messages", "images", "objects"}
    assert row["messages"][0]["content"].count("<image>") == len(row["images"])
    assert all(len(path) <= 200 for path in row["images"]), "longer ones are taken for base64"
    boxes, refs = row["objects"]["bbox"], iter(row["objects"]["ref"])
    assert all(len(box) == 4 and box[0] < box[2] and box[1] < box[3] for box in boxes)
    left = iter(boxes)
    filled = []
    for message in row["messages"]:
        text = re.sub("<ref-object>", lambda _: next(refs), message["content"])
        filled.append(re.sub("<bbox>", lambda _: json.dumps(next(left)), text))
    assert next(refs, None) is next(left, None) is None
    return filled[0], filled[1], boxes


def read_tao(path: Path) -> list[dict[str, Any]]:
    """NVIDIA TAO, `auto_label/common/annotation.py` (load_records, merge_records): one record an image_id."""
    records = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        assert record["image_id"] not in records
        assert isinstance(record["image_id"], str)
        for expression in record["expressions"]:
            assert set(expression) >= {"expression_id", "text", "instances"}
            for instance in expression["instances"]:
                x1, y1, x2, y2 = instance["bbox"]
                assert 0 <= x1 < x2 <= record["width"]
                assert 0 <= y1 < y2 <= record["height"]
        records[record["image_id"]] = record
    return list(records.values())
