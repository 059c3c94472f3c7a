"""Scenes of the demo world: images of a few objects, with near-duplicates, whose masks and attributes are known.

A scene is a pure function of its seed. It draws from two or three shapes and as many colours, and two objects in five
copy another with one attribute changed, so that often only a phrase naming several attributes tells an object apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import numpy as np

from pseudoris_cli.demo.drawing import Placement, draw_background, draw_object
from pseudoris_cli.demo.grammar import COLOURS, SHAPES, SIZES, TEXTURES, Attributes

WIDTH, HEIGHT = 256, 192
RADII = {"small": (15.0, 18.0), "large": (28.0, 35.0)}
"""Range of the radius, in pixels, for each size."""
MIN_VISIBLE = 0.65
"""Smallest visible fraction of an object that others cover in part."""
MIN_PIXELS = 120
"""Smallest visible area of an object, in pixels."""

Split: TypeAlias = Literal["train", "tune", "evaluation", "demo"]
SPLITS: tuple[Split, ...] = get_args(Split)
SEEDS_PER_SPLIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Scene:
    """An image with its ground truth: RGB uint8 [H, W, 3], visible masks bool [N, H, W], attributes of the N objects."""

    image_rgb: np.ndarray
    masks: np.ndarray
    attributes: tuple[Attributes, ...]


def scene_seed(split: Split, index: int) -> int:
    """The seed of a scene. Splits have disjoint ranges, so that scenes of training and tuning are never shown or evaluated.

    `tune` is for choosing settings, `evaluation` for published figures, `demo` for the scenes of `pseudoris demo`. Raises
    ValueError for an index out of range.
    """
    if not 0 <= index < SEEDS_PER_SPLIT:
        raise ValueError(f"scene index {index} is outside 0..{SEEDS_PER_SPLIT - 1}")
    return SPLITS.index(split) * SEEDS_PER_SPLIT + index


def render_scene(seed: int) -> Scene:
    """Render the scene of a seed; the same seed gives the same pixels."""
    rng = np.random.default_rng(seed)
    while True:
        objects = _choose_objects(rng)
        placements = _place_objects(objects, rng)
        scene = _paint(objects, placements, rng) if placements else None
        if scene:
            return scene


def _choose_objects(rng: np.random.Generator) -> list[Attributes]:
    """The attributes of the objects of a scene, from back to front."""
    shapes = rng.choice(SHAPES, rng.integers(2, 4), replace=False).tolist()
    colours = rng.choice(COLOURS, rng.integers(2, 4), replace=False).tolist()
    count = int(rng.integers(3, 8))
    objects: list[Attributes] = []
    while len(objects) < count:
        fresh = Attributes(
            str(rng.choice(shapes)),
            str(rng.choice(colours)),
            str(rng.choice(TEXTURES, p=(0.44, 0.28, 0.28))),
            str(rng.choice(SIZES, p=(0.55, 0.45))),
        )
        if objects and rng.random() < 0.4:
            attribute = str(rng.choice(("shape", "colour", "texture", "size")))
            fresh = replace(objects[rng.integers(len(objects))], **{attribute: getattr(fresh, attribute)})
        if fresh not in objects or rng.random() < 0.05:  # exact twins stay rare: no phrase can tell them apart
            objects.append(fresh)
    behind = [(attributes.size == "large") and rng.random() < 0.7 for attributes in objects]
    return [objects[i] for i in sorted(range(count), key=lambda i: not behind[i])]


def _place_objects(objects: list[Attributes], rng: np.random.Generator) -> list[Placement] | None:
    """A placement for each object with little overlap; None where there is no space left."""
    placements: list[Placement] = []
    for attributes in objects:
        radius = rng.uniform(*RADII[attributes.size])
        for _ in range(40):
            x, y = rng.uniform(radius + 1, WIDTH - radius - 1), rng.uniform(radius + 1, HEIGHT - radius - 1)
            if all(math.hypot(x - p.x, y - p.y) > 0.75 * (radius + p.radius) for p in placements):
                placements.append(Placement(x, y, radius, rng.uniform(-0.35, 0.35)))
                break
        else:
            return None
    return placements


def _paint(objects: list[Attributes], placements: list[Placement], rng: np.random.Generator) -> Scene | None:
    """Paint the objects from back to front; None where too little of an object stays visible."""
    canvas = draw_background(HEIGHT, WIDTH, rng)
    owner = np.zeros((HEIGHT, WIDTH), np.int16)
    light, full = rng.uniform(0.85, 1.05), []
    for number, (attributes, placement) in enumerate(zip(objects, placements, strict=True), start=1):
        patch = draw_object(attributes, placement, rng)
        x0, y0 = max(patch.x, 0), max(patch.y, 0)
        x1, y1 = min(patch.x + patch.coverage.shape[1], WIDTH), min(patch.y + patch.coverage.shape[0], HEIGHT)
        inside = (slice(y0 - patch.y, y1 - patch.y), slice(x0 - patch.x, x1 - patch.x))
        cover = patch.coverage[inside][..., None]
        canvas[y0:y1, x0:x1] = canvas[y0:y1, x0:x1] * (1 - cover) + light * patch.colour[inside] * cover
        owner[y0:y1, x0:x1][cover[..., 0] > 0.5] = number
        full.append(int((cover > 0.5).sum()))
    masks = owner == np.arange(1, len(objects) + 1, dtype=np.int16)[:, None, None]
    visible = masks.sum((1, 2))
    if (visible < MIN_PIXELS).any() or (visible < MIN_VISIBLE * np.array(full)).any():
        return None
    grain = rng.normal(0, rng.uniform(2, 7), canvas.shape)
    return Scene(np.clip(canvas + grain, 0, 255).astype(np.uint8), masks, tuple(objects))
