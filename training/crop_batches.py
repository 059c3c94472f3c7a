"""Batches of object crops, cut like those of the pipeline (crop style `mended`) from masks with errors like SAM's.

All objects of a scene are in one batch and have the same crop kind, so that a batch contains near-duplicates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from pool import Pool
from scipy import ndimage

SIZE = 64
MEAN = np.array((0.48145466, 0.4578275, 0.40821073))
STD = np.array((0.26862954, 0.26130258, 0.27577711))
FILL = np.round(MEAN * 255).astype(np.uint8)
CELL = 4
TRUE_MASKS = 0.2
"""Fraction of masks that are left unchanged."""
FLAWED = 0.7
"""Fraction of the others to which a blob is added, or from which one is cut, near the edge, so that boxes are off by pixels."""


@dataclass(frozen=True, slots=True)
class Crops:
    """RGB crops uint8 [N, 64, 64, 3] by position in the group of crop kinds; the objects' codes [N, 4] and scenes [N]."""

    pixels: dict[int, np.ndarray]
    codes: np.ndarray
    scene: np.ndarray


def degrade(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask with the errors of a decoder of 4-pixel cells: smoothed, noisy, a little too large or too small."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    margin = 5 * CELL  # a window of complete cells around the object
    top, left = max(ys[0] - margin, 0) // CELL * CELL, max(xs[0] - margin, 0) // CELL * CELL
    window = slice(top, -(-(ys[-1] + margin) // CELL) * CELL), slice(left, -(-(xs[-1] + margin) // CELL) * CELL)
    degraded = np.zeros_like(mask)
    degraded[window] = _degrade_window(mask[window], rng)
    return degraded


def _degrade_window(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = mask.shape
    cells = mask.reshape(height // CELL, CELL, width // CELL, CELL).mean((1, 3)).astype(np.float32)
    cells = ndimage.gaussian_filter(cells, rng.uniform(0.2, 0.8))
    cells += rng.normal(0, rng.uniform(0, 0.1), cells.shape).astype(np.float32) * (cells > 0.03)
    soft = np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BILINEAR))
    if rng.random() < FLAWED:
        soft = _with_flaw(soft, mask, rng)
    labels, count = ndimage.label(soft > rng.uniform(0.35, 0.6))
    if not count:
        return mask
    if rng.random() < 0.5:  # specks stay, as in automatic masks
        labels = np.minimum(labels, 1)
    largest = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    return largest if (largest & mask).sum() > 0.65 * (largest | mask).sum() else mask


def _with_flaw(soft: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mask's probabilities with a blob added up to 8 pixels outside it, or cut out of its rim."""
    add = rng.random() < 0.65
    distance = ndimage.distance_transform_edt(~mask if add else mask)
    positions = np.argwhere((distance > 0) & (distance <= (8 if add else 4)))
    if not len(positions):
        return soft
    y, x = positions[rng.integers(len(positions))]
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    blob = np.hypot((rows - y) / rng.uniform(1, 5), (columns - x) / rng.uniform(1, 5)) < 1
    return np.where(blob, 1.0 if add else 0.0, soft)


def crop(image: np.ndarray, mask: np.ndarray, kind: str) -> np.ndarray:
    """One crop in the style `mended` of `pseudoris_cli.method.crops`, uint8 RGB [64, 64, 3]."""
    height, width = mask.shape
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x0, y0, w, h = xs[0], ys[0], xs[-1] - xs[0] + 1, ys[-1] - ys[0] + 1
    factor = 1.0 if kind == "masked" else float(kind.removeprefix("crop_"))
    left, top = max(x0 - (factor - 1) * w / 2, 0), max(y0 - (factor - 1) * h / 2, 0)
    right, bottom = min(x0 + w + (factor - 1) * w / 2, width), min(y0 + h + (factor - 1) * h / 2, height)
    inside = slice(int(top), int(top) + int(bottom - top)), slice(int(left), int(left) + int(right - left))
    cut = np.where(mask[inside][..., None], image[inside], FILL) if kind == "masked" else image[inside]
    side = max(cut.shape[:2])
    square = np.empty((side, side, 3), np.uint8)
    square[:] = FILL
    y, x = (side - cut.shape[0]) // 2, (side - cut.shape[1]) // 2
    square[y : y + cut.shape[0], x : x + cut.shape[1]] = cut
    return np.asarray(Image.fromarray(square).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def crop_batches(pool: Pool, size: int, kinds: Sequence[Sequence[str]], rng: np.random.Generator) -> Iterator[Crops]:
    """Endless batches of `size` objects; for each scene one group of crop kinds is drawn, with one crop for each of its kinds.

    `Crops.pixels` is keyed by the position of the kind in its group: 0, 1, ...
    """
    order: list[int] = []
    while True:
        pixels: list[list[np.ndarray]] = []
        codes, scenes = [], []
        while len(codes) < size:
            order = order or rng.permutation(len(pool.images)).tolist()
            number = order.pop()
            group = kinds[rng.integers(len(kinds))]
            flip = slice(None, None, -1 if rng.random() < 0.5 else 1)
            image, owner = pool.images[number][:, flip], pool.owner[number][:, flip]
            for k, code in enumerate(pool.codes[number][pool.codes[number][:, 0] >= 0]):
                mask = owner == k + 1
                mask = mask if rng.random() < TRUE_MASKS else degrade(mask, rng)
                pixels.append([crop(image, mask, kind) for kind in group])
                codes.append(code)
                scenes.append(number)
        stacked = {i: np.stack([row[i] for row in pixels[:size]]) for i in range(len(pixels[0]))}
        yield Crops(stacked, np.array(codes[:size]), np.array(scenes[:size]))


def normalise(pixels: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Normalised crops [N, 3, 64, 64], their brightness varied slightly."""
    x = torch.from_numpy(pixels).float() / 255
    x = x * torch.from_numpy(rng.uniform(0.94, 1.06, (len(x), 1, 1, 1))).float()
    return ((x - torch.from_numpy(MEAN).float()) / torch.from_numpy(STD).float()).permute(0, 3, 1, 2)
