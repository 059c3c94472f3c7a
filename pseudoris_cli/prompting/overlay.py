"""Numbered contours on a picture: which object is meant is shown as pixels, never told as coordinates.

A contour is a white line between two black ones, so that it shows on any ground; a number is white on a black plate with a
white rim, at the most interior point of its mask, or beside the mask with a leader line where the mask is too small for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pseudoris_cli.prompting.masks_geometry import bounds, dilated, eroded, most_interior_point

REVISION = 1
"""Raised by hand when a change draws other pixels: pictures decide answers, so it is part of the version."""

_SMALL = 24
"""A mask of less than this squared, in drawn pixels, keeps all its pixels: its contour lies outside only."""
_ROOM = 1.35
"""A number stands inside if the disc that fits into the mask has this many times the radius of its plate."""


@dataclass(frozen=True, slots=True)
class Mark:
    """An object to be marked: its mask, bool [H, W] in the picture's frame, and its number; None draws the contour alone."""

    mask: np.ndarray
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Plate:
    """Where a number stands: its box in pixels, right and bottom exclusive, and the leader line from it to its mask."""

    number: int
    box: tuple[int, int, int, int]
    leader: tuple[tuple[int, int], tuple[int, int]] | None = None


class Overlay:
    """A picture with the contours and numbers of its objects, of which one at a time can be made the target."""

    def __init__(self, image_rgb: np.ndarray, marks: Sequence[Mark]) -> None:
        """`image_rgb` uint8 [H, W, 3] as it will be shown; masks of the same size. The picture itself is not changed."""
        height, width = image_rgb.shape[:2]
        self.image_rgb, self.marks = image_rgb, list(marks)
        self._line = max(1, round(max(height, width) / 512))
        self._font = max(11, round(max(height, width) / 44))
        self._bounds = [bounds(mark.mask) for mark in self.marks]
        self._areas = [int(np.count_nonzero(mark.mask)) for mark in self.marks]
        self.plates = self._place()
        self._plain: np.ndarray | None = None

    def draw(self, target: int | None = None) -> np.ndarray:
        """The picture, uint8 [H, W, 3]; the mark at this position of the list is drawn last and with a thicker contour."""
        if self._plain is None:
            self._plain = self.image_rgb.copy()
            for place in range(len(self.marks)):
                self._outline(self._plain, place, self._line)
        drawn = self._plain.copy()
        if target is not None:
            self._outline(drawn, target, 2 * self._line + 1)
        return self._numbered(drawn)

    def _outline(self, drawn: np.ndarray, place: int, line: int) -> None:
        """A white band along the contour, `line` pixels to each side of it, and a black band along both its sides."""
        left, top, right, bottom = self._bounds[place]
        black = line + max(1, self._line)
        x, y = max(left - black, 0), max(top - black, 0)
        window = (slice(y, bottom + black), slice(x, right + black))
        part = self.marks[place].mask[window]
        keeps_all = self._areas[place] < _SMALL**2
        grown = dilated(part, line)
        shrunk = part if keeps_all else eroded(part, line)
        # the outer band begins where the inner one ends: a square that grows twice is the square of both radii
        drawn[window][dilated(grown, black - line) & ~(part if keeps_all else eroded(shrunk, black - line))] = 0
        drawn[window][grown & ~shrunk] = 255

    # --- numbers ------------------------------------------------------------------------------------------------------

    def _numbered(self, drawn: np.ndarray) -> np.ndarray:
        if leaders := [plate.leader for plate in self.plates if plate.leader]:
            picture = Image.fromarray(drawn)
            pen = ImageDraw.Draw(picture)
            for leader in leaders:
                pen.line(leader, fill=(0, 0, 0), width=3 * self._line + 2)
                pen.line(leader, fill=(255, 255, 255), width=self._line + 1)
            drawn = np.array(picture)
        for plate in self.plates:
            left, top, right, bottom = plate.box
            pixels = _plate_pixels(plate.number, self._font)
            drawn[top:bottom, left:right] = pixels[: bottom - top, : right - left]
        return drawn

    def _place(self) -> list[Plate]:
        """A plate for every number: first those that fit inside their mask, then the others where they hide least."""
        height, width = self.image_rgb.shape[:2]
        taken = np.zeros((height, width), np.float32)
        for mark, (x0, y0, x1, y1), area in zip(self.marks, self._bounds, self._areas, strict=True):
            inside = mark.mask[y0:y1, x0:x1]  # a small object is worse to hide than the corner of a large one
            taken[y0:y1, x0:x1][inside] += 1 + 1e4 / (1 + area)
        placed: dict[int, Plate] = {}
        outside: list[int] = []
        free = self._uncovered()
        for place, mark in enumerate(self.marks):
            if mark.number is None:
                continue
            size = plate_image(mark.number, self._font).size
            x, y, radius = most_interior_point(free[place])
            x, y = x + self._bounds[place][0], y + self._bounds[place][1]
            if radius >= _ROOM * max(size) / 2:
                box = _box_at(x, y, size, (width, height))
                placed[place] = Plate(mark.number, box)
                taken[box[1] : box[3], box[0] : box[2]] += 1e3
            else:
                outside.append(place)
        for place in sorted(outside, key=self._areas.__getitem__):
            plate = self._beside(place, taken)
            placed[place] = plate
            taken[plate.box[1] : plate.box[3], plate.box[0] : plate.box[2]] += 1e3
        return [placed[place] for place in sorted(placed)]

    def _uncovered(self) -> list[np.ndarray]:
        """Each mask, within its bounds, without the smaller ones over it: a number there is taken for no other object's."""
        order = sorted(range(len(self.marks)), key=self._areas.__getitem__)
        covered = np.zeros(self.image_rgb.shape[:2], bool)
        free: dict[int, np.ndarray] = {}
        for place in order:
            left, top, right, bottom = self._bounds[place]
            window = (slice(top, bottom), slice(left, right))
            free[place] = self.marks[place].mask[window] & ~covered[window]
            covered[window] |= self.marks[place].mask[window]
        return [free[place] for place in range(len(self.marks))]

    def _beside(self, place: int, taken: np.ndarray) -> Plate:
        """A plate next to a mask, where it hides least; nearer and to the upper right first among equals."""
        mark = self.marks[place]
        assert mark.number is not None
        size = plate_image(mark.number, self._font).size
        height, width = taken.shape
        sums = np.pad(taken.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        left, top, right, bottom = self._bounds[place]
        best: tuple[float, tuple[int, int, int, int]] | None = None
        for step, gap in enumerate((0.6, 1.4, 2.4, 3.6)):
            reach_x, reach_y = size[0] / 2 + gap * self._font, size[1] / 2 + gap * self._font
            for turn, (dx, dy) in enumerate(_AROUND):
                x = (left + right - 1) / 2 + dx * ((right - left) / 2 + reach_x)
                y = (top + bottom - 1) / 2 + dy * ((bottom - top) / 2 + reach_y)
                box = _box_at(x, y, size, (width, height))
                x0, y0, x1, y1 = box
                hidden = float(sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]) / (size[0] * size[1])
                pushed = abs((x0 + x1) / 2 - x) + abs((y0 + y1) / 2 - y)  # the border of the picture pushed it back
                cost = hidden * 10 + step * 1.5 + turn * 0.05 + pushed / self._font
                if best is None or cost < best[0]:
                    best = (cost, box)
        assert best is not None
        rows, columns = np.nonzero(mark.mask[top:bottom, left:right])
        if not len(rows):
            return Plate(mark.number, best[1])
        middle = (best[1][0] + best[1][2]) / 2 - left, (best[1][1] + best[1][3]) / 2 - top
        nearest = int(((columns - middle[0]) ** 2 + (rows - middle[1]) ** 2).argmin())
        end = (left + int(columns[nearest]), top + int(rows[nearest]))
        return Plate(mark.number, best[1], (_nearest_on(best[1], end), end))


