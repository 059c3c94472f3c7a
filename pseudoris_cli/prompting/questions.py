"""What a listener is asked about a picture of numbered objects, and how its answers are read. Knows no server and no network.

*Which* question: the object that an expression means, of all that are numbered, or none (or several). *Whether* question: if an
expression fits one numbered object, whatever else it fits.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pseudoris_cli.prompting import overlay
from pseudoris_cli.prompting.answers import without_thoughts

MOST_OBJECTS = 25
"""Objects of a question, at most: with none there are as many answers as letters."""
YES_OR_NO = ("Yes", "No")
NONE = "none"
"""The answer of a decision for none or several."""
LEAST_MASS = 0.01
"""Probability that the answers must have together; with less the model was about to say something else."""
_SCENE = "Each of the {count} objects in the picture has a white line around it and a number, from 1 to {count}."
_SCENE_OF_ONE = "One object in the picture has a white line around it and the number 1."
_TASK = (
    "A person describes one object to somebody who sees the same scene without lines and numbers, and who must know from the "
    "description alone which object is meant."
)
_WHICH = "Which numbered object does the description mean? If it fits none of them, or several equally well, the answer is {none}."
_WHETHER = "Does the description fit object {number}, whatever else it may fit?"
_NUMBERS_ONLY = "Answer with the number alone."
_LETTERS_ONLY = "Answer with one letter alone: {pairs}."
_YES_OR_NO_ONLY = "Answer Yes or No alone."
_NONE_OR_SEVERAL = "no numbered object fits, or several fit equally well"
_ALL_WORDS = (
    _SCENE,
    _SCENE_OF_ONE,
    _TASK,
    _WHICH,
    _WHETHER,
    _NUMBERS_ONLY,
    _LETTERS_ONLY,
    _YES_OR_NO_ONLY,
    _NONE_OR_SEVERAL,
)
DIGEST = hashlib.sha256(json.dumps([*_ALL_WORDS, overlay.REVISION]).encode()).hexdigest()
"""What identifies words and pictures in a version."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question about `count` numbered objects: which is meant or, with a `number`, whether that one fits."""

    expression: str
    count: int
    number: int | None = None

    @property
    def options(self) -> int:
        """How many answers there are: objects and none, or yes and no."""
        return self.count + 1 if self.number is None else 2

    def text(self, labels: Sequence[str]) -> str:
        """In words, the expression last; `labels` stand for the answers."""
        if self.number is None:
            how = _which_how(self.count, labels)
            asked = _WHICH.format(none=labels[-1])
        else:
            how, asked = _YES_OR_NO_ONLY, _WHETHER.format(number=self.number)
        return f"{scene(self.count)} {_TASK}\n{asked} {how}\n\nDescription: {_quoted(self.expression)}"

    def decision(self) -> dict[str, Any]:
        """As a System One question about `scene`."""
        described = f"{_TASK} The description is: {_quoted(self.expression)}"
        if self.number is not None:
            return {"type": "noul", "instructions": f"{described} {_WHETHER.format(number=self.number)}"}
        criteria = {str(number): f"object {number}" for number in range(1, self.count + 1)}
        return {
            "type": "choice",
            "instructions": f"{described} {_WHICH.format(none=NONE)}",
            "criteria": criteria | {NONE: _NONE_OR_SEVERAL},
        }

    def decided(self, probabilities: dict[str, float]) -> np.ndarray | None:
        """The answers' probabilities [options] from those of a decision; None where one is missing."""
        names = [*map(str, range(1, self.count + 1)), NONE] if self.number is None else ["true", "false"]
        if set(names) != set(probabilities):
            return None
        found = np.maximum([probabilities[name] for name in names], 0.0)
        return found / found.sum() if found.sum() > 0 else None


def scene(count: int) -> str:
    """What the picture shows."""
    return _SCENE.format(count=count) if count > 1 else _SCENE_OF_ONE


