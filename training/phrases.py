"""Captions for training: a random wording of a random subset of an object's attributes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer
from pool import WEIGHTS, attributes

from pseudoris_cli.demo.grammar import Wording, compose

CONTEXT = 24
MENTION_COLOUR, MENTION_TEXTURE, MENTION_PLAIN, MENTION_SIZE = 0.5, 0.42, 0.22, 0.35
BARE_NOUN = 0.15
"""Probability of accepting a phrase that names the shape only; otherwise its attributes are drawn again."""
TOKENIZER = SimpleTokenizer(bpe_path=str(WEIGHTS / "bpe.txt.gz"), context_length=CONTEXT)


def draw_phrase(code: np.ndarray, rng: np.random.Generator) -> tuple[str, list[int]]:
    """A true phrase of an object, and its claim: a code with -1 for attributes that it does not name."""
    textured = MENTION_TEXTURE if code[2] else MENTION_PLAIN
    while True:
        named = rng.random(3) < (MENTION_COLOUR, textured, MENTION_SIZE)
        if named.any() or rng.random() < BARE_NOUN:
            break
    return word(code, named, rng), [
        int(code[0]),
        *(int(k) if say else -1 for k, say in zip(code[1:], named, strict=True)),
    ]


def word(code: np.ndarray, named: np.ndarray, rng: np.random.Generator) -> str:
    """One of the wordings of a claim."""
    of = attributes(code)
    size = {"small": ("small", "tiny"), "large": ("large", "big")}[of.size][int(rng.random() < 0.3)]
    texture = {"plain": ("plain", "solid")[int(rng.random() < 0.4)]}.get(of.texture, of.texture)
    tail = ""
    if named[1] and of.texture != "plain" and rng.random() < 0.3:
        tail, texture = {"striped": "stripes", "dotted": "dots"}[of.texture], ""
    return compose(
        Wording(
            of.shape,
            of.colour if named[0] else "",
            texture if named[1] else "",
            size if named[2] else "",
            tail,
            definite=rng.random() < 0.3,
        )
    )


@lru_cache(maxsize=100_000)
def _tokens(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER([text])[0].tolist())


def tokenize(texts: list[str]) -> torch.Tensor:
    """Token ids [N, CONTEXT], padded with 0."""
    return torch.tensor([_tokens(text) for text in texts])


def truth(claims: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Whether claim c holds for object o, bool [C, O], from codes [C, 4] (-1 = not named) and [O, 4]."""
    return ((claims[:, None] < 0) | (claims[:, None] == codes[None])).all(2)
