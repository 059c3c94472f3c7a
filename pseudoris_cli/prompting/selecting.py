"""From an answer to the expressions that may pass, and a record of those that may not, for the manifest."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pseudoris_cli.prompting import leaks
from pseudoris_cli.prompting.answers import Expression, parse
from pseudoris_cli.prompting.prompts import Style

MOST_TEXTS = 200
"""Rejected texts that a part's line in the manifest holds, at most; all are counted."""


@dataclass
class Usable:
    """The expressions of an answer that may pass, in order, and (reason, raw text) of the others."""

    passed: list[Expression] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)

    def reason(self, finish: str | None) -> str:
        """Why nothing passed."""
        if self.rejected:
            return f"every expression was rejected: {', '.join(sorted({why for why, _ in self.rejected}))}"
        return "the answer was cut off (max_tokens)" if finish == "length" else "it holds no expressions"


def usable(answer: str, style: Style, marked: int) -> Usable:
    """Parse an answer and apply the rules. `marked`: how many objects had a number."""
    found = Usable()
    for expression in parse(answer):
        if why := leaks.problem(expression.text, style, marked):
            found.rejected.append((why, expression.text))
        else:
            found.passed.append(expression)
    return found


@dataclass
class Outcome:
    """What a part's masks came to, beside its rows."""

    counts: Counter[str] = field(default_factory=Counter)
    texts: list[tuple[str, int, str, str]] = field(default_factory=list)
    failed: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, key: str, mask_id: int, rejected: list[tuple[str, str]], failure: str | None) -> None:
        """One mask: (reason, text) of what was rejected, and why it has no expression, if it has none."""
        self.counts.update(why for why, _ in rejected)
        self.texts += [(key, mask_id, why, text) for why, text in rejected][: max(0, MOST_TEXTS - len(self.texts))]
        if failure is not None:
            self.failed.setdefault(key, {})[str(mask_id)] = failure

    def notes(self) -> dict[str, Any]:
        """For the manifest; only what there is."""
        found: dict[str, Any] = {}
        if self.counts:
            found |= {"rejected": dict(self.counts), "rejected_texts": [list(text) for text in self.texts]}
        if self.failed:
            found["failed_masks"] = self.failed
        return found


def request_seed(seed: int, key: str, mask_id: int, attempt: int) -> int:
    """The seed of one answer: of what it is for, not of when it is made."""
    digest = hashlib.blake2b(
        f"{seed} {key} {mask_id} {attempt}".encode(errors="surrogateescape"), digest_size=4
    ).digest()
    return int.from_bytes(digest, "big") & 0x7FFFFFFF