def _which_how(count: int, labels: Sequence[str]) -> str:
    if labels[0] == "1":
        return _NUMBERS_ONLY
    pairs = [f"{label} for object {number}" for number, label in enumerate(labels[:count], 1)]
    return _LETTERS_ONLY.format(pairs=", ".join([*pairs, f"{labels[count]} for none or several"]))


def _quoted(expression: str) -> str:
    return f'"{" ".join(expression.split())}"'


def spoken_labels(question: Question) -> tuple[str, ...]:
    """Labels of a written answer: the numbers, 0 for none or several; or Yes and No."""
    if question.number is not None:
        return YES_OR_NO
    return (*map(str, range(1, question.count + 1)), "0")


def token_labels(question: Question) -> tuple[str, ...]:
    """Labels of which each is one token of nearly every model: digits, and letters where there are more than nine objects."""
    if question.number is not None or question.count <= 9:
        return spoken_labels(question)
    return tuple(string.ascii_uppercase[: question.count + 1])


def read_alternatives(logprobs: Any, labels: Sequence[str]) -> np.ndarray | None:
    """The probabilities [labels] of an answer of one token, from its likeliest alternatives; None where they do not tell.

    `logprobs` as OpenAI's chat has them. Forms of a token that differ in spaces and, for words, in case are added up. A label
    that is not among the alternatives has at most the probability of the least of them, and of what they leave over: it gets that.
    """
    listed = _alternatives(logprobs)
    found = np.zeros(len(labels))
    for token, chance in listed:
        place = _place(token, labels)
        if place is not None:
            found[place] += chance
    if found.sum() < LEAST_MASS:
        return None
    chances = [chance for _, chance in listed]
    found[found == 0] = min(*chances, max(0.0, 1.0 - sum(chances)))
    return found / found.sum()


def _alternatives(logprobs: Any) -> list[tuple[str, float]]:
    """(token, probability) of the first token that was generated; the one that was taken is among them."""
    try:
        taken = logprobs["content"][0]
        rows = list(taken.get("top_logprobs") or ())
        if taken["token"] not in {row["token"] for row in rows}:
            rows.append(taken)
        found = [(str(row["token"]), float(row["logprob"])) for row in rows]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return []
    return [(token, math.exp(min(0.0, value))) for token, value in found if value <= 1e-3]  # of NaN that is not so


def _place(token: str, labels: Sequence[str]) -> int | None:
    """Which label a token is; None if it is none of them."""
    token = token.strip().strip("\u2581\u0120")
    names = [label.lower() for label in labels] if tuple(labels) == YES_OR_NO else list(labels)
    token = token.lower() if tuple(labels) == YES_OR_NO else token
    return names.index(token) if token in names else None


def read_vote(text: str, labels: Sequence[str]) -> int | None:
    """Which label (of `spoken_labels`) a written answer gives: its position; None where it is none of them, or several."""
    text = without_thoughts(text).strip()
    if tuple(labels) == YES_OR_NO:
        said = re.match(r"\W*(yes|no)\b", text, re.IGNORECASE)
        return None if said is None else ("yes", "no").index(said[1].lower())
    if text in labels:
        return labels.index(text)
    said_numbers = set(re.findall(r"(?<![\w.])\d+(?![\w]|\.\d)", text))
    if not said_numbers and re.search(r"\b(?:none|several)\b", text, re.IGNORECASE):
        return len(labels) - 1
    number = said_numbers.pop() if len(said_numbers) == 1 else ""
    return labels.index(number) if number in labels else None


def tally(votes: Sequence[int | None], options: int) -> np.ndarray | None:
    """Probabilities [options] from votes for positions: their shares, with one more vote spread evenly over all answers.

    Spoilt votes (None) do not count; None if there is no other.
    """
    valid = [vote for vote in votes if vote is not None]
    if not valid:
        return None
    counts = np.bincount(valid, minlength=options).astype(float)
    found: np.ndarray = (counts + 1 / options) / (len(valid) + 1)
    return found
