"""Expressions for training the listener: true ones, near misses and damaged ones, each with the objects that it means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from phrases import MENTION_PLAIN, MENTION_SIZE
from pool import NAMES, Pool, attributes

from pseudoris_cli.demo import expressions as ex
from pseudoris_cli.demo.expressions import Expression, Located, parse_expression, referents
from pseudoris_cli.demo.grammar import ARTICLES, Attributes, Claim, Wording, agrees, compose
from pseudoris_cli.demo.world import HEIGHT, WIDTH

FORMS = ("attribute", "extreme", "ordinal", "place", "comparison", "relation")
SHARE = (0.3, 0.12, 0.1, 0.12, 0.08, 0.28)
NEAR_MISS = 0.4
DAMAGED = 0.06
MEANT = 0.6
"""Fraction of the texts that must mean something: places, orders and relations drawn at random seldom do."""


def located(pool: Pool, scene: int, flip: bool) -> list[Located]:
    """The objects of a scene of the pool, mirrored if `flip`."""
    owner = pool.owner[scene][:, :: -1 if flip else 1]
    found = []
    for k, code in enumerate(pool.codes[scene][pool.codes[scene][:, 0] >= 0]):
        found.append(place(owner == k + 1, attributes(code)))
    return found


def place(mask: np.ndarray, of: Attributes) -> Located:
    """An object of a scene of the world's size, from its visible mask."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = (xs[0] + xs[-1] + 1) / 2 / WIDTH, (ys[0] + ys[-1] + 1) / 2 / HEIGHT
    return Located(of, float(x), float(y), int(mask.sum()) / (WIDTH * HEIGHT))


def draw(objects: Sequence[Located], rng: np.random.Generator) -> tuple[str, frozenset[int]]:
    """A text about a scene and the objects that it means; nothing that hangs on a close comparison."""
    form = str(rng.choice(FORMS, p=SHARE))
    damaged, any_will_do = rng.random() < DAMAGED, rng.random() > MEANT
    for attempt in range(200):
        said = say(_draw_expression(form, objects, rng), rng)
        if damaged:
            said = damage(said, rng)
        parsed = parse_expression(said)
        meaning = referents(parsed, objects) if parsed else ex.Meaning(frozenset())
        if meaning.clear and (meaning.objects or damaged or any_will_do or attempt > 20):
            break
    return said, meaning.objects


def _draw_expression(form: str, objects: Sequence[Located], rng: np.random.Generator) -> Expression:
    target = objects[rng.integers(len(objects))].attributes
    claim = _draw_claim(target, rng, 0.06 if form == "attribute" else 0.3)
    if rng.random() < (NEAR_MISS if form == "attribute" else NEAR_MISS / 2):
        claim = _falsify(claim, objects, rng)
    if form == "attribute":
        return Expression(claim)
    side = str(rng.choice(ex.SIDES))
    if form == "extreme":
        return Expression(claim, "order", side)
    if form == "ordinal":
        return Expression(claim, "order", side, int(rng.integers(1, 3)))
    if form == "place":
        return Expression(claim, "place", str(rng.choice([*ex.SIDES, "middle"])))
    if form == "comparison":
        return Expression(replace(claim, size=None), "comparison", str(rng.choice(["largest", "smallest"])))
    other = objects[rng.integers(len(objects))].attributes
    return Expression(claim, "relation", side, landmark=_draw_claim(other, rng, 0.1, more=0.25))


def _draw_claim(of: Attributes, rng: np.random.Generator, anything: float, more: float = 0.0) -> Claim:
    """What is said of an object: its shape or "one", and some of its other attributes."""
    textured = MENTION_PLAIN if of.texture == "plain" else 0.42
    colour, texture, size = rng.random(3) < np.array((0.5, textured, MENTION_SIZE)) + more
    shape = None if rng.random() < anything else of.shape
    return Claim(shape, of.colour if colour else None, of.texture if texture else None, of.size if size else None)


def _falsify(claim: Claim, objects: Sequence[Located], rng: np.random.Generator) -> Claim:
    """The claim with one or two attributes changed, to those of another object of the scene or to any."""
    changed = claim
    for k in rng.choice(4, rng.integers(1, 3), replace=False):
        name = ("shape", "colour", "texture", "size")[k]
        other = objects[rng.integers(len(objects))].attributes
        value = getattr(other, name) if rng.random() < 0.5 else str(rng.choice(NAMES[k]))
        changed = replace(changed, **{name: value})
    return changed


def say(expression: Expression, rng: np.random.Generator) -> str:
    """One of the wordings of an expression."""
    noun = _noun(expression.claim, rng)
    article = "the" if rng.random() < 0.6 else next(a for a in ARTICLES if a != "the" and agrees(a, noun))
    if expression.form == "attribute":
        return f"{article} {noun}"
    if expression.form == "comparison":
        word = "biggest" if expression.where == "largest" and rng.random() < 0.4 else expression.where
        return f"the {word} {noun}"
    if expression.form == "place":
        return f"{article} {noun} {_named(ex.PLACES, expression.where, rng)}"
    if expression.form == "relation":
        assert expression.landmark is not None
        relation = _named(ex.RELATIONS, expression.where, rng)
        return f"{article} {noun} {relation} the {_noun(expression.landmark, rng)}"
    if expression.rank == 0:
        return f"the {_named(ex.EXTREMES, expression.where, rng)} {noun}"
    return f"the {list(ex.ORDINALS)[expression.rank - 1]} {noun} from the {expression.where}"


def _named(table: dict[str, str], value: str, rng: np.random.Generator) -> str:
    return str(rng.choice([word for word, of in table.items() if of == value]))


def _noun(claim: Claim, rng: np.random.Generator) -> str:
    """The words of a claim without an article."""
    size = {"small": ("small", "tiny"), "large": ("large", "big")}.get(claim.size or "", ("", ""))[
        int(rng.random() < 0.3)
    ]
    texture, tail = claim.texture or "", ""
    if texture == "plain":
        texture = ("plain", "solid")[int(rng.random() < 0.4)]
    elif texture and rng.random() < 0.3:
        texture, tail = "", {"striped": "stripes", "dotted": "dots"}[texture]
    said = compose(Wording(claim.shape or ex.ANYTHING, claim.colour or "", texture, size, tail))
    return said.split(" ", 1)[1]


def damage(text: str, rng: np.random.Generator) -> str:
    """The text with a word lost, doubled or moved."""
    words = text.split()
    k = int(rng.integers(len(words)))
    how = rng.integers(3)
    if how == 0 and len(words) > 1:
        del words[k]
    elif how == 1:
        words.insert(k, words[k])
    else:
        words.insert(int(rng.integers(len(words))), words.pop(k))
    return " ".join(words)
