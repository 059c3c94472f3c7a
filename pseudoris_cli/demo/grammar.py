"""The grammar of the demo world: attributes of objects, phrases, and a strict parser that decides whether a phrase is true.

    phrase  = article [size] [texture] [colour] shape | article [size] [colour] shape "with" ("stripes" | "dots")
    article = "the" | "a" | "an", agreeing with the next word

A phrase *holds* for an object if the object has every attribute that it names; it is *unique* in a scene if it holds
for exactly one object.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from functools import lru_cache
from itertools import product

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
TEXTURES = ("plain", "striped", "dotted")
SIZES = ("small", "large")

SIZE_WORDS = {"small": "small", "tiny": "small", "large": "large", "big": "large"}
TEXTURE_WORDS = {"plain": "plain", "solid": "plain", "striped": "striped", "dotted": "dotted"}
TEXTURE_NOUNS = {"stripes": "striped", "dots": "dotted"}
ARTICLES = ("a", "an", "the")
PROMPT_WORDS = ("photo", "of")
WORDS = (*ARTICLES, "with", *TEXTURE_NOUNS, *SIZE_WORDS, *TEXTURE_WORDS, *COLOURS, *SHAPES, *PROMPT_WORDS)


@dataclass(frozen=True, slots=True)
class Attributes:
    """The attributes of an object, each one of SHAPES, COLOURS, TEXTURES and SIZES."""

    shape: str
    colour: str
    texture: str
    size: str


@dataclass(frozen=True, slots=True)
class Claim:
    """The attributes that a phrase names; None for those that it does not (the shape only in `expressions.py`: "one")."""

    shape: str | None
    colour: str | None = None
    texture: str | None = None
    size: str | None = None

    def holds(self, of: Attributes) -> bool:
        """Whether the claim is true of an object."""
        return all(named is None or named == actual for named, actual in zip(astuple(self), astuple(of), strict=True))


@dataclass(frozen=True, slots=True)
class Wording:
    """The words of a phrase; empty ones are omitted. `tail` is "stripes" or "dots"."""

    shape: str
    colour: str = ""
    texture: str = ""
    size: str = ""
    tail: str = ""
    definite: bool = False


def compose(wording: Wording) -> str:
    """The phrase in words, e.g. "an orange ring with dots"."""
    words = [word for word in (wording.size, wording.texture, wording.colour, wording.shape) if word]
    article = "the" if wording.definite else _indefinite(words[0])
    return " ".join([article, *words, *(("with", wording.tail) if wording.tail else ())])


def agrees(article: str, following: str) -> bool:
    """Whether an article may stand before these words."""
    return article in ("the", _indefinite(following))


def _indefinite(word: str) -> str:
    return "an" if word[0] in "aeiou" and not word.startswith("one") else "a"


def _either(words: Iterable[str]) -> str:
    return "|".join(words)


_PHRASE = re.compile(
    rf"({_either(ARTICLES)}) (?:({_either(SIZE_WORDS)}) )?(?:({_either(TEXTURE_WORDS)}) )?(?:({_either(COLOURS)}) )?"
    rf"({_either(SHAPES)})(?: with ({_either(TEXTURE_NOUNS)}))?"
)


@lru_cache(maxsize=65536)
def parse(caption: str) -> Claim | None:
    """The claim of a caption, or None for a caption that is not in the grammar."""
    found = _PHRASE.fullmatch(caption.strip())
    if not found:
        return None
    article, size, texture, colour, shape, tail = found.groups()
    if not agrees(article, size or texture or colour or shape):
        return None
    if texture and tail:
        return None
    named = TEXTURE_WORDS[texture] if texture else TEXTURE_NOUNS[tail] if tail else None
    return Claim(shape, colour, named, SIZE_WORDS[size] if size else None)


def claims(of: Attributes) -> Iterator[Claim]:
    """The 8 claims that hold for an object: its shape with every subset of its other attributes."""
    for colour, texture, size in product((None, of.colour), (None, of.texture), (None, of.size)):
        yield Claim(of.shape, colour, texture, size)


def phrase(claim: Claim) -> str:
    """The plainest wording of a claim."""
    return compose(Wording(claim.shape or "one", claim.colour or "", claim.texture or "", claim.size or ""))
