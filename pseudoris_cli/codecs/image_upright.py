"""Images as an export copies them, so that every reader sees them in the frame of their masks.

Masks are upright, and many readers (Pillow among them) turn nothing, so an image with an orientation is copied as an upright PNG
of the same name (`upright`). What OpenCV alone needs is `portable`: OpenCV, with which ETRIS and the Pseudo-RIS release read
images, applies the EXIF orientation of a JPEG but not of a WebP, and reads neither GIF nor every TIFF and JPEG 2000 (OpenCV
4.11). All others are copied byte for byte.
"""

from __future__ import annotations

import io
from typing import BinaryIO

from PIL import Image

from pseudoris_cli.codecs.image_decode import FORMATS, UndecodableImage, decode_rgb

_ORIENTATION = 0x0112
_TURNED = range(2, 9)
_MAX_PIXELS = 1 << 28


def is_portable(file: BinaryIO) -> bool:
    """Whether OpenCV reads the image in the same orientation as `decode_rgb`; only the header of the file is read.

    True also for a file that is not an image, as nothing better can be copied.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            turned = image.getexif().get(_ORIENTATION)  # also from XMP, as decode_rgb takes it
            if image.format in ("JPEG", "MPO"):
                by_exif = Image.Exif()
                by_exif.load(image.info.get("exif", b""))
                return turned == by_exif.get(_ORIENTATION) or turned not in _TURNED
            return image.format in ("PNG", "BMP", "PPM", "WEBP") and turned not in _TURNED
    except Exception:  # Pillow's parsers raise many kinds for hostile bytes
        return True


def portable(data: bytes) -> bytes:
    """The bytes of an image file, or of an upright PNG of it where `is_portable` is false."""
    return data if is_portable(io.BytesIO(data)) else _as_png(data)


def is_upright(file: BinaryIO) -> bool:
    """Whether every reader sees the image as `decode_rgb` does: `is_portable`, and without an orientation that is to be applied."""
    if not is_portable(file):
        return False
    file.seek(0)
    try:
        with Image.open(file, formats=FORMATS) as image:
            return image.getexif().get(_ORIENTATION) not in _TURNED
    except Exception:  # as in is_portable
        return True


def upright(data: bytes) -> bytes:
    """The bytes of an image file, or of an upright PNG of it where `is_upright` is false; no reader can turn that wrongly."""
    return data if is_upright(io.BytesIO(data)) else _as_png(data)


def _as_png(data: bytes) -> bytes:
    try:
        image_rgb = decode_rgb(data, _MAX_PIXELS)
    except UndecodableImage:
        return data
    buffer = io.BytesIO()
    Image.fromarray(image_rgb).save(buffer, "PNG")
    return buffer.getvalue()
