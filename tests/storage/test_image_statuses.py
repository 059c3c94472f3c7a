"""What docs/artifacts.md says of statuses, flags and reasons is so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoking import draw_pictures, invoke
from locations import REPOSITORY

from pseudoris_cli.method import selection
from pseudoris_cli.method.scoring import FLAGS
from pseudoris_cli.settings.models import FilterSettings
from pseudoris_cli.storage.manifest import ImageOutcome
from pseudoris_cli.storage.workspace import Workspace

PAGE = (REPOSITORY / "docs" / "artifacts.md").read_text()


def listed(title: str) -> list[str]:
    """The names in the first column of the table with this head."""
    table = PAGE.split(f"| {title} | means |\n|---|---|\n")[1].split("\n\n")[0]
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)


def outcomes(work: Path, stage: str) -> dict[str, ImageOutcome]:
    entries = Workspace(work).latest(stage).manifest().entries
    return {image.key: image for entry in entries.values() for image in entry.images}


@pytest.fixture
def run(tmp_path: Path) -> Iterator:
    work = tmp_path / "work"

    def command(*arguments: str | Path) -> int:
        return invoke(*arguments, "--work", work, "--config", "configs/demo.yaml", "--device", "cpu", "-q").code

    draw_pictures(tmp_path / "images", 3)
    (tmp_path / "images" / "000.png").write_bytes(b"no image")
    assert command("masks", "--images", tmp_path / "images") == 4
    return command


def test_a_deleted_image_stays_done_and_is_gone_for_who_still_reads_it(run, tmp_path: Path) -> None:
    (tmp_path / "images" / "001.png").unlink()
    run("masks")
    assert {k: i.status for k, i in outcomes(tmp_path / "work", "masks").items()} == {
        "000.png": "failed", "001.png": "done", "002.png": "done",
    }  # fmt: skip
    run("captions")
    captions = outcomes(tmp_path / "work", "captions")
    assert {k: i.status for k, i in captions.items()} == {"000.png": "empty", "001.png": "gone", "002.png": "done"}
    assert captions["000.png"].error.startswith("masks: ")


def test_captions_of_a_table_read_no_image(run, tmp_path: Path) -> None:
    (tmp_path / "images" / "001.png").unlink()
    (tmp_path / "own.csv").write_text("image,mask,text\n001.png,0,a red circle\n")
    assert run("captions", "--set", "captions.backend=table", "--set", f"captions.path={tmp_path / 'own.csv'}") == 0
    found = {k: (i.status, i.error) for k, i in outcomes(tmp_path / "work", "captions").items()}
    assert (found["001.png"], found["002.png"]) == (("done", None), ("empty", None))
    assert found["000.png"][0] == "empty"
    assert found["000.png"][1].startswith("masks: ")


def test_the_page_lists_flags_reasons_and_statuses() -> None:
    assert listed("flag") == list(FLAGS)
    assert listed("status") == ["done", "empty", "failed", "gone"]
    named = re.findall(r"^    (\S+) {2,}\S", selection.__doc__ or "", re.MULTILINE)
    assert [name.replace("<=1", "<=X") for name in listed("reason")] == [*named, "by hand"]


@pytest.mark.parametrize(
    ("texts", "half", "kept"), [(5, "texts", 3), (4, "texts", 2), (5, "candidates", 2), (4, "candidates", 2)]
)
def test_the_one_mask_rule_is_that_of_the_page(texts: int, half: str, kept: int) -> None:
    columns = {
        "image_key": ["a"] * texts,
        "mask_id": [0] * texts,
        "caption": [f"text {n}" for n in range(texts)],
        "correctness": [0.1 * n for n in range(texts)],
        "doc": [None] * texts,
        "flags": ["one_mask"] * texts,
    }
    chosen = selection.select(columns, FilterSettings(one_mask_half=half))
    assert chosen["kept"].tolist() == [False] * (texts - kept) + [True] * kept
    assert chosen["reason"].tolist() == ["one-mask"] * (texts - kept) + [""] * kept
