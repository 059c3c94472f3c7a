"""The head noun of a referring expression: the thing that it is about, as one word for CLIP's prompt.

Referring expressions are rarely sentences ("far left bike", "guy in blue, no hat"), and a dependency parser that was trained on
sentences attaches their words as it can. Its part-of-speech tags hold up better; so the rule reads an expression from left to
right by them, and takes the first noun phrase that no preposition and no verb governs.

What counts as the thing (docs/concepts.md says it for users):

* "there is a cat", "this is a picture of a cat", "find the cat": the cat; of a clause its subject;
* "slice of pizza", "group of people", "back of the bus": pizza, people, bus; but "glass of wine": glass;
* "fire hydrant": hydrant, the head of the compound; but "hot dog", which is no dog, as it is;
* "far right", "the red one", "next to the tree", "wearing red": nothing is named, the word is "object";
* "he", "someone": man, person.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pseudoris_cli.method import noun_words as words

if TYPE_CHECKING:
    from spacy.tokens import Doc

_OPENINGS = re.compile(
    r"(?:(?:so|ok|okay|um|well|and|maybe|please|i think|i believe|looks like)\b[ ,]*)*"
    r"(?:(?:there|here)(?:'s| is| are| was| were)|(?:this|that|it|these|those)(?:'s| is| are| was)|its(?= (?:a|an|the)\b)|"
    r"(?:what )?(?:appears|seems)(?: to be)?|(?:it |what )?looks like|"
    r"(?:i|you|we)(?: can)? see|can you see|i (?:want|mean|like)|(?:show|give) me|"
    r"(?:find|click|select|choose|pick|point|look|get|touch|circle|mark|segment)(?: on| to| at| for)?(?= (?:the|a|an|this|that)\b))"
    r"(?: (?:to be|in fact|only|just|also))?\s+"
)
_REWRITTEN = (
    (re.compile(r"[’`´]"), "'"),
    (re.compile(r"\bw/\s*"), "with "),
    (re.compile(r"\bclose[ -]?ups?\b|\bup close\b"), "closeup"),
    (re.compile(r"\bout of focus\b"), "blurry"),
    (re.compile(r"\b(left|right)[ -]?hand (side|corner)\b"), r"\1 \2"),
    (re.compile(r"\b(left|right|top|bottom|front|back)[ -]most\b"), r"\1"),
    (re.compile(r"\b[\w]+[ -]years?[ -]old\b"), "young"),
    (re.compile(r"[-/_]+"), " "),
    (re.compile(r"#\s*(?=\d)"), "number "),
    (re.compile(r"\s+"), " "),
)
_NOUN_TAGS = frozenset({"NOUN", "PROPN", "X"})
_DESCRIBING_TAGS = frozenset({"DET", "ADJ", "NUM", "ADV", "PUNCT", "SYM", "VERB", "INTJ", "PART"})
_LONE_TAGS = frozenset({"VERB", "INTJ", "X", "AUX"})


def normalise(caption: str) -> str:
    """The text to parse: lower case, without openings such as "there is"; fragments begin with "the", which helps the tagger.

    '' where no letter and no digit is left.
    """
    text = caption.lower()
    for pattern, into in _REWRITTEN:
        text = pattern.sub(into, text)
    text = text.strip(" .,;:!?\"'()[]")
    while (opening := _OPENINGS.match(text)) and opening.end() < len(text):
        text = text[opening.end() :]
    first = text.partition(" ")[0].strip(",.;:")
    if not any(letter.isalnum() for letter in text):
        return ""
    known = first in words.DETERMINERS | words.PREPOSITIONS | words.THINGS | words.CLAUSES or first in words.PERSONS
    return text if known else f"the {text}"


class _Word(NamedTuple):
    """A token: its text and coarse part of speech."""

    text: str
    pos: str


@dataclass(slots=True)
class _Phrase:
    """A noun phrase from a place on: its noun, if any, and where it ends; what stood before the noun."""

    noun: str = ""
    end: int = 0
    place: str = ""  # the last place word, where there is no noun
    pronoun: str = ""
    lone: str = ""  # a word that is no noun by its tag, and none of the known others


def head_noun(doc: Doc) -> str:
    """The head noun of a parsed `normalise`d expression, in lower case; "object" where it names no thing, '' of an empty one.

    Only the parts of speech are read (`token.pos_`); the pipeline needs no parser.
    """
    return _Scan([_Word(token.text, token.pos_) for token in doc if token.text.strip()]).run() if len(doc) else ""


class _Scan:
    """One reading of an expression from left to right."""

    def __init__(self, tokens: Sequence[_Word]) -> None:
        self.tokens = _joined(tokens)
        self.pronoun = ""
        self.lone = ""

    def run(self) -> str:
        """The noun of the first free noun phrase, or what stands for it."""
        at, relative = 0, False
        while at < len(self.tokens):
            word = self.tokens[at]
            if word.text in words.PREPOSITIONS:
                at, noun = self._after_preposition(at)
                if noun and not relative:
                    return noun
            elif self._takes_object(at):
                at = max(self._phrase(at + 1).end, at + 1)
            elif word.text in words.COPULAS or word.pos == "AUX":
                relative, at = False, at + 1
            elif word.text in words.CLAUSES and self.pronoun:
                relative, at = True, at + 1
            elif word.pos in ("PUNCT", "CCONJ", "SCONJ"):
                relative, at = relative and word.pos != "PUNCT", at + 1
            else:
                phrase = self._whole(self._phrase(at))
                if phrase.noun and not relative:
                    return phrase.noun
                if phrase.pronoun:
                    self.pronoun = self.pronoun or words.PERSONS.get(phrase.pronoun, words.NOTHING_NAMED)
                    relative = phrase.pronoun in ("one", "ones", "what", "which")
                self.lone = self.lone or phrase.lone
                at = max(phrase.end, at + 1)
        return self.pronoun or self.lone or words.NOTHING_NAMED

    def _takes_object(self, at: int) -> bool:
        """Whether the noun after a word is what somebody unnamed does something to: "wearing a hat"."""
        word, following = self._text(at), self._text(at + 1)
        eats = word in ("eating", "drinking") and following in words.EATERS
        return word in words.TRANSITIVE and not eats and not self._has_article(at)

    def _has_article(self, at: int) -> bool:
        """Whether the user wrote an article before a participle: "the riding man". One that we added stands at 0."""
        return at > 1 and self.tokens[at - 1].text in ("a", "an", "the")

    def _after_preposition(self, at: int) -> tuple[int, str]:
        """Where the phrase that a preposition governs ends, and a noun that follows it free of it."""
        phrase = self._phrase(at + 1)
        if (
            self.tokens[at].text in words.PLACING
            and phrase.noun
            and phrase.place
            and phrase.noun not in words.SURROUNDINGS
        ):
            return phrase.end, self._whole(phrase).noun
        end = max(phrase.end, at + 1)
        while end + 1 < len(self.tokens) and self.tokens[end].text in ("and", "or") and phrase.noun:
            following = self._phrase(end + 1)
            if not following.noun:
                break
            end = following.end
        return end, ""

    def _phrase(self, start: int) -> _Phrase:
        """Read describing words, then nouns."""
        phrase, at, last = _Phrase(), start, len(self.tokens)
        while at < last and not phrase.noun:
            word = self.tokens[at]
            if (
                word.text in words.PREPOSITIONS
                or word.text in words.COPULAS
                or word.text in words.CLAUSES - words.THINGS
            ):
                break
            if word.text in words.PERSONS and not self._owns(at):
                phrase.pronoun = word.text
                at += 1
                break
            if word.text in words.THINGS and not self._describes(at):
                phrase.pronoun = word.text
                at += 1
                break
            if word.text in words.PLACES or (word.text in words.VAGUE and phrase.place):
                phrase.place = word.text
            elif self._is_noun(at):
                at = self._nouns(at, phrase)
                continue
            elif word.text in words.COLOURS or word.text in words.DETERMINERS or word.text in words.PARTICLES:
                pass
            elif word.pos == "PUNCT" and at > start and word.text in (",", "-"):
                if phrase.place or not self._describes(at):
                    break
            elif word.pos == "CCONJ" and at > start and self._describes(at):
                pass
            elif (at > start and self._takes_object(at)) or word.pos not in _DESCRIBING_TAGS:
                break
            elif word.pos in _LONE_TAGS and not word.text.endswith(("ing", "ed")):
                phrase.lone = word.text
            at += 1
        phrase.end = at
        return phrase

    def _owns(self, at: int) -> bool:
        return self.tokens[at].text in words.DETERMINERS and self._describes(at)

    def _describes(self, at: int) -> bool:
        """Whether a noun follows with only describing words between: "this dog", "one big dog"."""
        for number in range(at + 1, len(self.tokens)):
            word = self.tokens[number]
            if word.text in words.PREPOSITIONS | words.COPULAS | words.CLAUSES | words.TRANSITIVE:
                return False
            if word.text in words.PLACES:
                continue
            if self._is_noun(number):
                return True
            if (
                word.text in words.THINGS
                or word.pos not in _DESCRIBING_TAGS | {"CCONJ"}
                or word.text in ("a", "an", "the")
            ):
                return False
        return False

    def _is_noun(self, at: int) -> bool:
        word = self.tokens[at]
        following = self._text(at + 1)
        if word.text == "light" and (following in words.COLOURS or following.startswith("colo")):
            return False
        if word.text in words.COMPOUNDS or word.text in words.KNOWN_NOUNS:
            return True
        if word.text in words.COLOURS:
            return word.text in words.FRUIT and following not in words.THINGS and not self._describes(at)
        if word.text in words.PLACES or word.text in words.DETERMINERS or word.text in words.TRANSITIVE:
            return False
        if _is_doing(word.text) and (not following or following in words.PREPOSITIONS) and not self._has_article(at):
            return False
        return word.pos in _NOUN_TAGS and any(letter.isalpha() for letter in word.text)

    def _nouns(self, at: int, phrase: _Phrase) -> int:
        """Read a run of nouns into a phrase: its last is the head. Returns where it ends."""
        start = at
        while at < len(self.tokens):
            word = self.tokens[at]
            if word.text in ("'s", "'"):
                phrase.noun = ""
                return at + 1
            if not self._is_noun(at) or (at > start and (_is_doing(word.text) or word.text in words.COLOURS)):
                break
            phrase.noun = word.text.replace("-", " ") if word.text in words.COMPOUNDS else word.text
            at += 1
            if word.text in words.MIXED and self._text(at) in ("and", "n") and self._is_run(at + 1):
                at += 1
        return at

    def _is_run(self, at: int) -> bool:
        """Whether two nouns stand here."""
        return at + 1 < len(self.tokens) and self._is_noun(at) and self._is_noun(at + 1)

    def _text(self, at: int) -> str:
        return self.tokens[at].text if at < len(self.tokens) else ""

    def _whole(self, phrase: _Phrase) -> _Phrase:
        """A phrase with what follows "of", where that is the thing."""
        while phrase.end < len(self.tokens) and self.tokens[phrase.end].text == "of":
            inner = self._phrase(phrase.end + 1)
            place = phrase.place if not phrase.noun else ""
            is_place = place in words.SIDES or (place and inner.noun in words.SURROUNDINGS)
            if (phrase.noun and not _passes_on(phrase.noun, inner.noun)) or is_place or not inner.noun:
                break
            phrase = inner
        return phrase


def _is_doing(text: str) -> bool:
    """Whether a word is a participle rather than a noun, whatever its tag."""
    return text.endswith("ing") and text not in words.ING_NOUNS


def _passes_on(noun: str, inner: str) -> bool:
    """Whether of "noun of inner" the thing is the second."""
    return noun in words.PARTITIVES | words.FRAMES or (noun in ("head", "heads") and inner in words.GREENS)


def _joined(tokens: Sequence[_Word]) -> list[_Word]:
    """The tokens, with the two words of `COMPOUNDS` in one."""
    joined: list[_Word] = []
    for word in tokens:
        if joined and f"{joined[-1].text}-{word.text}" in words.COMPOUNDS:
            joined[-1] = _Word(f"{joined[-1].text}-{word.text}", "NOUN")
        else:
            joined.append(word)
    return joined
