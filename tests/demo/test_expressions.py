"""Expressions of the demo world that need the whole picture: what they mean, and what is no expression."""

from __future__ import annotations

import numpy as np
import pytest

from pseudoris_cli.demo.expressions import Located, parse_expression, referents
from pseudoris_cli.demo.grammar import Attributes, claims, phrase
from pseudoris_cli.demo.world import render_scene, scene_seed


def at(x: float, y: float, area: float, *attributes: str) -> Located:
    return Located(Attributes(*attributes), x, y, area)


SCENE = (
    at(0.1, 0.2, 0.01, "circle", "red", "plain", "small"),
    at(0.5, 0.5, 0.04, "circle", "red", "striped", "large"),
    at(0.9, 0.8, 0.05, "circle", "blue", "plain", "large"),
    at(0.6, 0.9, 0.02, "star", "red", "plain", "small"),
)
"""A row of three circles from the top left to the bottom right, and a star at the bottom."""

MEANT = {
    "a circle": {0, 1, 2},
    "the red one": {0, 1, 3},
    "the leftmost circle": {0},
    "the rightmost red one": {3},
    "the topmost star": {3},
    "the bottommost circle": {2},
    "the second circle from the left": {1},
    "the third circle from the left": {2},
    "the third circle from the top": {2},
    "the second star from the left": set(),
    "the largest circle": {2},
    "the biggest red one": {1},
    "the smallest one": {0},
    "the circle on the left": {0},
    "a circle on the right": {2},
    "the one at the bottom": {2, 3},
    "the one at the top": {0},
    "the one in the middle": {1},
    "the circle left of the star": {0, 1},
    "the circle to the right of the star": {2},
    "the blue circle above the star": {2},
    "a red one below the blue circle": {3},
    "the star left of the circle": set(),  # which circle?
    "the star above the star": set(),
    "the large circle with stripes": {1},
    "a green square": set(),
}


@pytest.mark.parametrize(("text", "objects"), MEANT.items())
def test_what_an_expression_means(text: str, objects: set[int]) -> None:
    expression = parse_expression(text)
    assert expression is not None
    assert referents(expression, SCENE).objects == objects


@pytest.mark.parametrize(
    "text",
    [
        "",
        "circle",
        "the",
        "a the circle",
        "an circle",
        "a orange star",
        "an one",
        "the leftmost",
        "a leftmost circle",
        "the left circle",
        "the second circle",
        "the fourth circle from the left",
        "the circle left of star",
        "the circle left of the",
        "the striped circle with dots",
        "the circle on the left of the star on the right",
        "the red circle red",
    ],
)
def test_what_is_no_expression(text: str) -> None:
    assert parse_expression(text) is None


def test_close_comparisons_decide_nothing() -> None:
    near = (
        at(0.50, 0.2, 0.010, "circle", "red", "plain", "small"),
        at(0.52, 0.8, 0.011, "ring", "red", "plain", "small"),
    )
    for text in ("the leftmost red one", "the largest one", "the second one from the right"):
        meaning = referents(parse_expression(text), near)
        assert (meaning.objects, meaning.clear) == (frozenset(), False)
    assert referents(parse_expression("the topmost one"), near).objects == {0}
    edge = (at(0.33, 0.5, 0.01, "circle", "red", "plain", "small"),)
    assert not referents(parse_expression("the circle on the left"), edge).clear


def test_phrases_of_attributes_mean_what_they_meant() -> None:
    for seed in range(20):
        scene = render_scene(scene_seed("tune", seed))
        objects = [Located(of, 0.5, 0.5, 0.01) for of in scene.attributes]
        for of in scene.attributes:
            for claim in claims(of):
                expected = {k for k, other in enumerate(scene.attributes) if claim.holds(other)}
                expression = parse_expression(phrase(claim))
                assert expression.kind == "attribute"
                assert referents(expression, objects).objects == expected


def test_training_texts_mean_what_the_grammar_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from locations import REPOSITORY

    monkeypatch.syspath_prepend(REPOSITORY / "training")
    from located_phrases import draw, place

    rng = np.random.default_rng(0)
    kinds = set()
    for seed in range(10):
        scene = render_scene(scene_seed("tune", seed))
        objects = [place(mask, of) for mask, of in zip(scene.masks, scene.attributes, strict=True)]
        for _ in range(40):
            text, meant = draw(objects, rng)
            expression = parse_expression(text)
            assert (referents(expression, objects).objects if expression else frozenset()) == meant
            kinds.add((expression.kind if expression else "", min(len(meant), 2)))
    assert {(kind, count) for kind in ("attribute", "position", "relation") for count in (0, 1)} <= kinds
    assert {("comparison", 1), ("attribute", 2), ("", 0)} <= kinds
