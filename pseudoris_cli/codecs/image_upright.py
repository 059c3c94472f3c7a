"""Pictures as an export hands them on, so that every reader sees them in the frame of their masks.

Masks are upright. OpenCV, with which ETRIS and the Pseudo-RIS release read, turns a JPEG by its EXIF orientation but no
WebP, and reads neither GIF nor every TIFF and JPEG 2000 (seen with OpenCV 4.11). Such a picture is handed on as an upright
PNG of the same name; every other one byte for byte.
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
    """Whether OpenCV reads the picture in the frame that `decode_rgb` reads it in; only the head of the file is read.

    True also for what is no picture at all: there is nothing better to hand on.
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
    """The bytes of a picture file, or those of an upright PNG of it where they are not portable."""
    if is_portable(io.BytesIO(data)):
        return data
    try:
        image_rgb = decode_rgb(data, _MAX_PIXELS)
    except UndecodableImage:
        return data
    buffer = io.BytesIO()
    Image.fromarray(image_rgb).save(buffer, "PNG")
    return buffer.getvalue()