_AROUND = ((1, -1), (0, -1), (1, 0), (-1, -1), (0, 1), (-1, 0), (1, 1), (-1, 1))


def _box_at(x: float, y: float, size: tuple[int, int], picture: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box of this size about a point, moved into the picture (cut by it if it is larger)."""
    left = max(0, min(round(x - size[0] / 2), picture[0] - size[0]))
    top = max(0, min(round(y - size[1] / 2), picture[1] - size[1]))
    return left, top, min(left + size[0], picture[0]), min(top + size[1], picture[1])


def _nearest_on(box: tuple[int, int, int, int], point: tuple[int, int]) -> tuple[int, int]:
    return max(box[0], min(point[0], box[2] - 1)), max(box[1], min(point[1], box[3] - 1))


@lru_cache(maxsize=512)
def plate_image(number: int, font_size: int) -> Image.Image:
    """A number, white on black with a white rim; digits are `font_size` pixels high, less the space around them."""
    font = ImageFont.load_default(font_size)
    left, top, right, bottom = font.getbbox(str(number))
    pad = max(3, font_size // 5)
    width, height = int(right - left) + 2 * pad, int(bottom - top) + 2 * pad
    plate = Image.new("RGB", (max(width, height), height), (0, 0, 0))
    pen = ImageDraw.Draw(plate)
    pen.rectangle((0, 0, plate.width - 1, plate.height - 1), outline=(255, 255, 255))
    pen.text(((plate.width - (right - left)) / 2 - left, pad - top), str(number), fill=(255, 255, 255), font=font)
    return plate


@lru_cache(maxsize=512)
def _plate_pixels(number: int, font_size: int) -> np.ndarray:
    """The pixels of a plate, uint8 [h, w, 3], not to be written to."""
    return np.asarray(plate_image(number, font_size))
