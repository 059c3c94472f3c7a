"""The COCO files of both formats that write one: what COCO's own loader and evaluation rely on."""

from __future__ import annotations

import json

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pseudoris_cli.export import base
from pseudoris_cli.export.formats import coco, refcoco


def instances_file(folder):
    [found] = [path for path in folder.rglob("*.json") if path.name.startswith("instances")]
    return found


@pytest.mark.parametrize("form", [coco, refcoco])
def test_every_annotation_is_one_object_and_no_crowd(form, images, context, tmp_path):
    """COCO's evaluation counts no crowd as an object to be found, so a crowd would be no label at all."""
    only_train = [image for image in images if image.split == "train"]
    base.write_formats([form], iter(only_train), context, tmp_path)
    content = json.loads(instances_file(tmp_path).read_text())
    assert [a["iscrowd"] for a in content["annotations"]] == [0] * sum(len(image.objects) for image in only_train)
    assert {type(a["iscrowd"]) for a in content["annotations"]} == {int}


def test_its_own_masks_score_fully_in_cocos_evaluation(images, context, tmp_path):
    only_train = [image for image in images if image.split == "train" and image.objects]
    base.write_formats([coco], iter(only_train), context, tmp_path)
    truth = COCO(str(instances_file(tmp_path)))
    found = [{**annotation, "score": 1.0} for annotation in truth.dataset["annotations"]]
    evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.params.maxDets = [100]
    evaluation.evaluate()
    evaluation.accumulate()
    assert evaluation.eval["precision"].min() == 1
    assert evaluation.eval["recall"].min() == 1
