"""Pixels of the demo world: shapes, textures and backgrounds, in numpy and Pillow.

Sizes must stay visible when a crop is resized to a fixed number of pixels: outlines have one width and textures one
pitch, whatever the object's size.
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
    """Where an object stands: centre and radius in pixels, turn in radians."""

    x: float
    y: float
    radius: float
    turn: float


@dataclass(frozen=True, slots=True)
class Patch:
    """A drawn object: its top left pixel, colours [h, w, 3] and coverage [h, w] in 0..1."""

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
"""Each shape inside the unit circle (about), v pointing down."""


def draw_object(what: Attributes, where: Placement, rng: np.random.Generator) -> Patch:
    """Draw one object on a transparent patch, shaded from top to bottom."""
    left, top = math.floor(where.x - where.radius) - 3, math.floor(where.y - where.radius) - 3
    side = math.ceil(2 * where.radius) + 7
    fine = (np.arange(side * SUPERSAMPLING) + 0.5) / SUPERSAMPLING
    x, y = np.meshgrid(fine + left - where.x, fine + top - where.y)
    cos, sin = math.cos(where.turn) / where.radius, math.sin(where.turn) / where.radius
    inside = _INSIDE[what.shape](x * cos + y * sin, y * cos - x * sin)
    coverage = inside.reshape(side, SUPERSAMPLING, side, SUPERSAMPLING).mean((1, 3))
    middle = SUPERSAMPLING // 2
    colour = _texture(
        what, x[middle::SUPERSAMPLING, middle::SUPERSAMPLING], y[middle::SUPERSAMPLING, middle::SUPERSAMPLING], rng
    )
    solid = Image.fromarray(((coverage > 0.5) * 255).astype(np.uint8))
    core = np.asarray(solid.filter(ImageFilter.MinFilter(2 * OUTLINE + 1)), bool)
    colour[~core] = np.array(PAINT[what.colour]) * 0.28
    shade = 1 + 0.1 * y[middle::SUPERSAMPLING, middle::SUPERSAMPLING, None] / where.radius
    return Patch(left, top, colour * shade, coverage)


def _texture(what: Attributes, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The object's paint [h, w, 3], with stripes or dots of a lighter (or, on light paint, darker) tint."""
    paint = np.clip(np.array(PAINT[what.colour], float) + rng.normal(0, 7, 3), 0, 255)
    tint = paint * 0.3 if what.colour in LIGHT_PAINT else paint * 0.25 + 255 * 0.75
    angle, phase = rng.uniform(0, math.pi), rng.random(2)
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    if what.texture == "striped":
        marked = (along / STRIPE_PITCH + phase[0]) % 1 < 0.42
    elif what.texture == "dotted":
        offset = np.hypot((along / DOT_PITCH + phase[0]) % 1 - 0.5, (across / DOT_PITCH + phase[1]) % 1 - 0.5)
        marked = offset * DOT_PITCH < DOT_RADIUS
    else:
        marked = np.zeros(x.shape, bool)
    return np.where(marked[..., None], tint, paint)


def _smooth(rng: np.random.Generator, cell: int, height: int, width: int) -> np.ndarray:
    """Noise of unit strength that varies over about `cell` pixels, [height, width]."""
    coarse = rng.normal(0, 1, (max(2, height // cell + 1), max(2, width // cell + 1))).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def draw_background(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A muted ground [height, width, 3]: a gradient, planks, checks or a horizon, with clouds and grain over it."""
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
