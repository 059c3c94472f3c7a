"""The pictures of a request: the whole image with its objects marked, and a closer look at the target without marks."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import IO, Literal

import numpy as np
from PIL import Image

from pseudoris_cli.prompting.masks_geometry import bounds
from pseudoris_cli.prompting.overlay import Mark, Overlay
from pseudoris_cli.records import Mask, MaskedImage
from pseudoris_cli.rle import decode_rle

View = Literal["marks+crop", "contour+crop", "box+crop", "crop", "rgba"]
CLOSER = 3.0
"""Sides of the second picture in sides of the target's box."""
ALONE = 1.5
"""The same where the crop is all there is: the target must be what it shows."""
_JPEG = {"quality": 92, "subsampling": 0}  # full colour resolution: thin lines and digits stay sharp
_LEAST = 28
"""Pixels that a picture has at least on each side: networks cut pictures into patches of up to this size."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture as it goes to a model."""

    media_type: Literal["image/jpeg", "image/png"]
    data: bytes


@dataclass(frozen=True, slots=True)
class Shown:
    """What a request shows of one target: its pictures in order, its number, and how many objects have a number."""

    pictures: tuple[Picture, ...]
    number: int | None
    marked: int


def numbered_by_area(masks: Sequence[Mask]) -> list[int]:
    """Positions of the masks in the order of their numbers: larger area first, then lower id."""
    return sorted(range(len(masks)), key=lambda place: (-masks[place].area, masks[place].mask_id))


class Scene:
    """An image with its masks, ready to be shown with any of them as the target. Each picture is drawn when it is asked for."""

    def __init__(self, image: MaskedImage, view: View, max_side: int, max_marks: int) -> None:
        """`max_side`: pixels of the longer side of a picture, at most; `max_marks`: objects marked in a picture, at most."""
        self.image, self.view, self.max_side, self.max_marks = image, view, max_side, max_marks
        self._preparing = Lock()

    def show(self, place: int) -> Shown:
        """The pictures for the mask at this position of the image's masks. May be called from several threads."""
        self._prepare()
        if self.view == "rgba":
            return Shown((self._with_alpha(place),), None, 0)
        if self.view == "crop":
            return Shown((self._crop(place, ALONE),), None, 0)
        closer = self._crop(place, CLOSER)
        if self.view == "box+crop":
            drawn = Overlay(self._small, [Mark(_frame_of(self._masks[place]))]).draw(0)
            return Shown((_jpeg(drawn), closer), None, 1)
        if self.view == "contour+crop":
            return Shown((_jpeg(Overlay(self._small, [Mark(self._masks[place])]).draw(0)), closer), None, 1)
        order = self.marked(place)
        overlay = self._all if len(order) == len(self.image.masks) else self.numbered(order)
        position = order.index(place)
        return Shown((_jpeg(overlay.draw(position)), closer), position + 1, len(order))

    def marked(self, place: int) -> list[int]:
        """Positions of the masks that are marked with this target, in the order of their numbers.

        Where there are more than `max_marks`, the target and the rivals that look most like it.
        """
        order = self._order
        if len(order) <= self.max_marks:
            return order
        away = np.linalg.norm(self._looks - self._looks[place], axis=1)
        away[place] = -1
        chosen = set(np.argsort(away, kind="stable")[: self.max_marks].tolist())
        return [other for other in order if other in chosen]

    def _prepare(self) -> None:
        """Make what the targets share, once."""
        with self._preparing:
            if self.view == "crop":
                return
            self._masks  # noqa: B018
            if self.view == "marks+crop" and len(self.image.masks) <= self.max_marks:
                self._all.draw()

    # --- made once per image --------------------------------------------------------------------------------------------

    @cached_property
    def _order(self) -> list[int]:
        return numbered_by_area(self.image.masks)

    @cached_property
    def _small(self) -> np.ndarray:
        return np.asarray(_fit(Image.fromarray(self.image.image_rgb), self.max_side))

    @cached_property
    def _full_masks(self) -> list[np.ndarray]:
        return [decode_rle(mask.rle) for mask in self.image.masks]

    @cached_property
    def _masks(self) -> list[np.ndarray]:
        """The masks in the frame of the shown picture; one that would vanish keeps the pixel at its middle."""
        height, width = self._small.shape[:2]
        return [_resized_mask(mask, height, width) for mask in self._full_masks]

    @cached_property
    def _all(self) -> Overlay:
        return self.numbered(self._order)

    def numbered(self, order: Sequence[int]) -> Overlay:
        """The picture with these masks, by position, numbered in this order."""
        return Overlay(self._small, [Mark(self._masks[place], number) for number, place in enumerate(order, 1)])

    @cached_property
    def _looks(self) -> np.ndarray:
        """Mean and spread of colour, size and form of each mask, scaled to be compared: float [M, 8]."""
        rows = []
        for mask, small in zip(self.image.masks, self._masks, strict=True):
            pixels = self._small[small].astype(np.float32) / 255 if small.any() else np.zeros((1, 3), np.float32)
            form = np.log((mask.bbox[2] + 1) / (mask.bbox[3] + 1)), np.log(mask.area + 1)
            rows.append([*(3 * pixels.mean(0)), *(3 * pixels.std(0)), form[0] / 2, form[1] / 4])
        return np.array(rows)

    # --- one target -------------------------------------------------------------------------------------------------------

    def _crop(self, place: int, factor: float) -> Picture:
        """The image about the target's box, `factor` times as wide and high, cut at the image's border and unmarked."""
        height, width = self.image.image_rgb.shape[:2]
        x, y, box_width, box_height = self.image.masks[place].bbox
        half_x, half_y = max(factor * box_width, _LEAST) / 2, max(factor * box_height, _LEAST) / 2
        middle_x, middle_y = x + box_width / 2, y + box_height / 2
        box = (
            max(0, int(middle_x - half_x)),
            max(0, int(middle_y - half_y)),
            min(width, int(np.ceil(middle_x + half_x))),
            min(height, int(np.ceil(middle_y + half_y))),
        )
        cut = Image.fromarray(self.image.image_rgb[box[1] : box[3], box[0] : box[2]])
        return _jpeg(_fit(cut, self.max_side))

    def _with_alpha(self, place: int) -> Picture:
        """The whole picture as RGBA, opaque where the target is."""
        alpha = np.where(self._masks[place], 255, 0).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(np.dstack([self._small, alpha])).save(file, "PNG", compress_level=1)
        return Picture("image/png", file.getvalue())


