"""REFER's `sent` and `tokens` of a caption."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+(?:['’-]\w+|(?<=\d)[.,:]\d+)*")


def clean(text: str) -> tuple[str, list[str]]:
    """REFER's (sent, tokens) of a raw sentence: lower case, words joined by single spaces, no punctuation.

    A word is a run of letters and digits of any script; an apostrophe or hyphen inside it stays (`man's`, `t-shirt`),
    so does the point of a number. `sent` is always the tokens joined by a space. A text without any word (`?!`) is split
    at blanks instead, since a sentence may not be empty.
    """
    lowered = text.lower()
    tokens = [word.replace("’", "'") for word in _WORD.findall(lowered)] or lowered.split()
    return " ".join(tokens), tokens
