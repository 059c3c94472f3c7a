"""Which version later commands take: pilots, refused and interrupted commands take over from none."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
from command_server import SMALL, Call, CommandServer, Job
from invoking import Outcome, draw_pictures, invoke, rows_of

from pseudoris_cli.storage.workspace import Workspace

pytestmark = pytest.mark.timeout(300)
PILOT = "plan-pilot-2.jsonl"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of three pictures, and then a pilot of two."""
    folder = tmp_path_factory.mktemp("current")
    draw_pictures(folder / "images", 3)
    assert call(folder, "run", "--images", folder / "images", *SMALL).code == 0
    done = call(folder, "run", "--pilot", "2", *SMALL)
    assert done.code == 0, done.stderr
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def call(folder: Path, command: str, *arguments: str | Path) -> Outcome:
    return invoke(command, *arguments, "--work", folder / "work")


def current(folder: Path) -> dict[str, str | None]:
    workspace = Workspace(folder / "work")
    return {stage: workspace.current(stage) for stage in ("masks", "captions", "scores", "filter")}


def keys(folder: Path, stage: str, plan: str = "plan.jsonl") -> set[str]:
    return {row["image_key"] for row in rows_of(folder / "work", stage, plan)}


def test_a_pilot_after_a_run_leaves_the_export_whole(place: Path) -> None:
    assert len(keys(place, "filter")) == 3
    assert len(keys(place, "filter", PILOT)) == 2
    done = call(place, "export", "--out", place / "out", *SMALL)
    assert done.code == 0, done.stderr
    assert len(json.loads((place / "out/refcoco/instances.json").read_text())["images"]) == 3


def test_pilot_on_later_commands_follows_the_pilot(place: Path) -> None:
    before = current(place)
    for more in (["--pilot"], ["--pilot", "2"]):
        done = call(place, "filter", *more, "--min-doc", "0.1", "--json", "-q", *SMALL)
        assert done.code == 0, done.stderr
        made = json.loads(done.stdout)["stages"][-1]
        assert sum(made["total_counts"].values()) == 2
    workspace = Workspace(place / "work")
    assert workspace.current("filter", PILOT) == made["version"]
    assert current(place) == before
    assert call(place, "export", "--pilot", "--out", place / "trial", *SMALL).code == 0
    assert len(json.loads((place / "trial/refcoco/instances.json").read_text())["images"]) == 2


def test_a_version_made_from_a_pilot_by_name_is_the_pilots(place: Path) -> None:
    before, pilot = current(place), Workspace(place / "work").current("masks", PILOT)
    assert pilot
    assert call(place, "captions", "--from", pilot[:5], "--set", "captions.seed=3", *SMALL).code == 0
    assert current(place) == before


def test_an_export_that_is_refused_leaves_nothing(place: Path) -> None:
    before = {
        path: path.read_bytes() for path in (place / "work").rglob("*") if path.is_file() and path.suffix != ".lock"
    }
    done = call(place, "export", "--out", place / "out", "--split", "train=.5,val=.2", *SMALL)
    assert (done.code, "split" in done.stderr) == (2, True)
    assert not (place / "out").exists()
    after = {
        path: path.read_bytes() for path in (place / "work").rglob("*") if path.is_file() and path.suffix != ".lock"
    }
    assert after == before


def test_a_version_that_was_interrupted_takes_over_once_it_is_whole(place: Path, command_server: CommandServer) -> None:
    before = current(place)
    other = ["captions", "--work", "work", "--set", "captions.seed=5", *SMALL, "--set", "captions.seed=5"]
    [[killed]] = command_server.run([Job(str(place), [Call(other, kill_at=40)])])
    assert killed.code == -signal.SIGKILL
    assert current(place) == before
    unfinished = Workspace(place / "work").unfinished("captions")
    assert unfinished not in (None, before["captions"])
    done = call(place, "filter", *SMALL)
    assert done.code == 0
    assert f"taking captions {before['captions']}; {unfinished} was begun since" in " ".join(done.stderr.split())
    assert current(place) == before
    assert call(place, "captions", *SMALL, "--set", "captions.seed=5").code == 0
    assert current(place) == {**before, "captions": unfinished}
    told = " ".join(call(place, "export", "--out", place / "out", *SMALL).stderr.split())
    assert f"was made from captions {before['captions']}; captions {unfinished} is current" in told


def test_shards_of_one_version_make_it_current_together(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "images", 3)
    first = ["masks", "--images", tmp_path / "images", *SMALL]
    assert call(tmp_path, *first, "--shard", "0/2").code == 0
    assert current(tmp_path)["masks"] is None
    refused = call(tmp_path, "captions", *SMALL)
    assert (refused.code, "masks is incomplete: 1 of 3 parts" in refused.stderr) == (2, True)
    assert not (tmp_path / "work" / "captions").exists() or not list((tmp_path / "work" / "captions").glob("*/"))
    partly = call(tmp_path, "captions", "--allow-partial", *SMALL)
    assert partly.code == 0, partly.stderr
    assert current(tmp_path)["captions"] is None
    assert call(tmp_path, *first, "--shard", "1/2").code == 0
    assert current(tmp_path)["masks"] is not None
    assert call(tmp_path, "captions", *SMALL).code == 0
    assert keys(tmp_path, "captions") == keys(tmp_path, "masks")


def test_a_pilot_alone_is_no_run(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "images", 2)
    none = call(tmp_path, "captions", "--pilot", *SMALL)
    assert (none.code, "has no pilot yet" in none.stderr) == (2, True)
    assert call(tmp_path, "masks", "--images", tmp_path / "images", "--pilot", "1", *SMALL).code == 0
    done = call(tmp_path, "captions", *SMALL)
    assert (done.code, "there is pilot-1 only: add --pilot" in done.stderr) == (2, True)
    assert call(tmp_path, "captions", "--pilot", *SMALL).code == 0


def test_use_chooses_a_version_and_what_it_was_made_from(place: Path) -> None:
    first = current(place)
    changed = ["run", "--set", "masks.max_per_image=1", *SMALL, "--set", "masks.max_per_image=1"]
    assert call(place, *changed).code == 0
    second = current(place)
    assert all(first[stage] != second[stage] for stage in first)
    assert first["captions"]
    done = call(place, "use", "captions", first["captions"][:6])
    assert done.code == 0, done.stderr
    assert current(place) == first, "its masks, and the finished scores and filter made from it"
    assert all(str(version) in done.stdout for version in first.values())
    assert call(place, "export", "--out", place / "out", *SMALL).code == 0
    assert call(place, "use", "masks", "").code == 2
    assert "did you mean captions" in call(place, "use", "caption", "1").stderr
    wrong = call(place, "use", "captions", "zz")
    assert (wrong.code, "there is no version 'zz'" in wrong.stderr) == (2, True)


def test_a_shard_of_filter_goes_through_all_its_stages_while_others_have_not_begun(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "images", 3)
    assert call(tmp_path, "masks", "--images", tmp_path / "images", *SMALL).code == 0
    assert call(tmp_path, "captions", *SMALL).code == 0
    for shard in ("0/2", "1/2"):
        done = call(tmp_path, "filter", *SMALL, "--shard", shard)
        assert done.code == 0, done.stderr
    assert keys(tmp_path, "filter") == keys(tmp_path, "masks")
