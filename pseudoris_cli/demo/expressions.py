"""Expressions of the demo world that need the whole picture: places, orders, comparisons and relations, with their truth.

    expression = phrase                                                            (grammar.py)             kind "attribute"
               | "the" ("leftmost" | "rightmost" | "topmost" | "bottommost") noun                            kind "position"
               | "the" ("second" | "third") noun "from the" side                                             kind "position"
               | article noun ("on the" ("left" | "right") | "at the" ("top" | "bottom") | "in the middle")  kind "position"
               | "the" ("largest" | "biggest" | "smallest") noun                                             kind "comparison"
               | article noun ("left of" | "right of" | "to the left of" | ... | "above" | "below") "the" noun   kind "relation"
    noun       = [size] [texture] [colour] (shape | "one") | [size] [colour] (shape | "one") "with" ("stripes" | "dots")
    side       = "left" | "right" | "top" | "bottom"

What they mean (`referents`), with centres and areas of the visible masks, in fractions of the picture:

* an order counts the objects that fit the noun, from its side; two that are closer than `MARGIN` have no order, and then
  the expression means nothing;
* "on the left" is the left third of the picture, and so on; "in the middle" the middle third both ways;
* "largest" needs an area `RATIO` times that of the next;
* a relation needs exactly one object that fits its second noun (the landmark). The others that fit the first noun and are
  further to that side than `MARGIN` are meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, TypeAlias

from pseudoris_cli.demo.grammar import (
    ARTICLES,
    COLOURS,
    SHAPES,
    SIZE_WORDS,
    TEXTURE_NOUNS,
    TEXTURE_WORDS,
    Attributes,
    Claim,
    agrees,
    parse,
)

Kind: TypeAlias = Literal["attribute", "position", "comparison", "relation"]
KINDS: tuple[Kind, ...] = ("attribute", "position", "comparison", "relation")

MARGIN = 0.04
"""The least distance of two centres, as a fraction of the picture's width or height, that gives them an order."""
RATIO = 1.2
"""The least ratio of two areas that makes one the larger."""
THIRDS = (1 / 3, 2 / 3)

EXTREMES = {"leftmost": "left", "rightmost": "right", "topmost": "top", "bottommost": "bottom"}
COMPARISONS = {"largest": "largest", "biggest": "largest", "smallest": "smallest"}
ORDINALS = {"second": 1, "third": 2}
PLACES = {
    "on the left": "left",
    "on the right": "right",
    "at the top": "top",
    "at the bottom": "bottom",
    "in the middle": "middle",
}
RELATIONS = {
    "left of": "left",
    "to the left of": "left",
    "right of": "right",
    "to the right of": "right",
    "above": "top",
    "below": "bottom",
}
SIDES = ("left", "right", "top", "bottom")
ANYTHING = "one"
WORDS = (
    ANYTHING,
    *EXTREMES,
    *COMPARISONS,
    *ORDINALS,
    *SIDES,
    *("on", "at", "in", "middle", "from", "of", "to", "above", "below"),
)
"""The words beyond those of `grammar.WORDS`."""


@dataclass(frozen=True, slots=True)
class Located:
    """An object with its place: the centre of its visible box and its visible area, as fractions of the picture."""

    attributes: Attributes
    x: float
    y: float
    area: float


@dataclass(frozen=True, slots=True)
class Expression:
    """What an expression says. `where` is a side, "middle", "largest" or "smallest"; `form` how it is said."""

    claim: Claim
    form: Literal["attribute", "order", "place", "comparison", "relation"] = "attribute"
    where: str = ""
    rank: int = 0
    """Of an order: 0 is the first from the side."""
    landmark: Claim | None = None

    @property
    def kind(self) -> Kind:
        """The kind under which figures are reported."""
        return "position" if self.form == "order" or self.form == "place" else self.form


@dataclass(frozen=True, slots=True)
class Meaning:
    """The objects that an expression means, by index, and whether no comparison behind it was close."""

    objects: frozenset[int]
    clear: bool = True


def referents(expression: Expression, objects: Sequence[Located]) -> Meaning:
    """The objects of a scene that an expression means: none, one or several."""
    fitting = [index for index, one in enumerate(objects) if expression.claim.holds(one.attributes)]
    if expression.form == "attribute":
        return Meaning(frozenset(fitting))
    if expression.form == "place":
        return _in_place(expression.where, fitting, objects)
    if expression.form == "relation":
        return _related(expression, fitting, objects)
    if expression.form == "comparison":
        sign = -1 if expression.where == "largest" else 1
        ordered = sorted(fitting, key=lambda index: sign * objects[index].area)
        apart = [_apart_in_area(objects[a], objects[b]) for a, b in pairwise(ordered)]
    else:
        ordered = sorted(fitting, key=lambda index: _distance(expression.where, objects[index]))
        apart = [
            _distance(expression.where, objects[b]) - _distance(expression.where, objects[a]) >= MARGIN
            for a, b in pairwise(ordered)
        ]
    rank = expression.rank
    if rank >= len(ordered):
        return Meaning(frozenset())
    decided = all(apart[max(rank - 1, 0) : rank + 1])
    return Meaning(frozenset([ordered[rank]] if decided else []), decided)


