"""Which images a report shows."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import ImageRef
from pseudoris_cli.report.versions import Parts

DEFAULT_COUNT = 50


@dataclass(frozen=True)
class ImageChoice:
    """Which images to show: those of `keys`, else those with a caption that contains `search`, else by `order`.

    At most `count`, except that all of `keys` are shown.
    """

    count: int = DEFAULT_COUNT
    order: Literal["spread", "worst", "best"] = "spread"
    search: str | None = None
    keys: tuple[str, ...] = ()

    def describe(self) -> str:
        """The choice in words, for the heading of the images."""
        if self.keys:
            return "named with --ids"
        if self.search is not None:
            return f"with a caption that contains “{self.search}”"
        return {
            "spread": "spread evenly over the source",
            "worst": "with the lowest median DoC of their kept captions, the worst first",
            "best": "with the highest median DoC of their kept captions, the best first",
        }[self.order]


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """An image of the plan and the number of the part that it is in."""

    part: int
    ref: ImageRef


def choose(parts: Parts, choice: ImageChoice) -> list[PlannedImage]:
    """The chosen images, the same for the same artifacts.

    Raises UsageError for an unknown key, and where a search or an order finds no image or needs a stage that has not run.
    """
    if choice.keys:
        return _named(parts, choice.keys)
    if choice.search is not None:
        return _containing(parts, choice.search, choice.count)
    if choice.order != "spread":
        return _ranked(parts, choice)
    return _spread(parts, parts.covered(parts.deepest), choice.count)


def _spread(parts: Parts, covered: list[int], count: int) -> list[PlannedImage]:
    """At even distances over the images of the `covered` parts. Reads the parts of the chosen images only."""
    sizes = [parts.plan.parts[part].count for part in covered]
    total = sum(sizes)
    wanted = iter([number * total // min(count, total) for number in range(min(count, total))])
    found: list[PlannedImage] = []
    start, position = 0, next(wanted, None)
    for part, size in zip(covered, sizes, strict=True):
        inside = []
        while position is not None and position < start + size:
            inside.append(position - start)
            position = next(wanted, None)
        if inside:
            refs = parts.plan.images(part)
            found += [PlannedImage(part, refs[index]) for index in inside]
        start += size
    return found


def _named(parts: Parts, keys: tuple[str, ...]) -> list[PlannedImage]:
    planned = {image.ref.key: image for image in _all(parts)}
    for key in keys:
        if key not in planned:
            near = difflib.get_close_matches(key, planned, 3, 0.5)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise UsageError(f"--ids {key}: no planned image has this key{hint}")
    return [planned[key] for key in dict.fromkeys(keys)]


def _all(parts: Parts) -> Iterator[PlannedImage]:
    for planned in parts.plan.parts:
        for ref in parts.plan.images(planned.part):
            yield PlannedImage(planned.part, ref)


def _containing(parts: Parts, text: str, count: int) -> list[PlannedImage]:
    if not parts.covered("captions"):
        raise UsageError("--search needs captions, and there are none yet; run `pseudoris captions` first")
    wanted = text.casefold()
    found: list[PlannedImage] = []
    for part in parts.covered("captions"):
        columns = parts.columns("captions", part, ["image_key", "caption"])
        matching = {
            key
            for key, caption in zip(columns["image_key"], columns["caption"], strict=True)
            if wanted in caption.casefold()
        }
        found += [PlannedImage(part, ref) for ref in parts.plan.images(part) if ref.key in matching]
        if len(found) >= count:
            return found[:count]
    if not found:
        raise UsageError(f"--search {text}: no caption contains this text")
    return found


def _ranked(parts: Parts, choice: ImageChoice) -> list[PlannedImage]:
    """By the median DoC of an image's kept captions, ties by the largest one.

    An image that kept nothing is worse than any other. Images with one mask have no DoC and are left out.
    """
    covered = parts.covered("filter")
    if not covered:
        raise UsageError(f"--{choice.order} needs DoC, and there is none yet; run `pseudoris filter` first")
    ranks: list[tuple[tuple[float, float], PlannedImage]] = []
    for part in covered:
        ranking = _ranking(parts.columns("filter", part, ["image_key", "doc", "kept"]))
        ranks += [(ranking[ref.key], PlannedImage(part, ref)) for ref in parts.plan.images(part) if ref.key in ranking]
    ranks.sort(key=lambda rank: rank[0], reverse=choice.order == "best")
    if not ranks:
        raise UsageError(f"--{choice.order} needs DoC, and no image has one, because every image has a single mask")
    return [image for _, image in ranks[: choice.count]]


def _ranking(columns: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """(median, maximum) of the DoC of the kept captions, for each image with any DoC; -inf where none was kept."""
    docs: dict[str, list[float]] = defaultdict(list)
    for key, doc, kept in zip(columns["image_key"], columns["doc"], columns["kept"], strict=True):
        if doc == doc:
            docs[key] += [float(doc)] if kept else []
    nothing = float("-inf")
    return {key: (median(kept), max(kept)) if kept else (nothing, nothing) for key, kept in docs.items()}
