"""The pool of rendered training scenes that all training scripts read, as plain arrays on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pseudoris_cli.demo.grammar import COLOURS, SHAPES, SIZES, TEXTURES, Attributes
from pseudoris_cli.demo.world import HEIGHT, WIDTH, Split, render_scene, scene_seed

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "pseudoris_cli/demo/weights"
MOST_OBJECTS = 7
NAMES = (SHAPES, COLOURS, TEXTURES, SIZES)
"""The values of each attribute; an object's code is its index in each of the four."""


@dataclass(frozen=True, slots=True)
class Pool:
    """S scenes: images uint8 [S, H, W, 3], owner uint8 [S, H, W] (0: background, k: object k - 1), codes int8 [S, 7, 4].

    Rows of `codes` beyond a scene's objects are -1.
    """

    images: np.ndarray
    owner: np.ndarray
    codes: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> Pool:
        """Memory-map the arrays, so that several runs share them."""
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "owner", "codes")))


def encode(of: Attributes) -> tuple[int, ...]:
    return tuple(
        names.index(value) for names, value in zip(NAMES, (of.shape, of.colour, of.texture, of.size), strict=True)
    )


def attributes(code: np.ndarray) -> Attributes:
    return Attributes(*(names[k] for names, k in zip(NAMES, code, strict=True)))


def write_pool(folder: Path, split: Split, count: int) -> None:
    """Render scenes 0..count-1 of a split into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    owner = np.zeros((count, HEIGHT, WIDTH), np.uint8)
    codes = np.full((count, MOST_OBJECTS, 4), -1, np.int8)
    for index in range(count):
        scene = render_scene(scene_seed(split, index))
        images[index] = scene.image_rgb
        for k, (mask, of) in enumerate(zip(scene.masks, scene.attributes, strict=True)):
            owner[index][mask] = k + 1
            codes[index, k] = encode(of)
    for name, array in (("images", images), ("owner", owner), ("codes", codes)):
        np.save(folder / f"{name}.npy", array)
