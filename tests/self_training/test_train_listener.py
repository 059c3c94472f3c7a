"""`pseudoris train-listener` and the judge that it makes, through the real commands on a small work directory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from invoking import Outcome, invoke, rows_of
from judge_work import draw_judge_work, judge
from safetensors import safe_open
from small_scenes import scene
from vlm_work import common

from pseudoris_cli.backends import listener_self
from pseudoris_cli.backends.scene_listening import SceneListening, fold_of
from pseudoris_cli.method.protocols import Lineup
from pseudoris_cli.self_training import folds, trainer
from pseudoris_cli.settings.models import Numerics

IMAGES = 14
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "IMAGES", 3)
    monkeypatch.setattr(trainer, "TEXTS", 2)
    monkeypatch.setattr(folds, "LEAST_IMAGES", 4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    draw_judge_work(folder, IMAGES, NOWHERE, masks=2)
    return folder


@pytest.fixture
def kept(made: Path, tmp_path: Path) -> Path:
    """A work directory of 14 pictures with two masks each and kept captions, not judged yet."""
    copy = tmp_path / "kept"
    shutil.copytree(made, copy)
    for file in (copy / "settings.yaml", copy / "work/source.json"):
        file.write_text(file.read_text().replace(str(made), str(copy)))
    return copy


def train(folder: Path, *more: str | Path) -> Outcome:
    return invoke("train-listener", "--work", folder / "work", "--device", "cpu", "--steps", "2", *more)


def hear(checkpoint: Path) -> tuple[str, ...]:
    return ("--set", "filter.judge.backend=listener_self", "--set", f"filter.judge.checkpoint={checkpoint}")


def test_it_learns_from_what_was_kept_and_then_judges(kept: Path) -> None:
    done = train(kept, "--json")
    assert done.code == 0, done.stderr
    told = json.loads(done.stdout)
    path = Path(told["checkpoint"])
    assert path.parent == kept / "work"
    assert (told["images"], told["captions"], told["held_out"]["chance"]) == (IMAGES, IMAGES * 2 * 3, 0.5)
    with safe_open(path, "np") as file:
        about = json.loads(file.metadata()["listener"])
        assert {name.partition(".")[0] for name in file.keys()} == {"0", "1"}  # noqa: SIM118
    assert path.name == f"listener-{about['filter']}.safetensors"
    assert about["steps"] == [2, 2]
    assert {"red", "box", "lowest"} <= set(about["words"])
    judged = invoke("filter", *common(kept), "--new-settings", "--set", "filter.judge.min_doc=-1", *hear(path))
    assert judged.code == 0, judged.stderr
    answers = [row["listener"] for row in rows_of(kept / "work", "judge")]
    assert len(answers) == IMAGES * 2 * 3
    assert all(0 <= float(answer) <= 1 for answer in answers)
    moved = path.rename(kept / "elsewhere.safetensors")
    again = invoke(
        "filter", *common(kept), "--new-settings", "--set", "filter.judge.min_doc=-1", *hear(moved), "--json"
    )
    assert again.code == 0, again.stderr
    assert [one["parts"] for one in json.loads(again.stdout)["stages"]] == [0, 0, 0], "weights count by their digest"


def test_the_same_command_gives_the_same_bytes_and_replaces_only_its_own(kept: Path) -> None:
    out = kept / "own.safetensors"
    assert train(kept, "--out", out).code == 0
    first = out.read_bytes()
    refused = train(kept, "--out", out)
    assert (refused.code, "--overwrite trains it again" in refused.stderr) == (2, True)
    assert train(kept, "--out", out, "--overwrite").code == 0
    assert out.read_bytes() == first
    assert train(kept, "--out", out, "--overwrite", "--seed", "1").code == 0
    assert out.read_bytes() != first
    out.write_text("my notes")
    refused = train(kept, "--out", out, "--overwrite")
    assert (refused.code, "is not a listener that pseudoris trained" in refused.stderr) == (2, True)
    assert out.read_text() == "my notes"


def test_what_it_prints_is_the_next_command(kept: Path) -> None:
    done = train(kept)
    assert done.code == 0, done.stderr
    [command] = [line for line in done.stdout.splitlines() if line.startswith("next: pseudoris ")]
    words = command.removeprefix("next: pseudoris ").split()
    judged = invoke(*words, "--config", kept / "settings.yaml", "--new-settings", "--device", "cpu", "-q")
    assert judged.code == 0, judged.stderr
    assert rows_of(kept / "work", "judge")


def test_lost_and_changed_pictures_are_left_out_and_named(kept: Path) -> None:
    from PIL import Image

    pictures = sorted((kept / "images").glob("*.png"))
    pictures[0].unlink()
    Image.new("RGB", (33, 21)).save(pictures[1])
    told = json.loads(train(kept, "--json").stdout)
    assert told["images"] == IMAGES - 2
    assert set(told["unreadable"]) == {pictures[0].name, pictures[1].name}


def test_too_few_images_and_missing_things_are_told_with_the_next_step(
    kept: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(folds, "LEAST_IMAGES", 20)
    few = train(kept)
    assert (few.code, "needs 40 at the very least" in few.stderr) == (2, True)
    assert not list((kept / "work").glob("*.safetensors"))
    nothing = invoke("train-listener", "--work", tmp_path / "no-such", "--device", "cpu")
    assert nothing.code == 2
    nowhere = train(kept, "--out", tmp_path / "no" / "such" / "folder.safetensors")
    assert (nowhere.code, "there is no folder" in nowhere.stderr) == (2, True)
    unnamed = judge(kept, "--set", "filter.judge.backend=listener_self")
    assert (unnamed.code, "pseudoris train-listener" in unnamed.stderr) == (3, True)


def test_an_image_is_judged_by_the_network_that_has_not_learned_from_it() -> None:
    both = listener_self.load(listener_self.Settings.tiny(), Numerics(), "cpu")
    shown = scene()
    seen = set()
    for number in range(10, 14):
        key = f"{number}-{number % 3}.png"
        lineup = Lineup(key, shown.image_rgb, shown.masks, ("the red one", "a large one"))
        fold = fold_of(key, 2)
        alone = SceneListening([both._networks[fold]], both._vocabulary, "cpu")
        other = SceneListening([both._networks[1 - fold]], both._vocabulary, "cpu")
        assert np.array_equal(both.listen([lineup])[0], alone.listen([lineup])[0])
        assert not np.array_equal(both.listen([lineup])[0], other.listen([lineup])[0])
        seen.add(fold)
    assert seen == {0, 1}


def test_each_network_learns_from_the_other_fold_only(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taught = []

    def noted(images, held_out, *more):  # type: ignore[no-untyped-def]
        taught.append(({one.key for one in images}, {one.key for one in held_out}))
        return trainer.train(images, held_out, *more)

    monkeypatch.setattr(folds, "train", noted)
    assert train(kept).code == 0
    for fold, (learned, held_out) in enumerate(taught):
        assert {fold_of(key, 2) for key in learned} == {1 - fold}
        assert {fold_of(key, 2) for key in held_out} == {fold}
    assert len(taught[0][0]) + len(taught[0][1]) == IMAGES
