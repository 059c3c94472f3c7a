"""Decoding of image files to upright RGB, the same way for every source, stage and backend."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pseudoris_cli.codecs.image_kinds import DECODED, HEAD_BYTES, kind_of_bytes

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are decoded, whatever the file name; Pillow has others that run external programs."""

Image.MAX_IMAGE_PIXELS = None  # `max_pixels` is checked before any pixel is decoded
warnings.filterwarnings("ignore", module="PIL")  # corrupt EXIF and the like do not matter here


class UndecodableImage(Exception):
    """The bytes are not a usable image; the message is the reason recorded in the manifest."""


def decode_rgb(data: bytes, max_pixels: int) -> np.ndarray:
    """Decode to [H, W, 3] uint8 RGB, turned upright by the EXIF orientation.

    Grey and palette images become RGB; transparent pixels are composited on white; CMYK is converted by Pillow, which inverts
    the inks of every JPEG, as all common readers do; 16-bit and float greys are scaled to 8 bits; of an animation the first
    frame is taken. Raises UndecodableImage with a reason for anything else, and, before decoding, for images of more than
    `max_pixels` pixels.
    """
    if not data:
        raise UndecodableImage("empty file")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise UndecodableImage(f"{width}x{height} is more than max_pixels ({max_pixels})")
            image.load()
            upright: Image.Image = image
            with suppress(Exception):  # unreadable EXIF: the image stays as it is
                upright = ImageOps.exif_transpose(image)
            return np.ascontiguousarray(_to_rgb(upright))
    except UndecodableImage:
        raise
    except UnidentifiedImageError as error:
        raise UndecodableImage(_what_instead(data)) from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds for hostile bytes
        raise UndecodableImage(f"cannot be decoded ({error or type(error).__name__})"[:200]) from error


def _what_instead(data: bytes) -> str:
    kind = kind_of_bytes(data[:HEAD_BYTES])
    if kind is None or kind in DECODED:
        return "not an image of a known format"
    return f"not an image of a known format: {kind}, which is not read; convert it to JPEG or PNG"


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image)
        grey = _to_8_bit(values)
        grey[values == image.info.get("transparency")] = 255
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _to_8_bit(values: np.ndarray, rows: int = 256) -> np.ndarray:
    """Grey of more than 8 bits: integers span 16 bits; floats span 0..1, 0..255 or 16 bits, whichever they fit (NaN is black).

    Works on `rows` rows at a time, as the float64 arithmetic needs many times the memory of the image.
    """
    scale = 1 / 257
    if not np.issubdtype(values.dtype, np.integer):
        top = max(np.max(part, initial=0, where=np.isfinite(part)) for part in _stripes(values, rows))
        scale = 255.0 if top <= 1 else 1.0 if top <= 255 else scale
    grey = np.empty(values.shape, np.uint8)
    for part, target in zip(_stripes(values, rows), _stripes(grey, rows), strict=True):
        target[:] = np.clip(np.nan_to_num(part.astype(np.float64)) * scale + 0.5, 0, 255)
    return grey


def _stripes(values: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    return (values[start : start + rows] for start in range(0, len(values), rows))
