"""What requests cost: numbers of requests and tokens, and from them hours and money."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

COUNTED = ("requests", "repairs", "retries", "reused", "tokens_in", "tokens_out", "without_usage")


@dataclass
class Usage:
    """Counts of a part, or of several."""

    counts: Counter[str] = field(default_factory=Counter)

    def answered(self, tokens_in: int | None, tokens_out: int | None) -> None:
        """A request that was answered; None where the server does not tell."""
        self.counts["requests"] += 1
        if tokens_in is None or tokens_out is None:
            self.counts["without_usage"] += 1
        else:
            self.counts["tokens_in"] += tokens_in
            self.counts["tokens_out"] += tokens_out

    def note(self) -> dict[str, int]:
        """For the manifest."""
        return {name: self.counts[name] for name in COUNTED if self.counts[name]}


@dataclass(frozen=True)
class Prices:
    """Money per million tokens, in the user's currency."""

    per_million_in: float = 0.0
    per_million_out: float = 0.0

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        """Of so many tokens."""
        return (tokens_in * self.per_million_in + tokens_out * self.per_million_out) / 1e6


def total(notes: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """The counts of several parts' notes; `seconds` and `masks` are added up too."""
    found: Counter[str] = Counter()
    for note in notes:
        found.update({name: value for name, value in note.items() if isinstance(value, int | float)})
    return found


def extrapolated(counts: Mapping[str, float], images_done: int, images_all: int, seconds: float) -> dict[str, float]:
    """What the whole source takes, if its images are like those done: requests, tokens in and out, hours at the same pace."""
    factor = images_all / max(images_done, 1)
    return {
        "images": float(images_all),
        "requests": counts.get("requests", 0) * factor,
        "tokens_in": counts.get("tokens_in", 0) * factor,
        "tokens_out": counts.get("tokens_out", 0) * factor,
        "hours": seconds * factor / 3600,
    }
