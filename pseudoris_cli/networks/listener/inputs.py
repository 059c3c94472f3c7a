"""What the listener sees of a picture: a crop with its mask, and the place, of every object; and the words of a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

SIZE = 40
"""Side of a crop, in pixels."""
GEOMETRY = 7
"""Numbers of an object's place: centre, width and height (fractions of the picture), log of its area, roots of both."""
LONGEST = 20
"""Words of a text that are read."""
_CONTEXT = 1.16
"""Side of the crop, as a multiple of the box's longer side; two pixels are added on each side."""


def crops_of(image_rgb: np.ndarray, masks: Sequence[np.ndarray]) -> torch.Tensor:
    """Every object with a little of its surroundings: uint8 [N, 4, SIZE, SIZE], RGB and the mask (0 or 255).

    `image_rgb` is uint8 [H, W, 3], each mask bool [H, W] with at least one pixel. What lies outside the picture is grey.
    """
    height, width = image_rgb.shape[:2]
    picture = torch.tensor(np.ascontiguousarray(image_rgb)).permute(2, 0, 1)
    out = torch.empty(len(masks), 4, SIZE, SIZE, dtype=torch.uint8)
    for index, mask in enumerate(masks):
        x0, y0, x1, y1 = _box(mask)
        radius = max(x1 - x0, y1 - y0) * _CONTEXT / 2 + 2
        left, top = int((x0 + x1) / 2 - radius), int((y0 + y1) / 2 - radius)
        side = max(int(2 * radius), 1)
        inside = (slice(max(top, 0), min(top + side, height)), slice(max(left, 0), min(left + side, width)))
        square = torch.full((4, side, side), 127, dtype=torch.uint8)
        square[3] = 0
        at = slice(inside[0].start - top, inside[0].stop - top), slice(inside[1].start - left, inside[1].stop - left)
        square[:3, at[0], at[1]] = picture[:, inside[0], inside[1]]
        square[3, at[0], at[1]] = torch.from_numpy(mask[inside].astype(np.uint8)) * 255
        resized = F.interpolate(square[None].float(), (SIZE, SIZE), mode="bilinear", antialias=True)
        out[index] = resized[0].round().to(torch.uint8)
    return out


def places_of(masks: Sequence[np.ndarray]) -> torch.Tensor:
    """The place of every object, float32 [N, GEOMETRY]."""
    rows = []
    for mask in masks:
        height, width = mask.shape
        x0, y0, x1, y1 = _box(mask)
        area = int(mask.sum()) / (height * width)
        w, h = (x1 - x0) / width, (y1 - y0) / height
        rows.append(((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, w, h, math.log(area), math.sqrt(w * h), area**0.5))
    return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), GEOMETRY)


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of a mask, x1 and y1 exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class Vocabulary:
    """Words to numbers: 0 is no word, 1 an unknown one."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(dict.fromkeys(words))
        self._number = {word: index for index, word in enumerate(self.words, start=2)}
        self._read = lru_cache(maxsize=100_000)(self._numbers)

    def __len__(self) -> int:
        return len(self.words) + 2

    def _numbers(self, text: str) -> tuple[int, ...]:
        found = [self._number.get(word, 1) for word in text.lower().split()[:LONGEST]]
        return tuple(found + [0] * (LONGEST - len(found)))

    def read(self, texts: Sequence[str]) -> torch.Tensor:
        """Numbers of the words, int64 [E, LONGEST]."""
        return torch.tensor([self._read(text) for text in texts], dtype=torch.int64).reshape(len(texts), LONGEST)
