"""The pictures of every view: what is marked, what is cut, which objects have numbers, and that no answer depends on order."""

from __future__ import annotations

import io
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from pseudoris_cli.prompting.views import (
    Picture,
    Scene,
    View,
    _fit,
    _resized_mask,
    lineup_picture,
    numbered_by_area,
)
from pseudoris_cli.records import Mask, MaskedImage
from pseudoris_cli.rle import decode_rle, encode_rle, rle_area, rle_bbox


def scene(masks: list[np.ndarray], view: View = "marks+crop", max_side: int = 1024, max_marks: int = 20) -> Scene:
    image = np.random.default_rng(0).integers(0, 256, (*masks[0].shape, 3), np.uint8)
    for number, mask in enumerate(masks):
        image[mask] = (40 + 37 * number % 200, 90, 200 - 31 * number % 200)
    records = []
    for number, mask in enumerate(masks):
        rle = encode_rle(mask)
        records.append(Mask(number, rle, rle_bbox(rle), rle_area(rle), 0.9, 0.9))
    return Scene(MaskedImage("a.png", image, tuple(records)), view, max_side, max_marks)


def box(left: int, top: int, width: int, height: int, shape: tuple[int, int] = (480, 640)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.data)))


def test_numbers_go_by_area_and_ties_by_id() -> None:
    masks = [box(10, 10, 20, 20), box(100, 100, 90, 90), box(300, 300, 20, 20)]
    assert numbered_by_area(scene(masks).image.masks) == [1, 0, 2]
    shown = [scene(masks).show(place) for place in range(3)]
    assert [one.number for one in shown] == [2, 1, 3]
    assert {one.marked for one in shown} == {3}


def test_the_crop_is_three_times_the_box_and_bears_no_mark() -> None:
    made = scene([box(200, 200, 60, 40), box(400, 100, 50, 50)])
    whole, crop = made.show(0).pictures
    assert pixels(crop).shape == (120, 180, 3)
    original = made.image.image_rgb[160:280, 140:320].astype(int)
    assert np.abs(pixels(crop).astype(int) - original).mean() < 12, "but for JPEG it is the image itself"
    assert np.abs(pixels(whole).astype(int) - made.image.image_rgb.astype(int)).max() > 100, (
        "the whole picture is marked"
    )


def test_at_the_border_the_crop_ends_there() -> None:
    assert pixels(scene([box(0, 0, 60, 40)]).show(0).pictures[1]).shape == (80, 120, 3)


@pytest.mark.parametrize("view", get_args(View))
def test_every_view_of_every_target_is_a_picture_of_its_own(view: View) -> None:
    made = scene([box(30, 30, 100, 80), box(300, 200, 120, 90), box(500, 20, 12, 12)], view)
    shown = [made.show(place) for place in range(3)]
    assert len({one.pictures for one in shown}) == 3
    for one in shown:
        assert len(one.pictures) == (2 if "+" in view else 1)
        for picture in one.pictures:
            assert min(pixels(picture).shape[:2]) >= 28
            assert max(pixels(picture).shape[:2]) <= 1024
    if view != "crop":
        assert len({one.pictures[0] for one in shown}) == 3, "the target is told from the others in the whole picture"
    again = scene([box(30, 30, 100, 80), box(300, 200, 120, 90), box(500, 20, 12, 12)], view)
    assert [again.show(place).pictures for place in (2, 0, 1)] == [shown[place].pictures for place in (2, 0, 1)]


def test_rgba_has_the_mask_as_alpha_and_the_colours_as_they_are() -> None:
    mask = box(200, 200, 60, 40)
    [picture] = scene([mask, box(10, 10, 30, 30)], "rgba").show(0).pictures
    assert picture.media_type == "image/png"
    found = pixels(picture)
    assert found.shape == (480, 640, 4)
    assert ((found[..., 3] == 255) == mask).all()
    assert (found[..., :3] == scene([mask, box(10, 10, 30, 30)], "rgba").image.image_rgb).all()


def test_contour_and_box_mark_the_target_alone() -> None:
    masks = [box(50, 50, 100, 100), box(400, 250, 100, 100)]
    for view in ("contour+crop", "box+crop"):
        made = scene(masks, view)  # type: ignore[arg-type]
        drawn = pixels(made.show(0).pictures[0]).astype(int)
        away = np.abs(drawn - made.image.image_rgb.astype(int)).max(2)
        assert away[45:55, 45:155].mean() > 60
        assert away[320:, 350:].mean() < 30, "the rival has no mark"
        assert made.show(0).number is None


def test_a_box_is_drawn_as_a_box_where_the_contour_is_round() -> None:
    rows, columns = np.mgrid[:480, :640]
    disc = (rows - 240) ** 2 + (columns - 320) ** 2 < 100**2
    corner = (slice(141, 145), slice(221, 225))
    white = [
        (pixels(scene([disc], view).show(0).pictures[0])[corner] > 200).mean()  # type: ignore[arg-type]
        for view in ("box+crop", "contour+crop")
    ]
    assert white[0] > 0.5
    assert white[1] < 0.5


