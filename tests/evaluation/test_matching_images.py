"""`pseudoris evaluate` measures the images that the truth and the work directory both have, and says how many those are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invoking import invoke
from work_maker import WorkMaker

from pseudoris_cli.evaluation.truth import write_scenes

Maker = Callable[..., WorkMaker]


@pytest.fixture
def maker(tmp_path: Path) -> WorkMaker:
    """Six scenes with their true masks, two images a part."""
    made = WorkMaker(tmp_path / "made", 6, part_size=2)
    made.all()
    return made


def truth_of(folder: Path, scenes: int) -> Path:
    return write_scenes(folder / f"truth-{scenes}", "demo", scenes)


def measured(work: Path, truth: Path, *more: str) -> dict[str, Any]:
    done = invoke("evaluate", "--work", work, "--truth", truth, "--json", *more)
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)


def test_images_that_only_one_side_has_count_nowhere(maker: WorkMaker, tmp_path: Path) -> None:
    same = measured(maker.workspace.root, truth_of(tmp_path, 6))
    assert (same["images"], same["images_in_truth"], same["images_in_masks"]) == (6, 6, 6)
    more = measured(maker.workspace.root, truth_of(tmp_path, 9))
    assert (more["images"], more["images_in_truth"], more["images_in_masks"]) == (6, 9, 6)
    assert more["mask_figures"] == same["mask_figures"]
    assert more["mask_figures"]["recall@.5"]["value"] == 1
    assert more["captions"] == same["captions"]
    fewer = measured(maker.workspace.root, truth_of(tmp_path, 2))
    assert (fewer["images"], fewer["images_in_truth"], fewer["images_in_masks"]) == (2, 2, 6)
    text = invoke("evaluate", "--work", maker.workspace.root, "--truth", truth_of(tmp_path, 9)).stdout
    assert f"measured: 6 images, of 9 in the truth and 6 in masks {same['masks_version']}" in text


@pytest.mark.parametrize("form", ["demo", "coco"])
def test_no_image_in_common_is_an_error_with_a_next_step(maker: WorkMaker, tmp_path: Path, form: str) -> None:
    truth = truth_of(tmp_path, 2)
    data = json.loads(truth.read_text())
    if form == "demo":
        for image in data["images"]:
            image["file_name"] = f"elsewhere/{image['file_name']}"
    else:
        data = {"images": [{"id": 1, "file_name": "elsewhere/0.png", "width": 4, "height": 3}], "annotations": []}
    truth.write_text(json.dumps(data))
    done = invoke("evaluate", "--work", maker.workspace.root, "--truth", truth)
    assert (done.code, done.stdout) == (2, "")
    told = " ".join(done.stderr.split())
    assert "e.g. elsewhere/0" in told
    assert "e.g. 000000.png, so there is nothing to measure" in told
    assert "--truth" in told


def test_a_pilot_is_measured_on_its_own_images(maker: WorkMaker, tmp_path: Path) -> None:
    truth, work = truth_of(tmp_path, 6), maker.workspace.root
    none = invoke("evaluate", "--work", work, "--truth", truth, "--pilot")
    assert (none.code, "has no pilot yet" in none.stderr) == (2, True)
    maker.begin_pilot(2)
    maker.captions(maker.masks())
    assert measured(work, truth)["images"] == 6
    pilot = measured(work, truth, "--pilot")
    assert (pilot["images"], pilot["pilot"]) == (2, "pilot-2")
    assert pilot["mask_figures"]["recall@.5"]["value"] == 1


def test_a_pilot_alone_needs_no_flag(tmp_path: Path) -> None:
    made = WorkMaker(tmp_path / "made", 4)
    made.begin_pilot(1)
    made.masks()
    assert measured(made.workspace.root, truth_of(tmp_path, 4))["images"] == 1


def test_a_failed_image_counts_as_one_without_masks(tmp_path: Path) -> None:
    made = WorkMaker(tmp_path / "made", 2)
    made.masks(broken="000001.png")
    found = measured(made.workspace.root, truth_of(tmp_path, 2))
    assert found["images"] == 2
    assert 0 < found["mask_figures"]["recall@.5"]["value"] < 1


def test_captions_that_are_unfinished_are_left_out_and_named(tmp_path: Path) -> None:
    made = WorkMaker(tmp_path / "made", 4, part_size=2)
    masks = made.masks()
    captions = made.captions(masks, parts=1)
    only = measured(made.workspace.root, truth_of(tmp_path, 4))
    assert (only["left_out"], len(only["captions"])) == ([], 2), "beam and sampled captions of what there is"
    content = {
        "schema": 2,
        "upstream": masks.version,
        "plan": "plan.jsonl",
        "settings": {"backend": "coca", "contrast": 0},
    }
    other = made.workspace.open_version("captions", content, {})
    made._commit(other, lambda part: ((ref.key, []) for ref in made.plan.images(part)))
    found = measured(made.workspace.root, truth_of(tmp_path, 4))
    assert found["left_out"] == [captions.version]
