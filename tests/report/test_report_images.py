"""Images of the page: masks keep their shape; images are small, and a note says when the file has changed."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudoris_cli.records import ImageRef
from pseudoris_cli.report.images import embed_image, overlay
from pseudoris_cli.rle import encode_rle
from pseudoris_cli.sources.folder import Folder
from pseudoris_cli.storage.parts import digest_of


def opened(uri: str | None) -> Image.Image:
    assert uri is not None
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


@pytest.mark.parametrize("size", [(192, 256), (1, 40), (480, 640)])
def test_an_overlay_is_the_mask_to_the_pixel(size: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(size) > 0.7
    mask[:, : size[1] // 4] = False
    made = overlay(encode_rle(mask))
    assert made is not None
    image = opened(made.uri)
    left, top, width, height = (side / 100 for side in made.box)
    x, y = round(left * size[1]), round(top * size[0])
    assert (round(width * size[1]), round(height * size[0])) == image.size
    drawn = np.zeros(size, bool)
    drawn[y : y + image.height, x : x + image.width] = np.asarray(image.convert("RGBA"))[..., 3] > 0
    assert np.array_equal(drawn, mask)


def test_a_huge_mask_is_reduced_and_an_empty_one_has_no_overlay() -> None:
    mask = np.zeros((3000, 4000), bool)
    mask[1000:2000, 1000:3000] = True
    made = overlay(encode_rle(mask))
    assert made is not None
    assert made.box == (25, 33.333, 50, 33.333)
    assert opened(made.uri).size == (512, 256)
    assert overlay(encode_rle(np.zeros((4, 4), bool))) is None


def test_an_embedded_image_is_small_and_knows_its_file(tmp_path: Path) -> None:
    Image.new("RGB", (900, 600), (200, 30, 30)).save(tmp_path / "a.png")
    source, ref = Folder(tmp_path), ImageRef("a.png", 1, "a.png")
    made = embed_image(source, ref, 10**7, digest_of(tmp_path / "a.png"))
    assert (made.width, made.height, made.note) == (480, 320, None)
    assert opened(made.uri).size == (480, 320)
    assert opened(made.uri).format == "JPEG"
    assert "changed" in (embed_image(source, ref, 10**7, "0" * 64).note or "")
    large = embed_image(source, ref, 1000, None)
    assert large.uri is None
    assert "max_pixels" in (large.note or "")
    (tmp_path / "a.png").unlink()
    assert embed_image(source, ref, 10**7, None).note == "the image is gone"
