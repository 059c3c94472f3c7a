"""The judge in the chain: an optional stage between scores and filter, through the real command with a small random listener."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from invoking import draw_pictures, invoke, rows_of
from locations import REPOSITORY

from pseudoris_cli.settings.resolve import resolve
from pseudoris_cli.stages import judge

COMMON = ("--config", REPOSITORY / "configs/random.yaml", "--device", "cpu", "-q")
LISTENER = ("filter.judge.backend=listener_demo", "filter.judge.checkpoint=random:0")
STAGES = ("masks", "captions", "scores", "judge", "filter")


def setting(*assignments: str) -> list[str]:
    return [word for assignment in assignments for word in ("--set", assignment)]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four pictures without a judge, and then with one who is asked everything and convinced by little."""
    folder = tmp_path_factory.mktemp("judge")
    draw_pictures(folder / "images", 4)
    run = ("run", "--images", folder / "images", "--work", folder / "work", *COMMON, *setting("source.part_size=2"))
    plain = invoke(*run)
    assert plain.code == 0, plain.stderr
    before = {stage: rows_of(folder / "work", stage) for stage in STAGES if stage != "judge"}
    asked = setting(
        *LISTENER, "filter.judge.min_doc=-1", "filter.judge.multi=true", "filter.judge.no_target_per_image=3"
    )
    judged = invoke(*run, *asked, "--json")
    assert judged.code == 0, judged.stderr
    made = {stage["stage"]: stage for stage in json.loads(judged.stdout)["stages"]}
    assert list(made) == list(STAGES)
    assert {name: one["parts"] for name, one in made.items()} == dict.fromkeys(STAGES[:3], 0) | dict.fromkeys(
        STAGES[3:], 2
    )
    (folder / "before.json").write_text(json.dumps(before, default=int))
    return folder / "work"


def test_every_candidate_has_an_answer_or_null(work: Path) -> None:
    scored, rows = rows_of(work, "scores"), rows_of(work, "judge")
    own = [row for row in rows if row["mask_id"] >= 0]
    identity = ("image_key", "mask_id", "candidate_id")
    assert [[row[name] for name in identity] for row in own] == [[row[name] for name in identity] for row in scored]
    texts = Counter((row["image_key"], row["mask_id"], row["caption"].strip()) for row in own)
    asked = [row for row in own if row["listener_shown"] is not None]
    assert max(Counter((r["image_key"], r["mask_id"]) for r in asked).values()) <= 16
    assert 0 < len(asked) < len(own)
    assert len({(r["image_key"], r["mask_id"], r["caption"].strip()) for r in asked}) == len(asked) <= len(texts)
    masks = Counter(row["image_key"] for row in rows_of(work, "masks"))
    for row in asked:
        assert len(row["listener_shown"]) == masks[row["image_key"]]
        assert int(float(row["listener_choice"])) in (-1, *row["listener_shown"])
        assert 0 <= float(row["listener"]) <= 1
        assert set(row["listener_targets"]) <= set(row["listener_shown"])
    for row in own:
        if row["listener_shown"] is None:
            assert (row["listener"], row["listener_targets"]) == ("nan", None)


def test_expressions_of_other_images_that_fit_nothing(work: Path) -> None:
    rows = rows_of(work, "judge")
    foreign = [row for row in rows if row["mask_id"] == -1]
    own = {(row["image_key"], row["caption"]) for row in rows if row["mask_id"] >= 0}
    assert all((row["image_key"], row["caption"]) not in own for row in foreign)
    assert all(row["listener_targets"] == [] for row in foreign)
    assert max(Counter(row["image_key"] for row in foreign).values(), default=0) <= 3


def test_the_filter_says_what_the_listener_heard(work: Path) -> None:
    judged = {(r["image_key"], r["mask_id"], r["candidate_id"]): r for r in rows_of(work, "judge")}
    rows = rows_of(work, "filter")
    assert all(row["mask_id"] >= 0 for row in rows)
    for row in rows:
        heard = judged[row["image_key"], row["mask_id"], row["candidate_id"]]
        for name in ("listener", "listener_none", "listener_best_other", "listener_choice", "listener_targets"):
            assert row[name] == heard[name]
        if row["kept"]:
            assert float(row["listener"]) > 0.5
    assert {row["reason"] for row in rows} & {"listener none", "listener other", "listener"}


def test_without_a_judge_everything_is_as_it_was(work: Path) -> None:
    images = work.parent / "images"
    nobody = setting("source.part_size=2", "filter.judge.backend=none")
    again = invoke("run", "--images", images, "--work", work, *COMMON, *nobody, "--json")
    assert again.code == 0, again.stderr
    stages = json.loads(again.stdout)["stages"]
    assert [(one["stage"], one["parts"]) for one in stages] == [(stage, 0) for stage in STAGES if stage != "judge"]
    before = json.loads((work.parent / "before.json").read_text())
    assert json.loads(json.dumps({stage: rows_of(work, stage) for stage in before}, default=int)) == before
    assert "listener" not in before["filter"][0]


def test_versions_follow_what_decides_the_answers() -> None:
    def version(*assignments: str) -> dict:
        return judge.version_content(resolve(assignments=[*LISTENER, *assignments]).settings)

    plain = version()
    for changes in ("judge.permutations=3", "judge.max_marks=5", "judge.seed=1", "judge.multi=true", "judge.ask_per_mask=3",
                    "judge.no_target_per_image=1", "judge.checkpoint=random:1", "judge.min_doc=1.1", "min_doc=1.1",
                    "min_words=2", "max_words=9"):  # fmt: skip
        assert version(f"filter.{changes}") != plain, changes
    for nothing in ("judge.image_batch=2", "min_listener=.9", "fallback=best", "top_k_per_mask=1"):
        assert version(f"filter.{nothing}") == plain, nothing
    own = version("filter.judge.min_doc=-1")
    assert version("filter.judge.min_doc=-1", "filter.min_doc=1.5") == own, "a stricter selection asks nobody again"


def test_it_is_wanted_only_with_a_listener() -> None:
    assert not judge.is_wanted(resolve().settings)
    assert judge.is_wanted(resolve(assignments=list(LISTENER)).settings)


def test_the_order_of_the_masks_changes_no_answer_of_this_listener() -> None:
    from lineups import image

    from pseudoris_cli.backends import registry as backends
    from pseudoris_cli.method.protocols import Lineup
    from pseudoris_cli.settings.models import Numerics

    listener = backends.load(judge.judge_settings(resolve(assignments=list(LISTENER)).settings), Numerics(), "cpu")
    one = image(4)
    there, back = listener.listen(
        [Lineup("a", one.image_rgb, masks, ("the red circle",)) for masks in (one.masks, one.masks[::-1])]
    )
    assert np.allclose(there[:, :4], back[:, 3::-1], atol=1e-5)
