"""Which object each mask stands for, and what an expression of the demo world says of the objects of its scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pseudoris_cli.demo.expressions import Located, parse_expression, referents
from pseudoris_cli.demo.grammar import Attributes
from pseudoris_cli.errors import UsageError
from pseudoris_cli.evaluation.truth import KnownImage
from pseudoris_cli.records import Rle
from pseudoris_cli.rle import ious, rle_area, rle_bbox

NOT_IN_GRAMMAR = "other"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What holds of a text as an expression for a mask. `kind` is that of demo/expressions.py, or "other"."""

    kind: str
    well_formed: bool
    truthful: bool
    unique: bool

    @property
    def referring(self) -> bool:
        """Whether it holds for the mask's object and no other."""
        return self.truthful and self.unique


@dataclass(frozen=True, slots=True)
class Scene:
    """The objects of an image, and which of them each mask id stands for (-1: none)."""

    objects: tuple[Located, ...]
    object_of: dict[int, int]

    def judge(self, mask_id: int, text: str) -> Verdict:
        """Measure a text against the truth."""
        expression = parse_expression(text)
        if expression is None:
            return Verdict(NOT_IN_GRAMMAR, False, False, False)
        meant = referents(expression, self.objects).objects
        return Verdict(expression.kind, True, self.object_of.get(mask_id, -1) in meant, len(meant) == 1)


def known_scene_of(image: KnownImage, overlap: np.ndarray, mask_ids: Sequence[int]) -> Scene:
    """The scene of a known image and the masks that were found in it; `overlap` is their IoU, [objects, masks]."""
    return Scene(
        tuple(_located(rle, of) for rle, of in zip(image.masks, image.attributes or (), strict=True)),
        _matches(overlap, mask_ids),
    )


def overlaps(image: KnownImage, masks: Sequence[Rle]) -> np.ndarray:
    """IoU of every object with every mask, [objects, masks]."""
    sizes = {(rle.height, rle.width) for rle in (*image.masks, *masks)}
    if len(sizes) > 1:
        raise UsageError(f"the truth and the masks of {image.key} differ in size: {sorted(sizes)} (height, width)")
    return ious(image.masks, masks)


def _located(rle: Rle, of: Attributes) -> Located:
    x, y, width, height = rle_bbox(rle)
    area = rle_area(rle) / (rle.width * rle.height)
    return Located(of, (x + width / 2) / rle.width, (y + height / 2) / rle.height, area)


def _matches(overlap: np.ndarray, mask_ids: Sequence[int]) -> dict[int, int]:
    """The object that each mask overlaps most, -1 below IoU .5."""
    if not overlap.shape[0]:
        return dict.fromkeys(mask_ids, -1)
    best = overlap.argmax(axis=0)
    return {m: int(best[k]) if overlap[best[k], k] >= 0.5 else -1 for k, m in enumerate(mask_ids)}
