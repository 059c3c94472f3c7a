"""Truth files other than the demo's own: COCO instances in all three mask forms, and what is refused."""

from __future__ import annotations

import json
from dataclasses import astuple

import numpy as np
import pytest

from pseudoris_cli.demo import grammar
from pseudoris_cli.demo.world import render_scene, scene_seed
from pseudoris_cli.errors import UsageError
from pseudoris_cli.evaluation.truth import known_scene, read_truth, write_scenes
from pseudoris_cli.rle import decode_rle, encode_rle


def test_coco_instances_give_masks_without_attributes(tmp_path):
    square = np.zeros((6, 8), bool)
    square[1:4, 2:5] = True
    code = encode_rle(square)
    forms = [
        [[2, 1, 5, 1, 5, 4, 2, 4]],
        {"size": [6, 8], "counts": [13, 3, 3, 3, 3, 3, 20]},
        {"size": [6, 8], "counts": code.counts},
    ]
    annotations = [{"image_id": 5, "segmentation": form, "iscrowd": 0} for form in forms]
    annotations.append({"image_id": 5, "segmentation": forms[1], "iscrowd": 1})
    images = [{"id": 5, "file_name": "a.jpg", "height": 6, "width": 8}]
    images.append({"id": 6, "file_name": "b.jpg", "height": 6, "width": 8})
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    full, empty = read_truth(path)
    assert (full.key, full.attributes, empty.key, empty.masks) == ("a.jpg", None, "b.jpg", ())
    assert len(full.masks) == 3
    for rle in full.masks:
        assert np.array_equal(decode_rle(rle), square)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "JSON"),
        ("[]", "neither"),
        ('{"images": []}', "neither"),
        ('{"kind": "pseudoris-demo-truth", "images": [{}]}', "not a usable truth file"),
        ('{"images": [{"id": 1}], "annotations": []}', "not a usable truth file"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, text, message):
    path = tmp_path / "truth.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_truth(path)
    assert str(path) in str(caught.value)


def test_rendered_scenes_come_back_with_all_that_is_true_of_them(tmp_path):
    read = read_truth(write_scenes(tmp_path, "demo", 3, first=2))
    assert read == [known_scene(f"{n:06d}.png", render_scene(scene_seed("demo", n))) for n in (2, 3, 4)]
    assert {value for image in read for of in image.attributes for value in astuple(of)} > {"blue", "large", "plain"}


def test_the_file_lists_what_holds_for_each_object_and_whether_for_no_other(tmp_path):
    data = json.loads(write_scenes(tmp_path, "demo", 2, first=4).read_text())
    assert (data["kind"], data["split"]) == ("pseudoris-demo-truth", "demo")
    several = 0
    for number, image in enumerate(data["images"], 4):
        assert (image["file_name"], image["seed"]) == (f"{number:06d}.png", scene_seed("demo", number))
        things = render_scene(image["seed"]).attributes
        for own, known in zip(things, image["objects"], strict=True):
            assert [phrase["text"] for phrase in known["phrases"]] == [grammar.phrase(c) for c in grammar.claims(own)]
            for phrase in known["phrases"]:
                holders = [thing for thing in things if grammar.parse(phrase["text"]).holds(thing)]
                assert own in holders
                assert phrase["unique"] == (len(holders) == 1)
                several += len(holders) > 1
    assert several
