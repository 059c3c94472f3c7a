"""What a listener is asked, and how answers of every form are read; bodies of vLLM, SGLang and transformers among them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from locations import FIXTURES

from pseudoris_cli.endpoint.client import message_of
from pseudoris_cli.endpoint.decisions import decisions_of
from pseudoris_cli.endpoint.failures import RequestFailed
from pseudoris_cli.prompting import answers, questions
from pseudoris_cli.prompting.questions import Question, read_alternatives, read_vote, spoken_labels, tally, token_labels

WHICH, WHETHER = Question("the red\none", 3), Question("the red one", 3, 2)


def body(name: str) -> dict:
    return json.loads((FIXTURES / "endpoint" / f"{name}.json").read_text())


def logprobs(*rows: tuple[str, float], taken: int = 0) -> dict:
    listed = [{"token": token, "logprob": math.log(chance)} for token, chance in rows]
    return {"content": [{**listed[taken], "top_logprobs": listed}]}


def test_a_question_names_every_answer_and_ends_in_the_expression() -> None:
    text = WHICH.text(token_labels(WHICH))
    assert "from 1 to 3" in text
    assert "the answer is 0" in text
    assert text.endswith('Description: "the red one"'), "in one line, last, so that a prefix cache finds the rest again"
    many = Question("a", 12)
    told = many.text(token_labels(many))
    assert "A for object 1" in told
    assert "L for object 12, M for none or several" in told
    assert "the answer is M" in told
    assert "object 2, whatever else" in WHETHER.text(questions.YES_OR_NO)
    assert "number 1." in Question("a", 1).text(("1", "0"))
    assert spoken_labels(many) == (*map(str, range(1, 13)), "0")
    largest = Question("a", questions.MOST_OBJECTS)
    assert len(set(token_labels(largest))) == questions.MOST_OBJECTS + 1
    assert all(len(label) == 1 for label in token_labels(largest))


def test_decisions_list_objects_and_none() -> None:
    assert list(WHICH.decision()["criteria"]) == ["1", "2", "3", "none"]
    assert WHETHER.decision()["type"] == "noul"
    assert WHICH.decided({"3": 0.1, "none": 0.2, "1": 0.7, "2": 0.0}).tolist() == pytest.approx([0.7, 0.0, 0.1, 0.2])
    assert WHETHER.decided({"true": 0.75, "false": 0.25}).tolist() == [0.75, 0.25]
    assert WHICH.decided({"1": 1.0}) is None


def test_probabilities_of_a_token() -> None:
    found = read_alternatives(
        logprobs(("2", 0.5), (" 2", 0.2), ("1", 0.1), ("0", 0.1), ("The", 0.1)), token_labels(WHICH)
    )
    assert found.argmax() == 1
    assert found[1] / found[0] == pytest.approx(7)
    assert found.sum() == pytest.approx(1)
    assert found[2] < 1e-9, "nothing is left for what is not listed"
    few = read_alternatives(logprobs(("1", 0.5), ("2", 0.2)), token_labels(WHICH))
    assert few[2] == few[3] == pytest.approx(0.2 / 1.1), "at most as likely as the least that is listed"
    assert read_alternatives(logprobs(("The", 0.9), ("1", 0.001)), token_labels(WHICH)) is None
    yes = read_alternatives(logprobs(("yes", 0.5), ("Yes", 0.3), (" NO", 0.2)), questions.YES_OR_NO)
    assert yes.tolist() == pytest.approx([0.8, 0.2])
    letters = token_labels(Question("a", 10))
    assert read_alternatives(logprobs(("b", 0.9), ("B", 0.1)), letters).argmax() == 1
    sampled = logprobs(("1", 0.5), ("2", 0.2))
    sampled["content"][0]["top_logprobs"].pop(0)
    assert read_alternatives(sampled, token_labels(WHICH)).argmax() == 0, (
        "the token taken counts where the list lacks it"
    )


@pytest.mark.parametrize("broken", [None, {}, {"content": []}, {"content": None}, {"content": [{"token": "1"}]}, [], "x",
                                    {"content": [{"token": "1", "logprob": float("nan"), "top_logprobs": []}]}])  # fmt: skip
def test_no_probabilities_are_no_answer(broken: object) -> None:
    assert read_alternatives(broken, token_labels(WHICH)) is None


@pytest.mark.parametrize(
    ("text", "vote"),
    [("2", 1), (" 3\n", 2), ("0", 3), ("Object 2.", 1), ("**1**", 0), ('{"answer": 2}', 1), ("none of them", 3),
     ("<think>1 or 2?</think>2", 1), ("1 or 2", None), ("4", None), ("the red one", None), ("", None), ("12", None),
     ("It is number 3, the third", 2), ("2.5", None), ("several fit", 3)],
)  # fmt: skip
def test_votes_are_read(text: str, vote: int | None) -> None:
    assert read_vote(text, spoken_labels(WHICH)) == vote


def test_votes_of_yes_and_no() -> None:
    assert [read_vote(text, questions.YES_OR_NO) for text in ("Yes", "no.", "Yes, it does", "Nothing", "maybe")] == [
        0,
        1,
        0,
        None,
        None,
    ]


def test_votes_are_counted() -> None:
    assert tally([1, 1, 1, None], 4).tolist() == pytest.approx([0.0625, 0.8125, 0.0625, 0.0625])
    assert tally([None, None], 4) is None
    assert np.sum(tally([0, 1, 2], 3)) == pytest.approx(1)


@pytest.mark.parametrize("server", ["vllm", "sglang"])
def test_logprobs_of_servers(server: str) -> None:
    message = message_of(body(f"{server}_logprobs"))
    found = read_alternatives(message["logprobs"], token_labels(WHICH))
    assert found.tolist() == pytest.approx([0.05 / 0.94, 0.76 / 0.94, 0.11 / 0.94, 0.02 / 0.94])
    assert (message["tokens_in"], message["tokens_out"], message["finish"]) == (1043, 1, "length")


@pytest.mark.parametrize(("name", "vote"), [("vllm_choice", 2), ("sglang_vote", 2), ("vllm_thinking", 1)])
def test_written_answers_of_servers(name: str, vote: int) -> None:
    assert read_vote(message_of(body(name))["text"], spoken_labels(WHICH)) == vote


@pytest.mark.parametrize("server", ["transformers", "sglang", "vllm"])
def test_decisions_of_servers(server: str) -> None:
    found = decisions_of(body(f"{server}_systemone"))
    assert (found["tokens_in"], found["tokens_out"]) == (2291, 0)
    assert WHICH.decided(found["answers"]["q0"]).tolist() == pytest.approx([0.08, 0.81, 0.04, 0.07])
    assert WHETHER.decided(found["answers"]["q1"]).tolist() == pytest.approx([0.93, 0.07])


@pytest.mark.parametrize("server", ["vllm", "sglang"])
def test_captions_of_servers(server: str) -> None:
    found = answers.parse(message_of(body(f"{server}_captions"))["text"])
    assert [(one.text, one.kind) for one in found] == [
        ("the striped mug left of the laptop", "relation"),
        ("mug with blue stripes", "attribute"),
    ]


@pytest.mark.parametrize(
    "answers_of",
    [None, [], {"q0": {}}, {"q0": {"probabilities": {"1": 0.4}}}, {"q0": {"probabilities": {"1": float("nan")}}},
     {"q0": {"noul": 1.5}}, {"q0": "refusal"}],
)  # fmt: skip
def test_what_is_no_decision(answers_of: object) -> None:
    with pytest.raises(RequestFailed, match="no decisions"):
        decisions_of({"answers": answers_of})


def test_answers_are_counted_and_come_to_one() -> None:
    assert (WHICH.options, WHETHER.options, Question("a", 1).options) == (4, 2, 2)
    assert WHICH.decided({"1": 0.2, "2": 0.2, "3": 0.0, "none": 0.0}).tolist() == [0.5, 0.5, 0, 0]
    assert WHICH.decided({"1": 0.5, "2": -1e-9, "3": 0.0, "none": 0.5}).tolist() == [0.5, 0, 0, 0.5]
    assert WHICH.decided(dict.fromkeys(("1", "2", "3", "none"), 0.0)) is None


def test_the_words_are_those_whose_answers_are_stored() -> None:
    """Other words are other results: whoever changes them changes this number, and with it every version that a listener made."""
    assert questions.DIGEST == "d9b2686c64fc70557574442bdc3d81621dd98d6fdaa3cb26e6400f211bf98b4a"
