"""Crops equal a plain version, mask by mask, with torchvision's crop, pad and resize."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from pseudoris_cli.method.crops import CropSpec, crop_window, make_crops
from pseudoris_cli.records import CROP_KINDS, CropKind, Mask, MaskedImage
from pseudoris_cli.rle import decode_rle, encode_rle, rle_area, rle_bbox
from pseudoris_cli.settings.models import CropStyle

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def image(key: str, height: int, width: int, boxes: list[tuple[int, int, int, int]]) -> MaskedImage:
    """A noise image with ragged masks that fill the given x, y, w, h boxes."""
    generator = np.random.default_rng(height)
    masks = []
    for number, (x, y, w, h) in enumerate(boxes):
        mask = np.zeros((height, width), bool)
        mask[y : y + h, x : x + w] = generator.random((h, w)) < 0.6
        mask[y, x] = mask[y + h - 1, x + w - 1] = True
        rle = encode_rle(mask)
        masks.append(Mask(number, rle, rle_bbox(rle), rle_area(rle), 0.0, 0.0))
    return MaskedImage(key, generator.integers(0, 256, (height, width, 3), dtype=np.uint8), tuple(masks))


IMAGES = [
    image("wide", 90, 200, [(3, 5, 20, 10), (0, 0, 200, 90), (150, 70, 50, 20), (9, 9, 20, 30)]),
    image("none", 30, 30, []),
    image("tall", 300, 77, [(10, 10, 40, 200), (70, 290, 7, 10), (5, 5, 60, 60), (20, 20, 2, 9)]),
]
THIN = image("thin", 60, 50, [(10, 10, 1, 40), (4, 59, 30, 1), (0, 0, 1, 1)])


def plain_crop(image: MaskedImage, mask: Mask, kind: CropKind, spec: CropSpec) -> torch.Tensor:
    """One crop as the release's script makes it, or in style `mended`."""
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    pixels = (torch.from_numpy(image.image_rgb).permute(2, 0, 1).float() / 255 - mean) / std
    fill = mean if spec.style == "released" else torch.zeros(3, 1, 1)
    inside = torch.from_numpy(decode_rle(mask.rle))
    if kind == "masked":
        pixels = torch.where(inside, pixels, fill)
    ys, xs = torch.where(inside)
    extra = 0 if spec.style == "released" else 1
    x0, y0, x1, y1 = float(xs.min()), float(ys.min()), float(xs.max() + extra), float(ys.max() + extra)
    margin = 1.0 if kind == "masked" else float(kind.removeprefix("crop_"))
    w, h = margin * (x1 - x0), margin * (y1 - y0)
    if kind != "masked":
        dx, dy = (w - (x1 - x0)) / 2, (h - (y1 - y0)) / 2
        height, width = inside.shape
        x0, y0, x1, y1 = max(x0 - dx, 0.0), max(y0 - dy, 0.0), min(x1 + dx, width), min(y1 + dy, height)
        w, h = x1 - x0, y1 - y0
    cut = pixels[:, int(y0) : int(y0) + int(h), int(x0) : int(x0) + int(w)]
    side = max(int(max(w, h)), 1)
    square = fill.expand(3, side, side).clone()
    left, top = (side - cut.shape[2]) // 2, (side - cut.shape[1]) // 2
    square[:, top : top + cut.shape[1], left : left + cut.shape[2]] = cut
    return tv.resize(square, [spec.size, spec.size], antialias=spec.style == "mended")


@pytest.mark.parametrize("style", ["released", "mended"])
@pytest.mark.parametrize("size", [64, 224])
def test_crops_equal_the_plain_version(style: CropStyle, size: int) -> None:
    spec = CropSpec(size, MEAN, STD, style)
    found = make_crops(IMAGES, CROP_KINDS, spec, "cpu")
    for kind in CROP_KINDS:
        expected = torch.stack([plain_crop(one, mask, kind, spec) for one in IMAGES for mask in one.masks])
        torch.testing.assert_close(found[kind], expected, atol=3e-5, rtol=0)


@pytest.mark.parametrize("style", ["released", "mended"])
def test_thin_masks(style: CropStyle) -> None:
    """The release cuts the last row and column, so a mask one pixel thin leaves nothing but the fill."""
    spec = CropSpec(32, MEAN, STD, style)
    found = make_crops([THIN], CROP_KINDS, spec, "cpu")
    for kind in CROP_KINDS:
        expected = torch.stack([plain_crop(THIN, mask, kind, spec) for mask in THIN.masks])
        torch.testing.assert_close(found[kind], expected, atol=3e-5, rtol=0)
    flat = (found["masked"] - torch.tensor(MEAN)[:, None, None]).abs() <= 3e-5  # a sum of weighted means, in any order
    assert bool(flat.all()) is (style == "released")


def test_a_crop_is_the_same_whatever_is_made_with_it() -> None:
    """But for the rounding of a matrix product, whose kernel is chosen by the number of crops of one canvas."""
    spec = CropSpec(64, MEAN, STD, "mended")
    together, alone = make_crops(IMAGES, CROP_KINDS, spec, "cpu"), make_crops(IMAGES[2:], ["crop_1.2"], spec, "cpu")
    torch.testing.assert_close(together["crop_1.2"][4:], alone["crop_1.2"], atol=3e-6, rtol=0)
    again = make_crops(IMAGES, CROP_KINDS, spec, "cpu")
    assert all(torch.equal(again[kind], together[kind]) for kind in CROP_KINDS)


def test_images_without_masks() -> None:
    spec = CropSpec(16, MEAN, STD, "mended")
    assert make_crops([IMAGES[1]], ["masked"], spec, "cpu")["masked"].shape == (0, 3, 16, 16)
    assert make_crops([], ["masked"], spec, "cpu")["masked"].shape == (0, 3, 16, 16)


def test_windows() -> None:
    """Enlarged about the centre, clipped to the image, truncated to integer pixels; the release loses a row and a column."""
    mended = crop_window((10, 20, 40, 20), "crop_1.2", "mended", (100, 100))
    assert (mended.left, mended.top, mended.width, mended.height, mended.pad) == (6, 18, 48, 24, (0, 12))
    released = crop_window((10, 20, 41, 21), "crop_1.2", "released", (100, 100))
    assert released == mended
    clipped = crop_window((0, 0, 100, 50), "crop_1.1", "mended", (100, 100))
    assert (clipped.left, clipped.top, clipped.width, clipped.height) == (0, 0, 100, 52)
