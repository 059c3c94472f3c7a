"""Which images a report shows."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import ImageRef
from pseudoris_cli.report.versions import Parts

DEFAULT_COUNT = 50


@dataclass(frozen=True)
class Choice:
    """At most `count` images: spread over the source, the worst or best first, those with a caption, or named ones."""

    count: int = DEFAULT_COUNT
    order: Literal["spread", "worst", "best"] = "spread"
    search: str | None = None
    keys: tuple[str, ...] = ()

    def describe(self) -> str:
        """In words, for the page."""
        if self.keys:
            return "named with --ids"
        if self.search is not None:
            return f"with a caption that contains “{self.search}”"
        return {
            "spread": "spread evenly over the source",
            "worst": "with the lowest mean DoC of their kept captions, the worst first",
            "best": "with the highest mean DoC of their kept captions, the best first",
        }[self.order]


@dataclass(frozen=True, slots=True)
class Place:
    """An image and the part that it is in."""

    part: int
    ref: ImageRef


def choose(parts: Parts, choice: Choice) -> list[Place]:
    """The chosen images, always the same for the same artifacts. UsageError if there is none."""
    if choice.keys:
        return _named(parts, choice.keys)
    if choice.search is not None:
        return _containing(parts, choice.search, choice.count)
    if choice.order != "spread":
        return _ranked(parts, choice)
    return _spread(parts, parts.covered(parts.deepest), choice.count)


def _spread(parts: Parts, covered: list[int], count: int) -> list[Place]:
    """At even distances over the images that the deepest stage has answered; their parts alone are read."""
    sizes = [parts.plan.parts[part].count for part in covered]
    total = sum(sizes)
    wanted = iter([number * total // min(count, total) for number in range(min(count, total))])
    places: list[Place] = []
    start, position = 0, next(wanted, None)
    for part, size in zip(covered, sizes, strict=True):
        inside = []
        while position is not None and position < start + size:
            inside.append(position - start)
            position = next(wanted, None)
        if inside:
            refs = parts.plan.images(part)
            places += [Place(part, refs[index]) for index in inside]
        start += size
    return places


def _named(parts: Parts, keys: tuple[str, ...]) -> list[Place]:
    places = {place.ref.key: place for place in _all(parts)}
    for key in keys:
        if key not in places:
            near = difflib.get_close_matches(key, places, 3, 0.5)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise UsageError(f"--ids {key}: no planned image has this key{hint}")
    return [places[key] for key in dict.fromkeys(keys)]


def _all(parts: Parts) -> Iterator[Place]:
    for planned in parts.plan.parts:
        for ref in parts.plan.images(planned.part):
            yield Place(planned.part, ref)


def _containing(parts: Parts, text: str, count: int) -> list[Place]:
    if not parts.covered("captions"):
        raise UsageError("--search looks into captions, and there are none yet; run `pseudoris captions` first")
    wanted = text.casefold()
    places: list[Place] = []
    for part in parts.covered("captions"):
        columns = parts.columns("captions", part, ["image_key", "caption"])
        found = {
            key
            for key, caption in zip(columns["image_key"], columns["caption"], strict=True)
            if wanted in caption.casefold()
        }
        places += [Place(part, ref) for ref in parts.plan.images(part) if ref.key in found]
        if len(places) >= count:
            return places[:count]
    if not places:
        raise UsageError(f"--search {text}: no caption contains this text")
    return places


def _ranked(parts: Parts, choice: Choice) -> list[Place]:
    """By the mean DoC of what was kept, ties by the largest one. With nothing kept an image is worse than any other; an
    image with one mask has no DoC and no place in this order."""
    covered = parts.covered("filter")
    if not covered:
        raise UsageError(f"--{choice.order} goes by DoC, and there is none yet; run `pseudoris filter` first")
    ranks: list[tuple[tuple[float, float], Place]] = []
    for part in covered:
        merits = _merits(parts.columns("filter", part, ["image_key", "doc", "kept"]))
        ranks += [(merits[ref.key], Place(part, ref)) for ref in parts.plan.images(part) if ref.key in merits]
    ranks.sort(key=lambda rank: rank[0], reverse=choice.order == "best")
    if not ranks:
        raise UsageError(f"--{choice.order} goes by DoC, and no image has one (every image has a single mask)")
    return [place for _, place in ranks[: choice.count]]


def _merits(columns: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """(mean, maximum) of the DoC of what was kept, for each image with any DoC."""
    docs: dict[str, list[float]] = defaultdict(list)
    for key, doc, kept in zip(columns["image_key"], columns["doc"], columns["kept"], strict=True):
        if doc == doc:
            docs[key] += [float(doc)] if kept else []
    nothing = float("-inf")
    return {key: (sum(kept) / len(kept), max(kept)) if kept else (nothing, nothing) for key, kept in docs.items()}
