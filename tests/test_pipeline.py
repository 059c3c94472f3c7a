"""The way through the house with the real command: four stages on pictures, caching, growth, new versions, export."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from invoking import Outcome, draw_pictures, invoke, rows_of
from locations import REPOSITORY

from pseudoris_cli.cli import console
from pseudoris_cli.storage.plan import Plan
from pseudoris_cli.storage.workspace import Workspace

pytestmark = pytest.mark.timeout(300)
PARTS = ("--set", "source.part_size=2")
BATCHES = ("--set", "masks.image_batch=1", "--set", "captions.image_batch=1")
STAGES = ["masks", "captions", "scores", "filter", "export"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `run` has done four pictures with small random networks."""
    folder = tmp_path_factory.mktemp("pipeline")
    draw_pictures(folder / "pictures", 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "LOG_EVERY_SECONDS", 0)
        done = run(folder)
    assert done.code == 0, done.stderr
    (folder / "progress.txt").write_text(done.stderr)
    return folder


def run(folder: Path, *more: str) -> Outcome:
    config = REPOSITORY / "configs" / "random.yaml"
    return invoke(
        "run", "--images", folder / "pictures", "--work", folder / "work", "--out", folder / "out", "--config", config,
        "--device", "cpu", "--json", *PARTS, *BATCHES, *more,
    )  # fmt: skip


def parts_done(done: Outcome) -> dict[str, int]:
    assert done.code == 0, done.stderr
    return {stage["stage"]: stage["parts"] for stage in json.loads(done.stdout)["stages"]}


def test_every_picture_gets_masks_and_a_kept_caption(place: Path) -> None:
    masks = Counter(row["image_key"] for row in rows_of(place / "work", "masks"))
    kept = Counter(row["image_key"] for row in rows_of(place / "work", "filter") if row["kept"])
    assert set(masks) == {f"{n:03d}.png" for n in range(4)}
    assert min(masks.values()) >= 2
    assert set(kept) == set(masks)


def test_every_mask_has_its_44_candidates_and_each_has_a_verdict(place: Path) -> None:
    candidates = Counter((row["image_key"], row["mask_id"]) for row in rows_of(place / "work", "captions"))
    assert set(candidates.values()) == {44}
    verdicts = rows_of(place / "work", "filter")
    assert len(verdicts) == sum(candidates.values())
    assert all(row["kept"] == (row["reason"] == "") for row in verdicts)


def test_progress_counts_what_a_stage_makes_image_by_image(place: Path) -> None:
    told = (place / "progress.txt").read_text()
    for stage, unit in (("masks", "masks"), ("captions", "captions")):
        rates = re.findall(rf"^{stage}: 1/4 images [\d.]+/s, ([\d.,]+) {unit}/s, about \d", told, re.MULTILINE)
        assert rates
        assert all(float(rate.replace(",", "")) > 0 for rate in rates)


def test_the_export_loads_with_pycocotools(place: Path) -> None:
    from pycocotools import mask
    from pycocotools.coco import COCO

    coco = COCO(str(place / "out" / "refcoco" / "instances.json"))
    refs = json.loads((place / "out" / "refcoco" / "refs(pseudo).json").read_text())
    masks = {(row["image_key"], row["mask_id"]): row for row in rows_of(place / "work", "masks")}
    index = {row["ref_id"]: row for row in rows_of(place / "work", "export")}
    assert {ref["ref_id"] for ref in refs} == set(index)
    for ref in refs:
        annotation = coco.anns[ref["ann_id"]]
        own = masks[index[ref["ref_id"]]["image_key"], index[ref["ref_id"]]["mask_id"]]
        assert int(mask.decode(coco.annToRLE(annotation)).sum()) == own["area"] == annotation["area"]
        assert annotation["bbox"] == [int(value) for value in own["bbox"]]


