"""CLIP's prompt for a head noun."""

from __future__ import annotations

import re

from pseudoris_cli.method.noun_words import word_set
from pseudoris_cli.settings.models import PromptStyle

_DETERMINED = word_set(
    "a an the this that these those some two three four five six seven eight nine ten several many few my your his her its "
    "our their no every each both all another"
)
_PLURALS = word_set(
    "people police cattle children men women teeth feet geese mice lice oxen dice scissors clothes wolves knives leaves "
    "shelves loaves halves calves hooves scarves wives"
)
_SINGULAR_IN_S = word_set(
    "gas canvas atlas christmas texas lens news chaos cosmos asparagus species series always yes jones"
)
_SINGULAR_IN_MEN = word_set("specimen omen abdomen ramen regimen stamen acumen semen")
_MASS = word_set(
    "grass water snow sand hair food rice bread meat beef pork chicken broccoli cheese butter lettuce cabbage spinach fruit "
    "luggage furniture clothing equipment traffic sky ground dirt mud gravel ice soup salad cereal pasta spaghetti milk "
    "coffee tea beer wine juice smoke steam fog rain sunlight hay straw wood metal paper money garbage trash litter jewelry "
    "silverware corn garlic ham bacon tofu cauliflower asparagus celery ketchup mustard mayonnaise sauce gravy cream "
    "frosting icing chocolate foliage"
)
_AS_CONSONANT = re.compile(r"(?:uni(?!n|m)|use|usual|ute|utop|ura|uk|ufo|eu|ewe|one$|once)")
_SILENT_H = re.compile(r"(?:hour|heir|honou?r|honest)")
_SPELT = word_set("suv x-ray xray mri lcd led rv mp3 atm atv")


def noun_prompt(noun: str, style: PromptStyle) -> str:
    """CLIP's prompt for a noun that is not empty.

    `released` writes "a photo of a dog", without a second article where the noun already has one; `mended` lower case, "an" before
    a vowel, and no article before what is plural, has no plural ("grass"), or is determined already ("two dogs").
    """
    if style == "released":
        article = "" if noun.split()[:1] in (["a"], ["an"], ["the"]) else "a "
    else:
        noun = noun.lower()
        article = _article(noun.split())
    return f"a photo of {article}{noun}"


def _article(words: list[str]) -> str:
    if words[0] in _DETERMINED or is_plural(words[-1]) or words[-1] in _MASS:
        return ""
    return "an " if _begins_with_vowel(words[0]) else "a "


def is_plural(word: str) -> bool:
    """Whether a lower-case English noun is plural, by its form; one that has a single form for both ("sheep") is not."""
    if word in _PLURALS or (word.endswith("men") and word not in _SINGULAR_IN_MEN):
        return True
    return len(word) > 2 and word.endswith("s") and word not in _SINGULAR_IN_S and not word.endswith(("ss", "us", "is"))


def _begins_with_vowel(word: str) -> bool:
    if word in _SPELT or _SILENT_H.match(word):
        return True
    return word[0] in "aeiou" and not _AS_CONSONANT.match(word)
