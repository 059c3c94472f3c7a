"""What a student is trained and tested on: exports that differ in their selection only, and the truth of scenes.

All pictures are halved to 96 x 128 pixels, as a student is small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from located_phrases import draw, place
from phrases import word
from pool import encode
from student_network import CELL

from pseudoris_cli.dataset import PseudoRISDataset
from pseudoris_cli.demo.expressions import Located, parse_expression
from pseudoris_cli.demo.grammar import Attributes
from pseudoris_cli.demo.world import HEIGHT, WIDTH, render_scene, scene_seed

SHRINK = 2
FROM_TRUTH = ("truth", "truth, half of it with places and relations")
SHUFFLED = "all, of another mask of the image"
TESTED = range(920_000, 920_200)
"""Scenes of the split `evaluation`, used for students only."""
QUESTIONS = 4
"""Expressions about each object of a scene in the test, of attributes; as many in all are of places and relations."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A picture uint8 [3, 96, 128], the masks of its objects, coverage float [M, 48, 64], and (mask, expression) pairs."""

    picture: torch.Tensor
    masks: torch.Tensor
    said: list[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Question:
    """A scene of the test: picture, the objects' exact masks bool [M, 192, 256], and (object, expression, kind) triples."""

    picture: torch.Tensor
    masks: torch.Tensor
    asked: list[tuple[int, str, str]]


def lessons(labels: Path, selection: str, scenes: range, count: int, seed: int) -> list[Lesson]:
    """`count` expressions of a selection, drawn at random, by picture.

    A selection is a folder of `labels/exports`, one of `FROM_TRUTH` (exact masks) or `SHUFFLED` (each expression of `all` is
    given to another mask of its image).
    """
    rng = np.random.default_rng(seed)
    if selection in FROM_TRUTH:
        found = [_true_lesson(scene, selection == FROM_TRUTH[1], rng) for scene in scenes]
    else:
        export = labels / "exports" / ("all" if selection == SHUFFLED else selection)
        found = list(_exported(PseudoRISDataset(export)))
    if selection == SHUFFLED:
        found = [_shuffled(one, rng) for one in found]
    pairs = [(k, pair) for k, one in enumerate(found) for pair in one.said]
    if len(pairs) < count:
        raise SystemExit(f"{selection} has {len(pairs):,} expressions; {count:,} were asked for")
    chosen: dict[int, list[tuple[int, str]]] = {}
    for number in rng.choice(len(pairs), count, replace=False):
        chosen.setdefault(pairs[number][0], []).append(pairs[number][1])
    return [Lesson(found[k].picture, found[k].masks, said) for k, said in sorted(chosen.items())]


def _exported(dataset: PseudoRISDataset) -> Iterator[Lesson]:
    """The pictures of an export: its items come image by image, and mask by mask."""
    picture, image, ref, masks, said = None, -1, -1, [], []
    for number in range(len(dataset)):
        item = dataset[number]
        if item["image_id"] != image:
            if picture is not None:
                yield Lesson(picture, torch.stack(masks), said)
            picture, image, masks, said = shrink(item["image"]), item["image_id"], [], []
        if item["ref_id"] != ref:
            ref = item["ref_id"]
            masks.append(coverage(item["mask"]))
        said.append((len(masks) - 1, item["caption"]))
    if picture is not None:
        yield Lesson(picture, torch.stack(masks), said)


def _shuffled(one: Lesson, rng: np.random.Generator) -> Lesson:
    count = len(one.masks)
    other = [(int((mask + rng.integers(1, count)) % count) if count > 1 else mask, text) for mask, text in one.said]
    return Lesson(one.picture, one.masks, other)


def _true_lesson(number: int, located: bool, rng: np.random.Generator) -> Lesson:
    scene = render_scene(scene_seed("train", number))
    picture = shrink(torch.from_numpy(scene.image_rgb.copy()).permute(2, 0, 1))
    masks = torch.stack([coverage(torch.from_numpy(mask)) for mask in scene.masks])
    objects = [place(mask, of) for mask, of in zip(scene.masks, scene.attributes, strict=True)]
    said = [(k, word(*one, rng)) for k, of in enumerate(scene.attributes) for one in _unique(of, scene.attributes) * 4]
    if located:
        said = [said[k] for k in rng.permutation(len(said))]
        said = said[: len(said) // 2] + [(k, text) for k, text, _ in _located(objects, len(said) - len(said) // 2, rng)]
    return Lesson(picture, masks, said)


def _unique(of: Attributes, scene: tuple[Attributes, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The object's code and which of colour, texture and size are named, for every claim that fits no other object."""
    code, others = np.array(encode(of)), np.array([encode(one) for one in scene])
    found = []
    for bits in range(8):
        named = np.array([bool(bits & 1 << k) for k in range(3)])
        same = (others == code)[:, np.flatnonzero([True, *named])].all(1)
        if same.sum() == 1:
            found.append((code, named))
    return found


def _located(objects: list[Located], count: int, rng: np.random.Generator) -> list[tuple[int, str, str]]:
    """Expressions of places, orders, comparisons and relations that mean one object."""
    found = []
    while len(found) < count:
        text, meant = draw(objects, rng)
        parsed = parse_expression(text)
        if len(meant) == 1 and parsed is not None and parsed.kind != "attribute":
            found.append((next(iter(meant)), text, parsed.kind))
    return found


def questions() -> list[Question]:
    """The test: true expressions that mean one object of an unseen scene, and its exact mask."""
    rng, found = np.random.default_rng(0), []
    for number in TESTED:
        scene = render_scene(scene_seed("evaluation", number))
        asked = []
        for k, of in enumerate(scene.attributes):
            claims = _unique(of, scene.attributes)
            chosen = rng.permutation(len(claims))[:QUESTIONS]
            asked += [(k, word(*claims[one], rng), "attribute") for one in chosen]
        objects = [place(mask, of) for mask, of in zip(scene.masks, scene.attributes, strict=True)]
        asked += _located(objects, len(asked), rng)
        picture = shrink(torch.from_numpy(scene.image_rgb.copy()).permute(2, 0, 1))
        found.append(Question(picture, torch.stack([torch.from_numpy(mask.copy()) for mask in scene.masks]), asked))
    return found


def shrink(image: torch.Tensor) -> torch.Tensor:
    """Half of a picture uint8 [3, H, W]."""
    size = HEIGHT // SHRINK, WIDTH // SHRINK
    return F.interpolate(image[None].float(), size, mode="area")[0].round().to(torch.uint8)


def coverage(mask: torch.Tensor) -> torch.Tensor:
    """The share of each cell that a mask bool [H, W] covers."""
    size = HEIGHT // SHRINK // CELL, WIDTH // SHRINK // CELL
    return F.interpolate(mask[None, None].float(), size, mode="area")[0, 0]
