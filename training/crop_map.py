"""A map of the picture in the corner of a crop, so that a captioner that sees crops only can know where its object is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

HEIGHT, WIDTH = 12, 16
"""Pixels of the map; a crop has 64 x 64."""
GROUND, OTHER, OWN = 60, 140, 255


def crop_maps(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """A map for each of M objects, uint8 [M, HEIGHT, WIDTH], from their boxes xywh in fractions of the picture."""
    maps = np.full((len(boxes), HEIGHT, WIDTH), GROUND, np.uint8)
    at = []
    for x, y, w, h in boxes:
        left, top = round(x * WIDTH), round(y * HEIGHT)
        right, bottom = max(round((x + w) * WIDTH), left + 1), max(round((y + h) * HEIGHT), top + 1)
        at.append((slice(top, bottom), slice(left, right)))
    for own, place in enumerate(at):
        for other in at:
            maps[own][other] = np.maximum(maps[own][other], OTHER)
        maps[own][place] = OWN
    return maps
