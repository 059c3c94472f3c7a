"""Small images with masks, and a listener of which everything is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pseudoris_cli.method.protocols import Lineup, Listener
from pseudoris_cli.records import Mask, MaskedImage
from pseudoris_cli.rle import encode_rle


def image(count: int, key: str = "a.png") -> MaskedImage:
    """Masks of falling ids and rising areas, so that no order is the order of another."""
    masks = []
    for number in range(count):
        inside = np.zeros((40, 40), bool)
        inside[number, : 5 + number] = True
        masks.append(Mask(count - 1 - number, encode_rle(inside), (0, 0, 1, 1), int(inside.sum()), 1.0, 1.0))
    return MaskedImage(key, np.zeros((40, 40, 3), np.uint8), tuple(masks))


class ByArea(Listener):
    """Takes "N" for the object of N pixels; `bias` is what being the first adds to a probability."""

    def __init__(self, bias: float = 0.0) -> None:
        self.bias = bias
        self.lineups: list[Lineup] = []

    def listen(self, lineups: Sequence[Lineup]) -> list[np.ndarray]:
        self.lineups += lineups
        return [self._hear(one) for one in lineups]

    def _hear(self, one: Lineup) -> np.ndarray:
        answers = np.full((len(one.expressions), len(one.masks) + 1), 0.01)
        for row, text in enumerate(one.expressions):
            if text == "?":
                answers[row] = np.nan
                continue
            answers[row, [m.area for m in one.masks].index(int(text)) if text.isdigit() else -1] += 0.5
            answers[row, 0] += self.bias
        return answers / answers.sum(1, keepdims=True)

    def fits(self, lineups: Sequence[Lineup]) -> list[np.ndarray]:
        return [
            np.array(
                [[0.9 if str(m.area) in text.split() else 0.1 for m in one.masks] for text in one.expressions]
            ).reshape(len(one.expressions), len(one.masks))
            for one in lineups
        ]