def test_pictures_are_reduced_to_the_longest_side_and_numbers_stay() -> None:
    made = scene([box(100, 100, 1500, 900, (2000, 3000)), box(2500, 1500, 9, 9, (2000, 3000))], max_side=1024)
    shown = made.show(1)
    assert pixels(shown.pictures[0]).shape == (683, 1024, 3)
    assert shown.number == 2, "an object of three drawn pixels is still there"
    assert len(made._all.plates) == 2


def test_beyond_max_marks_the_most_similar_rivals_are_shown() -> None:
    """Twenty-five boxes of five colours: those of the target's colour are the rivals that stay."""
    shape = (480, 640)
    masks = [box(10 + 120 * (n % 5), 10 + 90 * (n // 5), 40, 40, shape) for n in range(25)]
    made = scene(masks, max_marks=5)
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (240, 240, 0), (10, 10, 10)]
    for number, mask in enumerate(masks):
        made.image.image_rgb[mask] = colours[number % 5]
    for place in (0, 7, 24):
        assert sorted(made.marked(place)) == [n for n in range(25) if n % 5 == place % 5]
        shown = made.show(place)
        assert shown.marked == 5
        assert made.marked(place)[shown.number - 1] == place


def test_a_strip_and_a_speck_still_give_pictures() -> None:
    for shape in ((3, 900), (900, 3), (1, 1), (2000, 20)):
        mask = np.ones(shape, bool)
        for view in get_args(View):
            for picture in scene([mask], view).show(0).pictures:
                height, width = pixels(picture).shape[:2]
                assert min(height, width) >= 28
                assert max(height, width) <= 1024


def test_what_a_listener_sees_has_no_target() -> None:
    made = scene([box(30, 30, 100, 80), box(300, 200, 120, 90)])
    seen = lineup_picture(made.image, [0, 1], 1024).data
    assert seen not in {one.data for place in (0, 1) for one in made.show(place).pictures}
    assert lineup_picture(made.image, [1, 0], 1024).data != seen, "the numbers are in the order given"
    assert decode_rle(made.image.masks[0].rle).any()


def alike(masks: list[np.ndarray], paint: list[np.ndarray], max_marks: int) -> Scene:
    """A scene whose masks are painted with these pixels [H, W, 3]."""
    made = scene(masks, max_marks=max_marks)
    for mask, pixels in zip(masks, paint, strict=True):
        made.image.image_rgb[mask] = pixels[mask]
    return made


GREY = np.full((480, 640, 3), 120, np.uint8)


@pytest.mark.parametrize("place", [0, 3, 5])
def test_the_target_is_marked_even_among_its_doubles(place: int) -> None:
    made = alike([box(10 + 90 * n, 100, 40, 40) for n in range(6)], [GREY] * 6, max_marks=2)
    assert place in made.marked(place)
    assert len(made.marked(place)) == 2


@pytest.mark.parametrize("differs", ["colour", "texture", "form", "size"])
def test_the_rivals_that_stay_are_alike_in_colour_texture_form_and_size(differs: str) -> None:
    """Two of a kind and two of another: beside each of them its like stays."""
    sizes = {"form": [(80, 20), (20, 80)], "size": [(24, 24), (90, 90)]}.get(differs, [(40, 40), (40, 40)])
    checks = GREY.copy()
    checks[np.indices((480, 640)).sum(0) % 2 == 0] = 70
    checks[np.indices((480, 640)).sum(0) % 2 == 1] = 170
    other = {"colour": np.full_like(GREY, 200), "texture": checks}.get(differs, GREY)
    kinds = [0, 1, 0, 1]
    masks = [box(20 + 150 * n, 50 + 60 * n, *sizes[kind]) for n, kind in enumerate(kinds)]
    made = alike(masks, [[GREY, other][kind] for kind in kinds], max_marks=2)
    for place in range(4):
        assert sorted(made.marked(place)) == [place % 2, place % 2 + 2]


def test_a_speck_keeps_its_place_when_the_picture_is_reduced() -> None:
    for row, column in ((1, 2), (777, 2990), (1999, 1500)):
        mask = np.zeros((2000, 3000), bool)
        mask[row, column] = True
        [[found_row, found_column]] = np.argwhere(_resized_mask(mask, 200, 300))
        assert (found_row, found_column) == (row // 10, column // 10)
    block = np.zeros((2000, 3000), bool)
    block[1000:1003, 501:506] = True
    assert np.argwhere(_resized_mask(block, 200, 300)).tolist() == [[100, 50]], "the middle of what would vanish"


def test_half_of_a_pixel_s_share_makes_a_pixel_of_a_reduced_mask() -> None:
    mask = np.zeros((40, 40), bool)
    mask[:20, :20] = True
    mask[20:, :9], mask[20:, 20:31] = True, True
    assert (_resized_mask(mask, 2, 2) == [[True, False], [False, True]]).all()


def test_small_pictures_grow_by_whole_pixels_and_large_ones_are_reduced_smoothly() -> None:
    small = np.random.default_rng(0).integers(0, 256, (10, 17, 3), np.uint8)
    assert (np.asarray(_fit(Image.fromarray(small), 1024)) == small.repeat(3, 0).repeat(3, 1)).all()
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    reduced = np.asarray(_fit(Image.fromarray(stripes), 100)).astype(int)
    assert reduced.shape == (100, 100, 3)
    assert np.abs(reduced - 128).max() < 12
    assert _fit(Image.new("RGB", (900, 3)), 1024).size == (900, 28)
