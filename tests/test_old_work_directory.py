"""A work directory made by version 0.1, before the new layout: read, continued, exported and reported by today's code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from invoking import invoke, rows_of
from locations import FIXTURES

OLD = FIXTURES / "work_0_1"
NAMES = ("masks", "captions", "scores", "filter", "export")
"""The stages that there were."""
TEXTS = ("image_key", "mask_id", "candidate_id", "caption")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A copy that finds its images where they lie now."""
    shutil.copytree(OLD / "work", tmp_path / "work")
    return tmp_path / "work"


def run(work: Path, *more: str) -> dict:
    """`pseudoris run` on it, with an export beside it; what it printed for machines."""
    common = (
        "--work",
        work,
        "--profile",
        "demo",
        "--set",
        "filter.judge.backend=none",
        "--device",
        "cpu",
        "-q",
        "--json",
    )
    done = invoke("run", *common, "--image-root", OLD / "scenes", "--out", work.parent / "out", *more)
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)


def drop_last_part(work: Path, stage: str) -> None:
    """As if the run had been killed before the last part of this stage was committed."""
    version = (work / stage / "current").read_text().strip()
    manifest = work / stage / version / "manifest-main.jsonl"
    *lines, last = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines))
    (manifest.parent / json.loads(last)["file"]["name"]).unlink()


def test_a_run_has_nothing_to_do(work: Path) -> None:
    before = {stage: rows_of(work, stage) for stage in NAMES}
    made = run(work)
    assert [(stage["stage"], stage["parts"]) for stage in made["stages"]] == [(stage, 0) for stage in NAMES]
    assert [stage["rows"] for stage in made["stages"]] == [0] * len(NAMES)
    assert {stage: rows_of(work, stage) for stage in NAMES} == before


def test_its_export_is_the_one_that_it_gave(work: Path, tmp_path: Path) -> None:
    """With masks as run lengths, as they were written then."""
    run(work, "--segmentation", "rle")
    for name in ("refs(pseudo).p", "refs(pseudo).json"):
        assert (tmp_path / "out/refcoco" / name).read_bytes() == (OLD / "export/refcoco" / name).read_bytes()
    new, old = (json.loads((at / "refcoco/instances.json").read_text()) for at in (tmp_path / "out", OLD / "export"))
    for part in ("images", "annotations", "categories"):
        assert new[part] == old[part]


def test_it_is_continued_with_equal_rows(work: Path) -> None:
    """Of what is computed anew, other processors may give other last digits; selection and index are exact everywhere."""
    before = {stage: rows_of(work, stage) for stage in NAMES}
    for stage in ("scores", "filter", "export"):
        drop_last_part(work, stage)
    made = run(work)
    assert {stage["stage"]: stage["parts"] for stage in made["stages"]} == {
        "masks": 0,
        "captions": 0,
        "scores": 1,
        "filter": 1,
        "export": 1,
    }
    for stage in NAMES:
        assert len(rows_of(work, stage)) == len(before[stage])
    for old, new in zip(before["scores"], rows_of(work, "scores"), strict=True):
        for name, value in old.items():
            if name in ("correctness", "uniqueness", "doc"):
                assert float(new[name]) == pytest.approx(float(value), rel=1e-3, abs=1e-4, nan_ok=True)
            elif name != "flags":
                assert new[name] == value
    for stage in ("masks", "captions"):
        assert rows_of(work, stage) == before[stage]


def test_masks_and_captions_of_a_lost_part_come_again(work: Path) -> None:
    before = {stage: rows_of(work, stage) for stage in ("masks", "captions")}
    drop_last_part(work, "masks")
    run(work)
    masks, captions = rows_of(work, "masks"), rows_of(work, "captions")
    assert [(row["image_key"], row["mask_id"]) for row in masks] == [
        (row["image_key"], row["mask_id"]) for row in before["masks"]
    ]
    same = [all(new[n] == old[n] for n in TEXTS) for new, old in zip(captions, before["captions"], strict=True)]
    assert sum(same) >= 0.97 * len(same), "more than near-ties of the sampling differ"


def test_filter_and_index_follow_from_the_old_scores_exactly(work: Path) -> None:
    before = {stage: rows_of(work, stage) for stage in ("filter", "export")}
    drop_last_part(work, "filter")
    drop_last_part(work, "export")
    run(work)
    assert {stage: rows_of(work, stage) for stage in ("filter", "export")} == before


def test_status_report_evaluate_and_prune_read_it(work: Path, tmp_path: Path) -> None:
    done = invoke("status", "--work", work, "--json")
    versions = json.loads(done.stdout)["versions"]
    assert sorted(v["stage"] for v in versions if v["current"]) == sorted(NAMES)
    assert {v["parts"] for v in versions} == {3}
    run(work)  # tells it where the images are now
    assert invoke("report", "--work", work, "--out", tmp_path / "report.html", "-q").code == 0
    assert "the image is gone" not in (tmp_path / "report.html").read_text()
    done = invoke("evaluate", "--work", work, "--truth", OLD / "scenes/truth.json", "--json")
    assert done.code == 0, done.stderr
    assert (
        len(json.loads(done.stdout)["captions"]) == 6
    )  # beam, plain and distinctive, each before and after the filter
    pruned = invoke("prune", "--work", work, "--yes")
    assert pruned.code == 0
    assert "deleted 3" in pruned.stdout  # the chain of plain sampling
