"""Pixels of the demo world: shapes, textures and backgrounds, in numpy and Pillow.

All outlines have the same width and all textures the same pitch, so that the size of an object can still be seen in a
crop that is resized to a fixed number of pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from pseudoris_cli.demo.grammar import Attributes

PAINT = {
    "red": (205, 30, 35),
    "orange": (242, 130, 20),
    "yellow": (238, 222, 45),
    "green": (40, 150, 60),
    "blue": (35, 75, 210),
    "purple": (120, 45, 165),
    "pink": (245, 145, 195),
    "white": (242, 242, 242),
}
LIGHT_PAINT = ("white", "yellow", "pink", "orange")
OUTLINE = 2
STRIPE_PITCH, DOT_PITCH, DOT_RADIUS = 7.5, 7.5, 2.2
SUPERSAMPLING = 3


@dataclass(frozen=True, slots=True)
class Placement:
    """The position of an object: centre and radius in pixels, rotation `turn` in radians."""

    x: float
    y: float
    radius: float
    turn: float


@dataclass(frozen=True, slots=True)
class Patch:
    """A drawn object: its top left pixel, RGB colours [h, w, 3] in 0..255 and coverage [h, w] in 0..1."""

    x: int
    y: int
    colour: np.ndarray
    coverage: np.ndarray


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    angle = np.arctan2(u, -v) % (2 * math.pi / 5)
    angle = np.minimum(angle, 2 * math.pi / 5 - angle)  # fold onto one half of a point
    radius = np.hypot(u, v)
    across, along = radius * np.sin(angle), radius * np.cos(angle)
    tip, notch = 1.1, 0.56
    dx, dy = notch * math.cos(math.pi / 5) - tip, notch * math.sin(math.pi / 5)
    return dx * across - dy * (along - tip) > 0


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    x, y = 1.18 * u, 0.12 - 1.18 * v
    return (x * x + y * y - 1) ** 3 < x * x * y**3


_INSIDE = {
    "circle": lambda u, v: u * u + v * v < 1,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) < 0.86,
    "triangle": lambda u, v: (v < 0.6) & (math.sqrt(3) * abs(u) - v < 1.0),
    "star": _star,
    "ring": lambda u, v: (u * u + v * v < 1) & (u * u + v * v > 0.17),
    "cross": lambda u, v: (np.minimum(abs(u), abs(v)) < 0.38) & (np.maximum(abs(u), abs(v)) < 0.98),
    "heart": _heart,
}
"""Whether points (u right, v down) lie in each shape, which roughly fills the unit circle."""


def draw_object(attributes: Attributes, placement: Placement, rng: np.random.Generator) -> Patch:
    """Draw one object on a transparent patch, shaded from top to bottom."""
    left, top = math.floor(placement.x - placement.radius) - 3, math.floor(placement.y - placement.radius) - 3
    side = math.ceil(2 * placement.radius) + 7
    fine = (np.arange(side * SUPERSAMPLING) + 0.5) / SUPERSAMPLING
    x, y = np.meshgrid(fine + left - placement.x, fine + top - placement.y)
    cos, sin = math.cos(placement.turn) / placement.radius, math.sin(placement.turn) / placement.radius
    inside = _INSIDE[attributes.shape](x * cos + y * sin, y * cos - x * sin)
    coverage = inside.reshape(side, SUPERSAMPLING, side, SUPERSAMPLING).mean((1, 3))
    middle = SUPERSAMPLING // 2
    colour = _texture(
        attributes,
        x[middle::SUPERSAMPLING, middle::SUPERSAMPLING],
        y[middle::SUPERSAMPLING, middle::SUPERSAMPLING],
        rng,
    )
    solid = Image.fromarray(((coverage > 0.5) * 255).astype(np.uint8))
    core = np.asarray(solid.filter(ImageFilter.MinFilter(2 * OUTLINE + 1)), bool)
    colour[~core] = np.array(PAINT[attributes.colour]) * 0.28
    shade = 1 + 0.1 * y[middle::SUPERSAMPLING, middle::SUPERSAMPLING, None] / placement.radius
    return Patch(left, top, colour * shade, coverage)


def _texture(attributes: Attributes, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The object's colour [h, w, 3], with stripes or dots of a lighter (on light colours: darker) tint."""
    paint = np.clip(np.array(PAINT[attributes.colour], float) + rng.normal(0, 7, 3), 0, 255)
    tint = paint * 0.3 if attributes.colour in LIGHT_PAINT else paint * 0.25 + 255 * 0.75
    angle, phase = rng.uniform(0, math.pi), rng.random(2)
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    if attributes.texture == "striped":
        marked = (along / STRIPE_PITCH + phase[0]) % 1 < 0.42
    elif attributes.texture == "dotted":
        offset = np.hypot((along / DOT_PITCH + phase[0]) % 1 - 0.5, (across / DOT_PITCH + phase[1]) % 1 - 0.5)
        marked = offset * DOT_PITCH < DOT_RADIUS
    else:
        marked = np.zeros(x.shape, bool)
    return np.where(marked[..., None], tint, paint)


def _smooth(rng: np.random.Generator, cell: int, height: int, width: int) -> np.ndarray:
    """Smooth noise [height, width] of about unit variance with a correlation length of about `cell` pixels."""
    coarse = rng.normal(0, 1, (max(2, height // cell + 1), max(2, width // cell + 1))).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def draw_background(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A muted background [height, width, 3] in 0..255: a gradient, planks, checks or a horizon, with smooth noise on it."""
    first, second = (rng.uniform(70, 165) + rng.uniform(-15, 15, 3) for _ in range(2))
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[0:height, 0:width]
    across = math.cos(angle) * (x / width - 0.5) + math.sin(angle) * (y / height - 0.5)
    kind = rng.choice(("gradient", "planks", "checks", "horizon"), p=(0.55, 0.15, 0.15, 0.15))
    pitch, contrast = rng.uniform(22, 48), rng.uniform(0.12, 0.35)
    if kind == "planks":
        blend = 0.5 + contrast * ((across * width // pitch) % 2 - 0.5) + 0.3 * across
    elif kind == "checks":
        blend = 0.5 + contrast * (((x // pitch) + (y // pitch)) % 2 - 0.5) + 0.3 * across
    elif kind == "horizon":
        level = rng.uniform(0.2, 0.6) + 0.06 * (x / width - 0.5) * rng.normal()
        blend = np.where(y / height < level, 0.1, 0.75) + 0.2 * across
    else:
        blend = 0.5 + 0.8 * across
    ground = first + (second - first) * np.clip(blend, 0, 1)[..., None]
    clouds = _smooth(rng, 30, height, width) * rng.uniform(2, 11) + _smooth(rng, 5, height, width) * rng.uniform(1.5, 7)
    return ground + clouds[..., None]
