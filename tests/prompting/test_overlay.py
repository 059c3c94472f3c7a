"""What can be seen on a marked picture: contours on any ground, numbers that are read back, objects left visible."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pseudoris_cli.prompting.masks_geometry import bounds, dilated, eroded, most_interior_point
from pseudoris_cli.prompting.overlay import Mark, Overlay, plate_image

SIZE = (768, 1024)
rng = np.random.default_rng(7)
GROUNDS = {
    "black": np.zeros((*SIZE, 3), np.uint8),
    "white": np.full((*SIZE, 3), 255, np.uint8),
    "noise": rng.integers(0, 256, (*SIZE, 3), np.uint8),
    "stripes": np.broadcast_to((np.arange(1024) // 3 % 2 * 255).astype(np.uint8)[None, :, None], (*SIZE, 3)).copy(),
}


def ellipse(x: float, y: float, rx: float, ry: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return ((columns - x) / rx) ** 2 + ((rows - y) / ry) ** 2 <= 1


def thirty() -> list[Mark]:
    """Six columns, five rows: every third object is 12 px across."""
    found = []
    for place in range(30):
        radius = 6 if place % 3 == 0 else 20 + 1.5 * place
        found.append(Mark(ellipse(80 + place % 6 * 172, 70 + place // 6 * 155, radius, radius), place + 1))
    return found


def read_number(picture: np.ndarray, box: tuple[int, int, int, int], most: int) -> int:
    """The number whose plate, at its size of these pixels, is most like what stands in the box: a reader with no hint but size."""
    cut = picture[box[1] : box[3], box[0] : box[2]].astype(float)
    best = min(
        (float(np.abs(np.asarray(plate, float) - cut).mean()), number)
        for number in range(1, most + 1)
        for font in range(8, 40)
        if (plate := plate_image(number, font)).size == (cut.shape[1], cut.shape[0])
    )
    assert best[0] < 12, "no number of ours stands there"
    return best[1]


def test_contours_show_on_any_ground() -> None:
    """Along its whole length a contour is white between black on every ground, the target's wider, and the object is left bare."""
    masks = [ellipse(300, 380, 150, 200), ellipse(760, 380, 120, 90)]
    drawn = [Overlay(ground, [Mark(mask) for mask in masks]).draw(target=0) for ground in GROUNDS.values()]
    white = np.all([(picture == 255).all(2) for picture in drawn], 0)
    black = np.all([(picture == 0).all(2) for picture in drawn], 0)
    widths = []
    for mask in masks:
        edge = mask & ~eroded(mask, 1)
        assert white[edge].all(), "white on the contour itself"
        widths.append(ndimage.distance_transform_edt(white)[edge].mean())
        for side in (mask, ~mask):
            rim = black & side
            assert (ndimage.distance_transform_edt(~rim)[edge] < 10).all(), (
                "black to both sides of the white, all along"
            )
        inside = eroded(mask, 12)
        assert all(
            (picture[inside] == ground[inside]).all() for picture, ground in zip(drawn, GROUNDS.values(), strict=True)
        )
    assert widths[0] > 1.6 * widths[1]


@pytest.mark.parametrize("ground", GROUNDS)
def test_thirty_numbers_are_read_back_at_1024_pixels(ground: str) -> None:
    marks = thirty()
    overlay = Overlay(GROUNDS[ground], marks)
    drawn = overlay.draw(target=4)
    for mark, plate in zip(marks, overlay.plates, strict=True):
        assert read_number(drawn, plate.box, 30) == mark.number
        assert plate.box[3] - plate.box[1] >= 20, "digits of some 15 pixels"
    boxes = np.zeros(SIZE, int)
    for plate in overlay.plates:
        boxes[plate.box[1] : plate.box[3], plate.box[0] : plate.box[2]] += 1
    assert boxes.max() == 1, "no plate hides another"


def test_they_are_still_read_after_the_jpeg_that_goes_out() -> None:
    import io

    from pseudoris_cli.prompting.views import _jpeg

    overlay = Overlay(GROUNDS["noise"], thirty())
    sent = np.asarray(Image.open(io.BytesIO(_jpeg(overlay.draw()).data)))
    for number, plate in enumerate(overlay.plates, 1):
        assert read_number(sent, plate.box, 30) == number


