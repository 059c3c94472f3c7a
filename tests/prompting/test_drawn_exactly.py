"""Drawing that was made faster draws what it drew: a changed pixel changes requests, and so answers and versions."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pseudoris_cli.prompting import views
from pseudoris_cli.prompting.masks_geometry import GRID, bounds, dilated, eroded, most_interior_point
from pseudoris_cli.prompting.overlay import Mark, Overlay

SHAPES = ((90, 120), (7, 200), (200, 3), (1, 40), (97, 98), (260, 300))


def odd_masks(shape: tuple[int, int], seed: int) -> Iterator[np.ndarray]:
    """A blob, a disc that the border cuts, a box at the border, single pixels, nearly all, all."""
    rng = np.random.default_rng(seed)
    height, width = shape
    rows, columns = np.mgrid[:height, :width]
    yield ndimage.gaussian_filter(rng.random(shape), 3) > 0.5
    yield (columns - width * 0.1) ** 2 + (rows - height * 0.4) ** 2 <= (min(shape) / 3 + 1) ** 2
    yield (columns >= width // 2) & (rows <= height // 3)
    yield rng.random(shape) < 0.02
    yield rng.random(shape) < 0.98
    yield np.ones(shape, bool)


def interior_by_definition(mask: np.ndarray) -> tuple[float, float, float]:
    """The centre of the deepest cell, cell by cell, with scipy's distance transform."""
    left, top, right, bottom = bounds(mask)
    if right <= left:
        return 0.0, 0.0, 0.0
    part = mask[top:bottom, left:right]
    cell = -(-max(part.shape) // GRID)
    framed = np.pad(part, ((0, -part.shape[0] % cell), (0, -part.shape[1] % cell)))
    blocks = [
        [framed[row : row + cell, column : column + cell] for column in range(0, framed.shape[1], cell)]
        for row in range(0, framed.shape[0], cell)
    ]
    cells = np.array([[block.all() for block in row] for row in blocks])
    if not cells.any():
        cells = np.array([[block.any() for block in row] for row in blocks])
    squared = np.rint(ndimage.distance_transform_edt(np.pad(cells, 1))[1:-1, 1:-1] ** 2).astype(np.float32)
    deepest = np.argwhere(squared >= 0.95 * squared.max())
    row, column = deepest[((deepest - np.argwhere(cells).mean(0)) ** 2).sum(1).argmin()]
    x, y = left + (column + 0.5) * cell - 0.5, top + (row + 0.5) * cell - 0.5
    return min(x, right - 1.0), min(y, bottom - 1.0), float(np.sqrt(squared[row, column])) * cell - cell / 2


@pytest.mark.parametrize("shape", SHAPES)
def test_points_and_bands_are_those_of_their_definitions(shape: tuple[int, int]) -> None:
    for mask in odd_masks(shape, 3):
        assert most_interior_point(mask) == interior_by_definition(mask)
        for radius in (0, 1, 2, 5, 11):
            square = np.ones((2 * radius + 1,) * 2, bool)
            assert (dilated(mask, radius) == ndimage.binary_dilation(mask, square)).all()
            assert (eroded(mask, radius) == ndimage.binary_erosion(mask, square)).all()


def test_contours_are_those_recorded() -> None:
    """Pixels of contours without numbers (whose font is Pillow's), as they were drawn before drawing was made faster."""
    seen = hashlib.sha256()
    for number, shape in enumerate(SHAPES):
        ground = np.random.default_rng(number).integers(0, 256, (*shape, 3), np.uint8)
        overlay = Overlay(ground, [Mark(mask) for mask in odd_masks(shape, number) if mask.any()])
        for target in (None, 0, len(overlay.marks) - 1):
            seen.update(overlay.draw(target).tobytes())
    assert seen.hexdigest() == "ea68a04a891c778fc1d00d1b9234b6d63d80b3903cc801468ab42597b67f9f7c"


def test_where_numbers_stand_is_found_within_the_bounds_as_in_the_whole_picture() -> None:
    """An object under a smaller one: its number goes where it is seen, wherever the object lies."""
    for x, y in ((0, 0), (130, 60), (213, 117)):
        under, over = np.zeros((240, 400), bool), np.zeros((240, 400), bool)
        under[y : y + 120, x : x + 180] = True
        over[y + 5 : y + 115, x + 60 : x + 175] = True
        [plate, _] = Overlay(np.zeros((240, 400, 3), np.uint8), [Mark(under, 1), Mark(over, 2)]).plates
        middle_x, middle_y, _ = interior_by_definition(under & ~over)
        assert abs((plate.box[0] + plate.box[2]) / 2 - middle_x) <= 1
        assert abs((plate.box[1] + plate.box[3]) / 2 - middle_y) <= 1


@pytest.mark.parametrize("has_memory_files", [True, False])
def test_a_picture_is_encoded_the_same_with_and_without_a_file_of_the_system(
    has_memory_files: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_memory_files:
        monkeypatch.delattr(views.os, "memfd_create", raising=False)
    pixels = np.random.default_rng(0).integers(0, 256, (217, 343, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **views._JPEG)
    assert views._jpeg(pixels).data == views._jpeg(Image.fromarray(pixels)).data == file.getvalue()