def _distance(side: str, of: Located) -> float:
    """How far the centre is from a side of the picture."""
    return {"left": of.x, "right": 1 - of.x, "top": of.y, "bottom": 1 - of.y}[side]


def _apart_in_area(one: Located, other: Located) -> bool:
    return max(one.area, other.area) >= RATIO * min(one.area, other.area)


def _in_place(where: str, fitting: Sequence[int], objects: Sequence[Located]) -> Meaning:
    low, high = THIRDS

    def inside(of: Located, margin: float = 0.0) -> bool:
        if where == "middle":
            return all(low - margin <= centre <= high + margin for centre in (of.x, of.y))
        return _distance(where, of) < low + margin

    clear = all(inside(objects[index], MARGIN / 2) == inside(objects[index], -MARGIN / 2) for index in fitting)
    return Meaning(frozenset(index for index in fitting if inside(objects[index])), clear)


def _related(expression: Expression, fitting: Sequence[int], objects: Sequence[Located]) -> Meaning:
    assert expression.landmark is not None
    marks = [index for index, one in enumerate(objects) if expression.landmark.holds(one.attributes)]
    if len(marks) != 1:
        return Meaning(frozenset())
    lead = {
        index: _distance(expression.where, objects[marks[0]]) - _distance(expression.where, objects[index])
        for index in fitting
        if index != marks[0]
    }
    clear = all(abs(ahead - MARGIN) > MARGIN / 2 for ahead in lead.values())
    return Meaning(frozenset(index for index, ahead in lead.items() if ahead >= MARGIN), clear)


# --- words --------------------------------------------------------------------------------------------------------------


def _any_of(words: Sequence[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_NOUN = (
    rf"(?:(?P<size>{_any_of(tuple(SIZE_WORDS))}) )?(?:(?P<texture>{_any_of(tuple(TEXTURE_WORDS))}) )?"
    rf"(?:(?P<colour>{_any_of(COLOURS)}) )?(?P<shape>{_any_of((*SHAPES, ANYTHING))})"
    rf"(?: with (?P<tail>{_any_of(tuple(TEXTURE_NOUNS))}))?"
)
_ONLY_NOUN = re.compile(_NOUN)
_PLAIN_NOUN = re.sub(r"\?P<\w+>", "?:", _NOUN)
_FORMS = (
    re.compile(rf"(?P<article>the) (?P<extreme>{_any_of(tuple(EXTREMES))}) (?P<noun>{_PLAIN_NOUN})"),
    re.compile(rf"(?P<article>the) (?P<comparison>{_any_of(tuple(COMPARISONS))}) (?P<noun>{_PLAIN_NOUN})"),
    re.compile(
        rf"(?P<article>the) (?P<ordinal>{_any_of(tuple(ORDINALS))}) (?P<noun>{_PLAIN_NOUN}) from the (?P<side>{_any_of(SIDES)})"
    ),
    re.compile(rf"(?P<article>{_any_of(ARTICLES)}) (?P<noun>{_PLAIN_NOUN}) (?P<place>{_any_of(tuple(PLACES))})"),
    re.compile(
        rf"(?P<article>{_any_of(ARTICLES)}) (?P<noun>{_PLAIN_NOUN}) (?P<relation>{_any_of(tuple(RELATIONS))}) "
        rf"the (?P<landmark>{_PLAIN_NOUN})"
    ),
    re.compile(rf"(?P<article>{_any_of(ARTICLES)}) (?P<noun>{_PLAIN_NOUN})"),
)


@lru_cache(maxsize=65536)
def parse_expression(text: str) -> Expression | None:
    """What a text says, or None for a text that is not in the grammar."""
    text = text.strip()
    if (claim := parse(text)) is not None:
        return Expression(claim)
    for form in _FORMS:
        found = form.fullmatch(text)
        if found:
            break
    else:
        return None
    said = found.groupdict()
    claim = _claim(said["noun"])
    landmark = _claim(said["landmark"]) if said.get("landmark") else None
    if claim is None or (said.get("landmark") and landmark is None) or not agrees(said["article"], said["noun"]):
        return None
    if extreme := said.get("extreme"):
        return Expression(claim, "order", EXTREMES[extreme])
    if comparison := said.get("comparison"):
        return Expression(claim, "comparison", COMPARISONS[comparison])
    if ordinal := said.get("ordinal"):
        return Expression(claim, "order", said["side"], ORDINALS[ordinal])
    if place := said.get("place"):
        return Expression(claim, "place", PLACES[place])
    if relation := said.get("relation"):
        return Expression(claim, "relation", RELATIONS[relation], landmark=landmark)
    return Expression(claim)


def _claim(noun: str) -> Claim | None:
    found = _ONLY_NOUN.fullmatch(noun)
    if not found or (found["texture"] and found["tail"]):
        return None
    texture, tail, size = found["texture"], found["tail"], found["size"]
    named = TEXTURE_WORDS[texture] if texture else TEXTURE_NOUNS[tail] if tail else None
    shape = None if found["shape"] == ANYTHING else found["shape"]
    return Claim(shape, found["colour"], named, SIZE_WORDS[size] if size else None)