def test_a_second_run_does_nothing_and_says_so(place: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*.parquet")}
    assert parts_done(run(place)) == dict.fromkeys(STAGES, 0)
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*.parquet")} == before
    plain = invoke("filter", "--work", place / "work", "--config", "configs/random.yaml")
    assert plain.stdout.count("nothing to do") == 2


def test_another_threshold_recomputes_no_score_and_makes_a_version_of_its_own(place: Path) -> None:
    first = json.loads(invoke("status", "--work", place / "work", "--json").stdout)["versions"]
    done = invoke("filter", "--work", place / "work", "--config", "configs/random.yaml", "--min-doc", "1.2", "--json")
    assert parts_done(done) == {"scores": 0, "filter": 2}
    versions = json.loads(invoke("status", "--work", place / "work", "--json").stdout)["versions"]
    assert Counter(v["stage"] for v in versions) == Counter(v["stage"] for v in first) + Counter(["filter"])
    assert all(
        float(row["doc"]) > 1.2 for row in rows_of(place / "work", "filter") if row["kept"] and row["doc"] != "nan"
    )


def test_a_changed_captions_setting_leaves_the_masks_alone(place: Path) -> None:
    assert parts_done(run(place, "--set", "captions.seed=1")) == dict.fromkeys(STAGES, 2) | {"masks": 0}
    assert parts_done(run(place)) == dict.fromkeys(STAGES, 0), "the first version is still there"


def test_new_pictures_are_the_only_ones_worked_on_and_ids_stay(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "pictures", 2)
    assert parts_done(run(tmp_path)) == dict.fromkeys(STAGES, 1)
    before = rows_of(tmp_path / "work", "export")
    draw_pictures(tmp_path / "pictures", 1, first=2)
    assert parts_done(run(tmp_path)) == dict.fromkeys(STAGES, 1)
    assert rows_of(tmp_path / "work", "export")[: len(before)] == before


def test_a_mistaken_source_is_corrected_until_images_are_planned(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "mistaken", 1)
    draw_pictures(tmp_path / "pictures", 2)
    work = ("--work", tmp_path / "work", "--device", "cpu")
    absent = ("--set", "masks.sam.checkpoint=absent.pth")
    for folder in ("mistaken", "pictures"):
        missing = invoke("masks", "--images", tmp_path / folder, *work, *absent)
        assert (missing.code, "absent.pth" in missing.stderr) == (3, True)
        assert "take random weights:  --set masks.sam.checkpoint=random:0" in missing.stderr
    assert parts_done(run(tmp_path))["masks"] == 1
    other = invoke("masks", "--images", tmp_path / "mistaken", *work, *absent)
    assert (other.code, "one work directory has one source" in other.stderr) == (2, True)


def test_a_source_that_another_command_has_corrected_is_not_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_pictures(tmp_path / "pictures", 1)
    draw_pictures(tmp_path / "others", 1)
    workspace, extend = Workspace(tmp_path / "work"), Plan.extend

    def meanwhile(self: Plan, *arguments: Any, **more: Any) -> int:
        workspace.set_source({**(workspace.source() or {}), "root": str(tmp_path / "others")})
        return extend(self, *arguments, **more)

    monkeypatch.setattr(Plan, "extend", meanwhile)
    done = run(tmp_path)
    assert (done.code, "another command has just given" in done.stderr) == (2, True), done
    assert not workspace.has_plan()


def test_another_source_and_a_foreign_folder_are_refused(place: Path, tmp_path: Path) -> None:
    draw_pictures(tmp_path / "others", 1)
    other = invoke("masks", "--images", tmp_path / "others", "--work", place / "work")
    assert (other.code, "one work directory has one source" in other.stderr) == (2, True)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("...")
    taken = invoke(
        "export", "--work", place / "work", "--config", "configs/random.yaml", "--out", tmp_path / "precious"
    )
    assert (taken.code, "choose another --out" in taken.stderr) == (2, True)
    assert (tmp_path / "precious" / "thesis.tex").exists()


def test_unreadable_pictures_are_failures_with_a_reason_and_exit_code_4(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "pictures", 1)
    (tmp_path / "pictures" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    done = run(tmp_path)
    assert done.code == 4
    assert "1 in masks" in done.stderr
    listed = invoke("status", "--work", tmp_path / "work", "--failed")
    assert listed.stdout.startswith("masks\tbroken.jpg\tfailed\t")


def test_own_masks_need_no_sam_and_are_the_masks(tmp_path: Path) -> None:
    from pseudoris_cli.evaluation.truth import write_scenes

    write_scenes(tmp_path / "pictures", "tune", 1)
    truth = json.loads((tmp_path / "pictures" / "truth.json").read_text())["images"][0]
    annotations = [
        {"id": n, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": one["segmentation"]}
        for n, one in enumerate(truth["objects"])
    ]
    own = {
        "images": [{"id": 1, "file_name": truth["file_name"], "width": 256, "height": 192}],
        "annotations": annotations,
    }
    (tmp_path / "own.json").write_text(json.dumps(own))
    done = invoke(
        "masks", "--images", tmp_path / "pictures", "--work", tmp_path / "work", "--device", "cpu",
        "--set", "masks.proposals.backend=coco_masks", "--set", f"masks.proposals.path={tmp_path / 'own.json'}",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    found = {row["rle_counts"] for row in rows_of(tmp_path / "work", "masks")}
    assert found == {one["segmentation"]["counts"] for one in truth["objects"]}


def test_the_authors_layout_is_found_without_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Path("configs/random.yaml").resolve()
    draw_pictures(tmp_path / "datasets" / "images" / "train2014", 1)
    monkeypatch.chdir(tmp_path)
    done = invoke("masks", "--config", config, "--device", "cpu")
    assert (done.code, "laid out like the authors'" in done.stderr) == (0, True)
    assert {row["image_key"] for row in rows_of(tmp_path / "pseudoris-work", "masks")} == {"000.png"}


def test_a_pilot_is_a_version_of_its_own_and_ends_with_its_report(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "pictures", 4)
    call = ("masks", "--images", tmp_path / "pictures", "--work", tmp_path / "work", "--config", "configs/random.yaml")
    pilot = invoke(*call, "--device", "cpu", "--pilot", "2")
    assert pilot.code == 0, pilot.stderr
    assert {row["image_key"] for row in rows_of(tmp_path / "work", "masks", "plan-pilot-2.jsonl")} == {
        "000.png",
        "002.png",
    }
    report = Path(pilot.stdout.split()[-1])
    assert report.is_file()
    assert not (tmp_path / "work" / "plan.jsonl").exists()
    assert invoke(*call, "--device", "cpu").code == 0
    assert len({row["image_key"] for row in rows_of(tmp_path / "work", "masks")}) == 4
    versions = json.loads(invoke("status", "--work", tmp_path / "work", "--json").stdout)["versions"]
    assert sorted(version["images"] for version in versions) == [2, 4]
