"""What passes of an answer, what a part's line in the manifest keeps of the rest, and the seeds of answers."""

from __future__ import annotations

import itertools
import json

import pytest

from pseudoris_cli.prompting import leaks
from pseudoris_cli.prompting.answers import Expression
from pseudoris_cli.prompting.prompts import load_prompt
from pseudoris_cli.prompting.selecting import MOST_TEXTS, Outcome, request_seed, usable
from pseudoris_cli.prompting.settings import PromptSettings

ANSWER = json.dumps(["the red cup", "object 3", "the left cup", "cup 2"])


def test_style_and_marks_decide_what_passes() -> None:
    free = usable(ANSWER, "free", 5)
    assert free.passed == [Expression("the red cup"), Expression("the left cup")]
    assert free.rejected == [(leaks.MARKS, "object 3"), (leaks.MARKS, "cup 2")]
    assert [one.text for one in usable(ANSWER, "refcoco+", 5).passed] == ["the red cup"]
    assert [one.text for one in usable(ANSWER, "free", 1).passed] == ["the red cup", "the left cup", "cup 2"]
    assert usable(ANSWER, "refcoco+", 5).rejected[1] == (leaks.POSITION, "the left cup")


def test_why_nothing_passed() -> None:
    assert usable("", "free", 1).reason("length") == "the answer was cut off (max_tokens)"
    assert usable("", "free", 1).reason("stop") == "it holds no expressions"
    both = usable('["object 3", "the left cup"]', "refcoco+", 5)
    assert both.passed == []
    assert both.reason("length") == "every expression was rejected: names the marks, position words in refcoco+"


def test_the_manifest_counts_all_and_keeps_the_first_texts() -> None:
    outcome = Outcome()
    assert outcome.notes() == {}
    outcome.add("a.png", 4, [("why", "x"), ("other", "y")], None)
    outcome.add("a.png", 7, [], "no answer")
    outcome.add("a.png", 8, [], "no answer either")
    outcome.add("b.png", 1, [("why", str(n)) for n in range(MOST_TEXTS)], None)
    outcome.add("b.png", 2, [("why", "too many")], None)
    notes = json.loads(json.dumps(outcome.notes()))
    assert notes["rejected"] == {"why": MOST_TEXTS + 2, "other": 1}
    assert notes["rejected_texts"][:3] == [
        ["a.png", 4, "why", "x"],
        ["a.png", 4, "other", "y"],
        ["b.png", 1, "why", "0"],
    ]
    assert len(notes["rejected_texts"]) == MOST_TEXTS
    assert notes["rejected_texts"][-1] == ["b.png", 1, "why", str(MOST_TEXTS - 3)]
    assert notes["failed_masks"] == {"a.png": {"7": "no answer", "8": "no answer either"}}


def test_a_seed_is_of_what_is_asked_and_stays() -> None:
    """Answers of earlier runs stand in work directories: the same request must be sent again for the same row."""
    asked = itertools.product((0, 1), ("a.png", "b.png", "\udcff.png"), (3, 4), (0, 1))
    seeds = [request_seed(*one) for one in asked]
    assert len(set(seeds)) == 24
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert request_seed(0, "a.png", 3, 0) == 1136669261
    assert request_seed(0, "\udcff.png", 3, 0) == 1309635364


@pytest.mark.parametrize("name", ["view", "style", "language", "candidates"])
def test_settings_choose_the_prompt(name: str) -> None:
    class Settings(PromptSettings):
        backend: str = "vlm"

        @classmethod
        def tiny(cls) -> Settings:
            return cls()

    other = {"view": "crop", "style": "refcoco", "language": "Welsh", "candidates": 3}
    given = {"view": "marks+crop", "style": "free", "language": "English", "candidates": 8, name: other[name]}
    assert Settings(**{name: other[name]}).load_prompt() == load_prompt("refer", **given)  # type: ignore[arg-type]


def test_a_second_request_says_why_and_asks_for_the_same_form() -> None:
    said = load_prompt("refer", "crop", "free", "English", 4).repair("it holds no expressions")
    assert said.startswith("That is not the answer asked for (it holds no expressions). Answer with JSON")