def lineup_picture(image: MaskedImage, order: Sequence[int], max_side: int) -> Picture:
    """The whole picture with every mask numbered and none of them the target: what a listener sees.

    `order`: positions of the masks in the order of their numbers.
    """
    scene = Scene(image, "marks+crop", max_side, len(order))
    return _jpeg(scene.numbered(order).draw())


def _fit(picture: Image.Image, max_side: int) -> Image.Image:
    """Reduced so that no side is longer than `max_side`, enlarged (by nearest pixels) so that none is shorter than `_LEAST`."""
    longest, shortest = max(picture.size), min(picture.size)
    if longest > max_side:
        size = [max(1, round(side * max_side / longest)) for side in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS, reducing_gap=2.0)
    elif shortest < _LEAST:
        factor = min(-(-_LEAST // shortest), max(1, max_side // longest))
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    if (short := min(picture.size)) < _LEAST:  # a strip: no factor would do
        picture = picture.resize(tuple(max(side, _LEAST) if side == short else side for side in picture.size))  # type: ignore[arg-type]
    return picture


def _resized_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    if mask.shape == (height, width):
        return mask
    share = Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BOX)
    resized = np.asarray(share) >= 128
    if not resized.any() and mask.any():
        left, top, right, bottom = bounds(mask)
        row, column = (
            (top + bottom - 1) * height // (2 * mask.shape[0]),
            (left + right - 1) * width // (2 * mask.shape[1]),
        )
        resized = resized.copy()
        resized[row, column] = True
    return resized


def _frame_of(mask: np.ndarray) -> np.ndarray:
    """The filled box of a mask."""
    left, top, right, bottom = bounds(mask)
    box = np.zeros_like(mask)
    box[top:bottom, left:right] = True
    return box


def _jpeg(picture: np.ndarray | Image.Image) -> Picture:
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    with _memory_file() as file:
        picture.save(file, "JPEG", **_JPEG)
        file.seek(0)
        return Picture("image/jpeg", file.read())


def _memory_file() -> IO[bytes]:
    """A file in memory, one of the system's where it has such: Pillow encodes into those without holding other threads up."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("picture", os.MFD_CLOEXEC), "w+b", buffering=0)
    return io.BytesIO()
