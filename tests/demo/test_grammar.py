"""The strict parser: what is well-formed, what a phrase claims, when it holds."""

from __future__ import annotations

import itertools

import pytest

from pseudoris_cli.demo.grammar import COLOURS, SHAPES, SIZES, TEXTURES, Attributes, Claim, claims, parse, phrase

OBJECT = Attributes("ring", "orange", "dotted", "small")


@pytest.mark.parametrize(
    ("caption", "claim"),
    [
        ("a ring", Claim("ring")),
        (" the ring ", Claim("ring")),
        ("an orange ring", Claim("ring", "orange")),
        ("the tiny orange ring with dots", Claim("ring", "orange", "dotted", "small")),
        ("a big solid blue heart", Claim("heart", "blue", "plain", "large")),
        ("a striped cross", Claim("cross", None, "striped")),
    ],
)
def test_phrases_of_the_grammar(caption, claim):
    assert parse(caption) == claim


@pytest.mark.parametrize(
    "caption",
    [
        "", "ring", "a", "a orange ring", "an ring", "a ring ring", "a red orange ring", "a dotted ring with dots",
        "a red small ring", "a striped ring with dots", "a ring with", "a ring with dots with dots", "a red", "A ring",
        "a ring next to a ring", "a photo of a ring", "a  ring", "a ring!",
    ],
)  # fmt: skip
def test_anything_else_is_not_well_formed(caption):
    assert parse(caption) is None


def test_a_claim_holds_when_all_that_it_names_is_so():
    assert parse("a small dotted ring").holds(OBJECT)
    assert not parse("a large dotted ring").holds(OBJECT)
    assert not parse("an orange circle").holds(OBJECT)


def test_every_object_has_eight_claims_that_hold_and_can_be_said():
    for values in itertools.product(SHAPES, COLOURS, TEXTURES, SIZES):
        attributes = Attributes(*values)
        said = list(claims(attributes))
        assert len(set(said)) == 8
        for claim in said:
            assert claim.holds(attributes)
            assert parse(phrase(claim)) == claim
