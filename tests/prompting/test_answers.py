"""Answers as models write them, the rules that reject what speaks of the overlay, and the prompts that ask."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudoris_cli.errors import UsageError
from pseudoris_cli.prompting import leaks
from pseudoris_cli.prompting.answers import Expression, parse
from pseudoris_cli.prompting.prompts import KINDS, Style, answer_schema, load_prompt
from pseudoris_cli.prompting.views import Shown, View

TWO = [Expression("the red ball", "attribute"), Expression("ball left of the dog", "relation")]
ASKED = json.dumps({"expressions": [{"text": e.text, "kind": e.kind} for e in TWO]})
SHAPES = {
    "as asked": ASKED,
    "indented": json.dumps(json.loads(ASKED), indent=2),
    "fence": f"Here you are:\n```json\n{ASKED}\n```\nAnything else?",
    "fence without end": f"```\n{ASKED}",
    "words around": f"Sure! {ASKED} I hope this {{helps}}.",
    "a thought before": f'<think>Is {{"text": "no"}} right?</think>{ASKED}',
    "bare list": json.dumps(json.loads(ASKED)["expressions"]),
    "python": str(json.loads(ASKED)),
    "a comma too many": ASKED.replace("}]}", "},]}"),
    "cut off": ASKED[:-3] + '}, {"text": "the ba',
    "cut off in the kind": ASKED.replace('"relation"}]}', '"relation"'),
    "another name": ASKED.replace("expressions", "referring_expressions").replace("text", "expression"),
    "captions": ASKED.replace("expressions", "captions"),
    "the long name": ASKED.replace("expressions", "referring_expressions"),
    "one line each": "\n".join(json.dumps(item) for item in json.loads(ASKED)["expressions"]),
}
LINES = {
    "numbered": "1. the red ball (attribute)\n2. ball left of the dog (relation)",
    "parentheses": "1) The red ball.\n\n2) ball left of the dog",
    "bullets": "Expressions:\n- **the red ball**\n* ball left of the dog",
    "quotes": '1: "the red ball"\n2: “ball left of the dog”',
    "kind first": "- attribute: the red ball\n- relation: ball left of the dog",
    "strings": '["the red ball", "ball left of the dog"]',
    "strings in an object": '{"expressions": ["the red ball", "ball left of the dog"]}',
}


@pytest.mark.parametrize("shape", SHAPES)
def test_json_in_every_shape(shape: str) -> None:
    assert parse(SHAPES[shape]) == TWO


@pytest.mark.parametrize("shape", LINES)
def test_lines_in_every_shape(shape: str) -> None:
    assert [e.text.lower() for e in parse(LINES[shape])] == [e.text for e in TWO]


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I'm sorry, I can't help with that.",
        "{}",
        '{"expressions": []}',
        "null",
        "<html><body>502</body></html>",
        "```\n```",
        '{"expressions": [{"text": ""}, {"text": 7}, null, "…"]}',
        "[" * 5000,
        '{"a":' * 5000,
        "12. 34\n- !!",
        "\x00\ud800",
    ],
)
def test_what_is_no_answer_gives_nothing(answer: str) -> None:
    assert parse(answer) == []


def test_duplicates_and_their_order_are_kept() -> None:
    assert [e.text for e in parse('["b cat", "a cat", "b cat"]')] == ["b cat", "a cat", "b cat"]


def test_an_essay_is_no_expression() -> None:
    assert parse(json.dumps({"expressions": [{"text": "word " * 100}, {"text": "the cat"}]})) == [Expression("the cat")]


def test_a_kind_of_its_own_is_other_and_control_characters_go() -> None:
    [found] = parse('{"expressions": [{"text": "the\\n\\u001b[31m red  ball", "kind": "colour"}]}')
    assert found == Expression("the [31m red ball", "other")


@given(st.text(max_size=200))
def test_no_text_raises_and_what_is_found_is_tidy(answer: str) -> None:
    for found in parse(answer):
        assert found.text == " ".join(found.text.split())
        assert found.kind in KINDS


@given(st.lists(st.text(alphabet=st.characters(categories=["L"]), min_size=1, max_size=20), min_size=1, max_size=8))
def test_any_words_come_back_from_json_and_from_a_cut_answer(texts: list[str]) -> None:
    answer = json.dumps({"expressions": [{"text": text, "kind": "other"} for text in texts]}, ensure_ascii=False)
    assert [e.text for e in parse(answer)] == texts
    assert [e.text for e in parse(answer[: answer.rindex('"kind"')])] == texts


# --- leaks ------------------------------------------------------------------------------------------------------------

LEAKS = """object 3|the dog left of object 2|Object #4|object number 12|the outlined one|the outlined dog|dog outlined in white
the one marked in white|man marked with the number 3|cup labeled 5|the cup labelled as number 5|the numbered object
number 7|the #3|no. 4|the dog with the white outline|cat in the black and white contour|the highlighted object
the circled one|dog that is outlined|the car surrounded by a white line around it|the person inside the bounding box
the boxed car|region 2|item (3)|segment 4 of the picture|the dog with the number 3|the dog in image 1
the dog in the second image|the target|the dog inside the white box|a dog that is circled here
dog left of the encircled one|the man annotated 4|the thick outline|the marked object|dog highlighted with white
mask 2|the dog 3|objet 3"""
HONEST = """the red ball|player number 7|the player with number 7 on his shirt|bus 42 on the left street|the masked man|two dogs
the box on the left|the cardboard box|woman in white shirt|the white line on the road|black and white cat
the marked police car|woman with highlighted hair|the framed picture on the wall|runner with the number 112 on his bib
the picture above the sofa|the target board|the second image frame from the left shelf and more words 3 of them|route 66 sign"""


def each(examples: str) -> list[str]:
    return examples.replace("\n", "|").split("|")


WHERE = """left right leftmost rightmost top topmost bottom bottommost middle center centre central upper lower front back
foreground background nearest farthest furthest closest above below beneath behind"""
NUMBERED = """player runner rider racer driver skier swimmer cyclist biker batter pitcher goalie horse jersey shirt bib bus train
tram car truck taxi cab boat plane kart house room gate lane door locker route highway platform track"""


@pytest.mark.parametrize("text", each(LEAKS))
def test_what_speaks_of_the_overlay_is_a_leak(text: str) -> None:
    assert leaks.problem(text, "free", 12) == leaks.MARKS


@pytest.mark.parametrize("text", [text for text in each(HONEST) if "second image" not in text])
def test_what_speaks_of_the_scene_is_none(text: str) -> None:
    assert leaks.problem(text, "free", 12) is None


@pytest.mark.parametrize("rule", range(len(leaks._LEAKS)))
def test_every_rule_has_an_example_that_no_other_catches(rule: int) -> None:
    others = re.compile("|".join(leaks._LEAKS[:rule] + leaks._LEAKS[rule + 1 :]), re.IGNORECASE)
    alone = [text for text in each(LEAKS) if not others.search(text)]
    assert any(re.search(leaks._LEAKS[rule], text, re.IGNORECASE) for text in alone)


@pytest.mark.parametrize("word", WHERE.split())
def test_every_word_for_a_place(word: str) -> None:
    assert leaks.problem(f"a dog {word} it", "refcoco+", 4) == leaks.POSITION
    assert leaks.problem(f"a dog {word} it", "free", 4) is None


@pytest.mark.parametrize("thing", NUMBERED.split())
def test_things_that_bear_a_number_of_their_own(thing: str) -> None:
    assert leaks.problem(f"{thing} 3", "free", 4) is None
    assert leaks.problem("it 3", "free", 4) == leaks.MARKS
    assert leaks.problem("it 5", "free", 4) is None, "no mark has that number"


def test_position_words_are_rejected_for_refcoco_plus_alone() -> None:
    for text in ("the left dog", "dog on the right", "the cat in front", "bottom cup", "the closest car"):
        assert leaks.problem(text, "refcoco+", 4) == leaks.POSITION
        assert leaks.problem(text, "refcoco", 4) is None
    for text in (
        "woman in a tank top",
        "man with a backpack",
        "girl in a red top",
        "the bright cup",
        "the leftover food",
    ):
        assert leaks.problem(text, "refcoco+", 4) is None


# --- prompts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("view", "style"), itertools.product(get_args(View), get_args(Style)))
def test_every_view_and_style_has_a_prompt_of_its_own(view: View, style: Style) -> None:
    prompt = load_prompt("refer", view, style, "English", 8)
    text = prompt.text(Shown((), 3 if view == "marks+crop" else None, 5))
    assert "$" not in text
    assert "8 different" in text
    assert ("object 3" in text) == (view == "marks+crop")
    assert ("no left, right" in text) == (style == "refcoco+")
    others = {
        load_prompt("refer", v, s, "English", 8).digest for v, s in itertools.product(get_args(View), get_args(Style))
    }
    assert len(others) == 20
    assert load_prompt("refer", view, style, "German", 8).digest not in others


def test_the_built_in_prompts_are_those_whose_answers_are_stored() -> None:
    """Other words are other results: whoever changes them changes this number, and with it every version made by them."""
    every = itertools.product(get_args(View), get_args(Style))
    digests = "".join(load_prompt("refer", view, style, "English", 8).digest for view, style in every)
    assert (
        hashlib.sha256(digests.encode()).hexdigest()
        == "6d0adeed4b459a5781a2f541f265c2c0bd35a356d1855236f43694d1cfb1d853"
    )


def test_a_prompt_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("$pictures\nName object $number of $marked in $candidates ways ($language). Costs: 5 $$. $form")
    prompt = load_prompt(str(path), "marks+crop", "free", "English", 4)
    assert "Name object 2 of 3 in 4 ways (English). Costs: 5 $. Answer with JSON" in prompt.text(Shown((), 2, 3))
    before = prompt.digest
    path.write_text("another $number")
    assert load_prompt(str(path), "marks+crop", "free", "English", 4).digest != before
    for text, what in (("$colour", "colour"), ("5 $", "write"), ("", "empty")):
        path.write_text(text)
        with pytest.raises(UsageError, match=what):
            load_prompt(str(path), "marks+crop", "free", "English", 4)
    with pytest.raises(UsageError, match="neither 'refer' nor a text file"):
        load_prompt(str(tmp_path / "none.txt"), "marks+crop", "free", "English", 4)


def test_the_schema_takes_what_was_asked_for_and_nothing_else() -> None:
    schema = answer_schema(2)
    jsonschema.validate(json.loads(ASKED), schema)
    for bad in ({"expressions": []}, {"expressions": ["a"]}, {}, {"expressions": [{"text": "a", "kind": "colour"}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)
