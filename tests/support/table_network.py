"""Networks that are tables: the logits after a prefix are looked up, so that a test decides what is likely, tied or at which rank.

`TableNetwork` stands where the decoder expects a CaptionNetwork. What it knows of a prefix it reads from the KV caches, so a
cache entry that was lost or copied wrongly gives other logits. `scorer` gives the same logits to the plain search.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from plain_beams import Scorer

from pseudoris_cli.decoding.network import CropQueries, CrossKV, Position
from pseudoris_cli.decoding.rules import DecodingRules

START, END, PAD = 1, 2, 0
Table = Callable[[int, tuple[int, ...]], list[float]]
"""(crop, prefix, the start included) -> the logits of the next token."""


class TableNetwork:
    """One text layer and one decoder layer whose caches hold tokens and prefix numbers instead of keys."""

    dtype, device = torch.float32, torch.device("cpu")
    width = heads = text_heads = 1
    text_blocks = decoder_blocks = (None,)

    def __init__(self, table: Table) -> None:
        self.table = table
        self._known: dict[tuple[int, ...], int] = {}
        self._prefixes: list[tuple[int, ...]] = []

    def cross_kv(self, crops: int) -> CrossKV:
        return CrossKV((torch.zeros(crops, 1, 2),))

    def _number(self, prefix: tuple[int, ...]) -> int:
        if prefix not in self._known:
            self._known[prefix] = len(self._prefixes)
            self._prefixes.append(prefix)
        return self._known[prefix]

    def text_step(self, tokens: torch.Tensor, caches: torch.Tensor, at: int | Position) -> torch.Tensor:
        position = int(at.index) if isinstance(at, Position) else at
        caches[0, 0, :, 0, position, 0] = tokens.float()
        seen = caches[0, 0, :, 0, : position + 1, 0].long().tolist()
        return torch.tensor([[float(self._number(tuple(prefix)))] for prefix in seen])

    def decoder_step(
        self, x: torch.Tensor, caches: torch.Tensor, at: int | Position, _cross_kv: CrossKV, queries: CropQueries
    ) -> torch.Tensor:
        position = int(at.index) if isinstance(at, Position) else at
        caches[0, 0, :, 0, position, 0] = x[:, 0]
        seen = caches[0, 0, :, 0, : position + 1, 0].long().tolist()
        attended = [tuple(self._prefixes[number][-1] for number in numbers) for numbers in seen]
        crops = queries.first + queries.slots // queries.rows.shape[1]
        hidden = [
            [float(number), float(self._number(prefix)), float(crop)]
            for number, prefix, crop in zip(x[:, 0].tolist(), attended, crops.tolist(), strict=True)
        ]
        return torch.tensor(hidden)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        rows = []
        for text, attended, crop in hidden.long().tolist():
            assert text == attended, "the caches of a prefix and of its pair with a crop disagree"
            rows.append(self.table(crop, self._prefixes[text]))
        return torch.tensor(rows, dtype=torch.float32)


def scorer(table: Table, crop: int) -> Scorer:
    """The table for the plain search of one crop."""

    def score(sequences: list[tuple[int, ...]]) -> np.ndarray:
        return np.array([table(crop, sequence) for sequence in sequences], np.float32)

    return score


@dataclass(frozen=True)
class BeamCase:
    """A table and the rules of a search in it."""

    name: str
    table: Table
    width: int
    crops: int
    rules: DecodingRules


def beam_rules(min_length: int, max_length: int) -> DecodingRules:
    return DecodingRules(
        start=START,
        end=END,
        pad=PAD,
        top_k=(),
        top_p=(),
        contrast=0.0,
        contrast_form="literal",
        contrast_max_masks=None,
        similarity_clamp=None,
        pad_ends_row=False,
        min_length=min_length,
        max_length=max_length,
    )


STYLES = ("spread", "end at a rank", "late", "integers", "ties")


def random_case(style: str, seed: int) -> BeamCase:
    """A random table in one of the styles.

    * spread: any logits, positive or negative on average, at some lengths far more than at others, so that it counts when a
      search stops
    * end at a rank: the same with the end at a rank that is drawn for every prefix
    * late: ends are among the first ranks of most beams at once, and what a token adds is very different at each length, so that
      better sequences end late
    * integers: whole numbers, distinct within a row, so that scores tie
    * ties: equal ones within a row too
    """
    pick = random.Random(f"{style} {seed}")
    width = pick.choice([1, 2, 2] if style in ("integers", "ties") else [1, 2, 2, 3, 4])
    vocabulary = 2 * width + pick.randint(1, 2 if style == "ties" else 6)
    vocabulary = max(vocabulary, END + 2)
    mean, end_bias = pick.choice([-6.0, -1.0, 0.0, 1.0, 6.0]), pick.choice([-1.0, 0.0, 1.0, 2.0])
    longest = pick.randint(3, 4 if style == "ties" else 9)
    given = beam_rules(pick.randint(1, longest - 1), longest)
    by_length = [mean + pick.choice([0.0, 0.0, 1.0]) * pick.gauss(0, 6) for _ in range(longest)]
    if style == "late":
        by_length = [pick.gauss(0, 8) for _ in range(longest)]

    def table(crop: int, prefix: tuple[int, ...]) -> list[float]:
        draw = random.Random(f"{style} {seed} {crop} {prefix}")
        if style == "integers":
            return [float(value + int(mean)) for value in draw.sample(range(2 * vocabulary), vocabulary)]
        if style == "ties":
            return [draw.choice([0.0, 1.0, 2.0, 3.0]) + int(mean) + (token == END) for token in range(vocabulary)]
        row = [draw.gauss(by_length[len(prefix)], 1.5) + (token == END) * end_bias for token in range(vocabulary)]
        if style in ("end at a rank", "late"):
            others = sorted((value for token, value in enumerate(row) if token != END), reverse=True)
            rank = draw.randrange(min(2 * width, len(others)) if style != "late" else 2)
            row[END] = others[rank] + 0.01
        return [float(np.float32(value)) for value in row]

    return BeamCase(f"{style} {seed}", table, width, pick.choice([1, 1, 3]), given)
