"""The profiles `modern` and `open`: weights and licences, what doctor says, and a run with small networks in their place."""

from __future__ import annotations

from pathlib import Path

import pytest
from invoking import draw_pictures, invoke, rows_of
from locations import FIXTURES

from pseudoris_cli.settings.resolve import resolve
from pseudoris_cli.weights import fetch, registry

SMALL = {
    "numerics.precision": "fp32",
    "masks.sam.checkpoint": "random:0",
    "masks.sam.points_per_side": 3,
    "masks.sam.pred_iou_thresh": 0.0,
    "masks.sam.stability_score_thresh": 0.0,
    "masks.sam.box_nms_thresh": 0.95,
    "masks.max_per_image": 2,
    "captions.model": str(FIXTURES / "tiny_vlm"),
    "captions.candidates": 2,
    "captions.temperature": 0.0,
    "captions.max_tokens": 48,
    "captions.max_side": 256,
    "filter.scorer.model": "tiny",
    "filter.scorer.checkpoint": "random:0",
    "filter.nouns.pipeline": "blank",
}
CONCEPTS = {
    "masks.proposals.checkpoint": "random:0",
    "masks.proposals.score_thresh": 0.0,
    "filter.judge.backend": "none",
}


@pytest.mark.parametrize("profile", ["modern", "open"])
def test_all_that_a_profile_needs_is_registered_with_its_licence(profile: str) -> None:
    needed = fetch.needed(resolve(profile).settings)
    entries = [registry.registry()[name] for name in needed]
    assert {"sam2.1_hiera_large", "pe_core_l14", "en_core_web_lg"} < set(needed)
    assert all(entry.licence for entry in entries)
    assert ("sam3" in needed) == (profile == "modern")
    if profile == "open":
        assert {entry.commercial for entry in entries} == {"yes"}


def test_the_papers_profile_has_the_papers_models() -> None:
    settings = resolve("paper").settings
    assert (settings.masks.sam.backend, settings.masks.proposals.backend, settings.captions.backend) == (
        "sam",
        "cascade_rcnn",
        "coca",
    )
    assert settings.filter.scorer.model_dump()["interpolation"] == "bilinear"


def test_doctor_names_what_is_missing_and_fetches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("PSEUDORIS_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    told = invoke("doctor", "--profile", "modern", "--work", tmp_path / "work")
    for name in ("sam2.1_hiera_large", "sam3", "qwen3_vl_8b", "pe_core_l14"):
        assert f"pseudoris weights fetch {name}" in told.stdout, name
    assert told.code == 3


@pytest.mark.parametrize("profile", ["modern", "open"])
def test_a_run_with_small_networks(tmp_path: Path, profile: str) -> None:
    draw_pictures(tmp_path / "images", 1)
    values = SMALL | (CONCEPTS if profile == "modern" else {})
    options = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    work = tmp_path / "work"
    done = invoke(
        "run",
        "--profile",
        profile,
        "--images",
        tmp_path / "images",
        "--out",
        tmp_path / "out",
        "--work",
        work,
        *options,
    )
    assert done.code in (0, 4), done.stderr
    assert rows_of(work, "masks")
