"""Images that OpenCV would read in another orientation become upright PNGs; all others stay byte for byte."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pseudoris_cli.codecs.image_decode import decode_rgb
from pseudoris_cli.codecs.image_upright import is_portable, portable

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description tiff:Orientation=\"6\"/></x:xmpmeta>"


def encoded(kind: str, orientation: int | None = None, **options: object) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **({"exif": exif} if orientation is not None else {}), **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "PPM"])
def test_what_every_reader_sees_alike_stays_as_it_is(kind: str) -> None:
    data = encoded(kind)
    assert portable(data) is data
    assert is_portable(io.BytesIO(data))


@pytest.mark.parametrize("orientation", range(10))
def test_a_jpeg_is_turned_by_its_reader(orientation: int) -> None:
    data = encoded("JPEG", orientation)
    assert portable(data) is data


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_others_with_an_orientation_become_upright_pngs(kind: str, orientation: int) -> None:
    data = encoded(kind, orientation, **({"lossless": True} if kind == "WEBP" else {}))
    turned = portable(data)
    with Image.open(io.BytesIO(turned)) as image:
        assert (image.format, image.getexif().get(0x0112)) == ("PNG", None)
        assert image.size == ((20, 30) if orientation >= 5 else (30, 20))
        np.testing.assert_array_equal(np.asarray(image), decode_rgb(data, 1000))
    assert portable(turned) is turned


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "JPEG2000"])
def test_formats_that_opencv_may_not_read_become_pngs(kind: str) -> None:
    data = encoded(kind)
    with Image.open(io.BytesIO(portable(data))) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), decode_rgb(data, 1000))


def test_an_orientation_in_xmp_alone_is_one_that_opencv_does_not_see() -> None:
    data = encoded("JPEG", xmp=XMP)
    assert decode_rgb(data, 1000).shape == (30, 20, 3), "we do"
    with Image.open(io.BytesIO(portable(data))) as image:
        assert (image.format, image.size) == ("PNG", (20, 30))


@pytest.mark.parametrize("data", [b"", b"no image", encoded("PNG")[:40], encoded("GIF")[:20]])
def test_what_is_not_an_image_is_copied(data: bytes) -> None:
    assert portable(data) is data
