"""`pseudoris filter --decisions FILE`: a version of its own, counted, and refused on other masks before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from invoking import draw_pictures, invoke, rows_of

RANDOM = ("--profile", "random", "--device", "cpu", "-q")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    draw_pictures(tmp_path / "pictures", 2)
    assert invoke("run", "--images", tmp_path / "pictures", "--work", tmp_path / "work", *RANDOM).code == 0
    return tmp_path / "work"


def current(work: Path, stage: str) -> str:
    return (work / stage / "current").read_text().strip()


def write(path: Path, masks: str, rows: list[dict]) -> Path:
    path.write_text(json.dumps({"format": "pseudoris-decisions-1", "masks": masks, "decisions": rows}))
    return path


def test_decisions_are_a_version_and_unknown_ones_are_counted(work: Path, tmp_path: Path) -> None:
    plain = current(work, "filter")
    chosen = next(row for row in rows_of(work, "filter") if row["kept"])
    name = {"image": chosen["image_key"], "mask": int(chosen["mask_id"]), "text": chosen["caption"]}
    rows = [name | {"decision": "drop"}, name | {"text": "nobody says this", "decision": "keep"}]
    file = write(tmp_path / "d.json", current(work, "masks"), rows)
    done = invoke("filter", "--work", work, *RANDOM, "--decisions", file)
    assert done.code == 0, done.stderr
    assert (
        "by hand: 0 kept, 1 dropped, 1 of them other than by the rules; 1 decisions fit no candidate here"
        in done.stdout
    )
    by_hand = current(work, "filter")
    assert by_hand != plain
    told = json.loads(invoke("filter", "--work", work, *RANDOM, "--decisions", file, "--json").stdout)["filter"]
    assert told["by_hand"] == {"kept": 0, "dropped": 1, "changed": 1, "unknown": 1}
    assert told["reasons"]["by hand"] == 1

    file.rename(tmp_path / "elsewhere.json")  # what it says decides, not where it lies
    again = invoke("filter", "--work", work, *RANDOM, "--decisions", tmp_path / "elsewhere.json")
    assert "nothing to do" in again.stdout
    rows[0]["decision"] = "keep"
    write(tmp_path / "elsewhere.json", current(work, "masks"), rows)
    assert invoke("filter", "--work", work, *RANDOM, "--decisions", tmp_path / "elsewhere.json").code == 0
    assert current(work, "filter") not in (plain, by_hand)
    without = invoke("filter", "--work", work, *RANDOM, "--set", "filter.decisions=null")
    assert (without.code, current(work, "filter")) == (0, plain), "without decisions it is the version of before"


def test_decisions_on_other_masks_are_refused_before_any_work(work: Path, tmp_path: Path) -> None:
    before = current(work, "filter")
    file = write(tmp_path / "d.json", "0123456789ab", [])
    done = invoke("filter", "--work", work, *RANDOM, "--decisions", file)
    assert (done.code, "was decided on the masks 0123456789ab" in done.stderr) == (2, True)
    absent = invoke("filter", "--work", work, *RANDOM, "--decisions", tmp_path / "absent.json")
    assert (absent.code, "cannot read the decisions" in absent.stderr) == (2, True)
    assert current(work, "filter") == before
