"""Floating-point operations of captioning one image and crop kind, by formula and by torch's counter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pseudoris_cli.decoding.engine import even_parts
from pseudoris_cli.decoding.network import QUERIES, ROWS, round_up

SAMPLERS = 10


@dataclass(frozen=True)
class Sizes:
    """What decides the work: layers and width of text tower and decoder, image tokens, vocabulary, operations of one crop's
    encoding."""

    text_layers: int
    layers: int
    width: int
    image_tokens: int
    vocabulary: int
    encode: float

    @classmethod
    def of(cls, coca: Any) -> Sizes:
        side = coca.visual.image_size[0]
        crop = torch.zeros(1, 3, side, side)
        return cls(
            text_layers=len(coca.text.transformer.resblocks),
            layers=len(coca.text_decoder.resblocks),
            width=coca.text_decoder.text_projection.shape[0],
            image_tokens=coca.visual(crop)[1].shape[1],
            vocabulary=coca.text_decoder.text_projection.shape[1],
            encode=counted(lambda: coca.visual(crop)),
        )

    def text(self, seen: int) -> float:
        """One position of the text tower that sees so many: projections and feed-forward 12 width^2, scores and values."""
        return self.text_layers * (24 * self.width**2 + 4 * seen * self.width)

    def decoder(self, seen: int) -> float:
        """One position of the multimodal decoder: a causal block, and a cross block without keys and values (10 width^2)."""
        return self.layers * (44 * self.width**2 + 4 * (seen + self.image_tokens) * self.width)

    @property
    def crop(self) -> float:
        """Keys and values of one crop's image tokens."""
        return self.layers * 4 * self.width**2 * self.image_tokens

    @property
    def projection(self) -> float:
        """One position to the vocabulary."""
        return 2.0 * self.width * self.vocabulary


def plain_operations(sizes: Sizes, masks: int, tokens: int) -> float:
    """As released: all positions anew for every row, every other crop and every beam, keys and values of the crop included."""
    per_step = SAMPLERS * masks * masks + 6 * masks  # a row reads its own and all other crops; 6 beams
    total = (1 + 6) * masks * sizes.encode
    for length in range(1, tokens):
        position = sizes.text(length) + sizes.decoder(length) + sizes.projection
        total += per_step * (length * position + sizes.crop)
    return total


def ours_operations(sizes: Sizes, masks: int, tokens: int, row_chunk: int) -> float:
    """Ours at its most: within a chunk of rows all prefixes differ from the second step on. Rows padded to whole kernels count."""
    total = round_up(masks, QUERIES) * sizes.encode + masks * sizes.crop
    parts = [part.stop - part.start for part in even_parts(SAMPLERS * masks, max(1, row_chunk // masks))]
    for length in range(1, tokens):
        first, final = length == 1, length == tokens - 1
        for rows in parts:
            own = min(rows, masks) if first else rows
            pairs = own if final else masks if first else rows * masks
            total += _advance(sizes, length, 1 if first else rows, pairs)
            total += (1 if final or masks == 1 else 2) * round_up(own, ROWS) * sizes.projection
        beams = masks if first else 2 * masks
        total += _advance(sizes, length, 1 if first else beams, beams) + round_up(beams, ROWS) * sizes.projection
    return total


def _advance(sizes: Sizes, length: int, prefixes: int, pairs: int) -> float:
    """One token more of so many prefixes, read beside crops in so many pairs."""
    return round_up(prefixes, ROWS) * sizes.text(length) + round_up(pairs, ROWS) * sizes.decoder(length)


def counted(work: Callable[[], Any]) -> float:
    """Operations that torch's counter sees in products and attention."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())