def test_a_small_object_keeps_all_its_pixels_and_gets_a_leader_line() -> None:
    ground = GROUNDS["noise"]
    mask = ellipse(500, 300, 6, 6)
    overlay = Overlay(ground, [Mark(mask, 1), Mark(ellipse(500, 400, 300, 250), 2)])
    [plate, _] = overlay.plates
    drawn = overlay.draw(target=0)
    assert plate.leader is not None
    start, end = plate.leader
    assert mask[end[1], end[0]], "the line ends at the object"
    assert plate.box[0] <= start[0] < plate.box[2]
    assert plate.box[1] <= start[1] < plate.box[3]
    assert not mask[plate.box[1] : plate.box[3], plate.box[0] : plate.box[2]].any(), "the plate hides none of it"
    untouched = (drawn[mask] == ground[mask]).all(1).mean()
    assert untouched > 0.75, "but for the tip of its line it is as it was"


def test_a_mask_of_most_of_the_picture_is_seen_to_its_borders() -> None:
    """Contours that would lie outside of the picture lie inside, along its border."""
    mask = np.zeros(SIZE, bool)
    mask[:, :970] = True
    drawn = Overlay(GROUNDS["noise"], [Mark(mask, 1)]).draw(target=0)
    white = (drawn == 255).all(2)
    for edge in (
        white[:6, 50:900].any(0),
        white[-6:, 50:900].any(0),
        white[50:-50, :6].any(1),
        white[50:-50, 960:980].any(1),
    ):
        assert edge.mean() > 0.99


def test_a_number_stands_in_what_is_seen_of_its_mask() -> None:
    """Of a ring, not in its hole; of a wall behind a person, not on the person."""
    ring = ellipse(500, 380, 300, 300) & ~ellipse(500, 380, 150, 150)
    wall, person = np.ones(SIZE, bool), ellipse(512, 384, 200, 350)
    for masks in ([ring], [wall, person]):
        overlay = Overlay(GROUNDS["black"], [Mark(mask, number) for number, mask in enumerate(masks, 1)])
        for plate, mask in zip(overlay.plates, masks, strict=True):
            x, y = (plate.box[0] + plate.box[2]) // 2, (plate.box[1] + plate.box[3]) // 2
            assert plate.leader is None
            assert mask[y, x]
            assert [other[y, x] for other in masks].count(True) == 1 or mask is masks[-1]


@pytest.mark.parametrize("size", [(40, 30), (28, 400), (1024, 1024), (97, 33)])
def test_it_draws_on_pictures_of_any_size_and_leaves_the_input_alone(size: tuple[int, int]) -> None:
    ground = rng.integers(0, 256, (*size, 3), np.uint8)
    before = ground.copy()
    corner, all_of_it = np.zeros(size, bool), np.ones(size, bool)
    corner[:2, -2:] = True
    empty = np.zeros(size, bool)
    overlay = Overlay(ground, [Mark(all_of_it, 1), Mark(corner, 2), Mark(empty, 3)])
    for target in (None, 0, 1, 2):
        assert overlay.draw(target).shape == ground.shape
    assert (ground == before).all()
    assert (overlay.draw(1) == overlay.draw(1)).all(), "equal input gives equal pixels"


def test_the_most_interior_point_is_that_of_the_exact_distance_transform() -> None:
    """Exact where the grid has a cell for each pixel; within a cell of the best elsewhere."""
    for shape, scale in (((60, 80), 1), ((700, 900), 10)):
        for seed in range(8):
            noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), shape[0] / 8)
            mask = noise > 0.2 * noise.max()
            padded = np.pad(mask, 1)
            exact = ndimage.distance_transform_edt(padded)[1:-1, 1:-1]
            x, y, radius = most_interior_point(mask)
            assert mask[round(y), round(x)]
            assert exact[round(y), round(x)] >= 0.97 * exact.max() - 1.5 * scale
            assert radius == pytest.approx(exact[round(y), round(x)], abs=2 * scale)


def test_bands_are_those_of_scipy() -> None:
    mask = rng.random((50, 70)) > 0.7
    for radius in (1, 2, 3, 5, 8):
        square = np.ones((2 * radius + 1,) * 2)
        assert (dilated(mask, radius) == ndimage.binary_dilation(mask, square)).all()
        assert (eroded(mask, radius) == ndimage.binary_erosion(mask, square)).all()
    assert bounds(np.zeros((3, 3), bool)) == (0, 0, 0, 0)
