"""Images for the page, as data URIs: small JPEGs, and masks as one-bit PNGs that the page colours."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pseudoris_cli.execution.prefetch import load_image
from pseudoris_cli.execution.tasks import UnreadImage
from pseudoris_cli.records import ImageRef, Rle
from pseudoris_cli.rle import decode_rle
from pseudoris_cli.sources.base import Source

IMAGE_SIDE = 480
JPEG_QUALITY = 80
MASK_SIDE = 1024
"""Longest side in pixels of an image whose masks are shown exactly; masks of larger images are reduced to it."""


@dataclass(frozen=True, slots=True)
class EmbeddedImage:
    """An image as a JPEG data URI, its width and height in pixels, and a remark; without an image the remark says why."""

    uri: str | None
    width: int
    height: int
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Overlay:
    """A mask cropped to its box: a PNG that is opaque on the mask, and the box in per cent of the image
    (left, top, width, height)."""

    uri: str
    box: tuple[float, float, float, float]


def embed_image(source: Source, ref: ImageRef, max_pixels: int, sha256: str | None) -> EmbeddedImage:
    """The image as the source has it now, its longest side at most IMAGE_SIDE pixels.

    `sha256` is the digest of the file that the masks were made from. `note` says that the file has changed since, or why
    there is no image: it is gone, damaged, or larger than `max_pixels`.
    """
    loaded = load_image(source, ref, max_pixels)
    if isinstance(loaded, UnreadImage):
        return EmbeddedImage(None, 4, 3, loaded.failure.reason)
    image = Image.fromarray(loaded.image_rgb)
    image.thumbnail((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY, optimize=True)
    changed = sha256 is not None and loaded.sha256 != sha256
    note = "the image has changed since its masks were made" if changed else None
    return EmbeddedImage(_data_uri("image/jpeg", file), image.width, image.height, note)


def overlay(rle: Rle) -> Overlay | None:
    """The mask as a PNG; None for an empty mask."""
    mask = decode_rle(rle)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    cut = Image.fromarray(mask[top:bottom, left:right])
    scale = MASK_SIDE / max(rle.height, rle.width)
    if scale < 1:
        size = max(1, round(cut.width * scale)), max(1, round(cut.height * scale))
        cut = cut.convert("L").resize(size, Image.Resampling.BOX).point(lambda value: 255 * (value > 127)).convert("1")
    file = io.BytesIO()
    cut.save(file, "PNG", optimize=True, transparency=0)
    fractions = (left / rle.width, top / rle.height, (right - left) / rle.width, (bottom - top) / rle.height)
    return Overlay(_data_uri("image/png", file), tuple(round(100 * float(side), 3) for side in fractions))  # type: ignore[arg-type]


def _data_uri(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
