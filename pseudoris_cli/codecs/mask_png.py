"""A mask as the PNG file that ETRIS' and Pseudo-RIS' loaders read."""

from __future__ import annotations

import io

from PIL import Image

from pseudoris_cli.records import Rle
from pseudoris_cli.rle import decode_rle


def encode_png(rle: Rle) -> bytes:
    """An 8-bit one-channel PNG, 0 background and 255 object. zlib's RLE strategy (3) is the fastest and smallest for masks."""
    buffer = io.BytesIO()
    Image.fromarray(decode_rle(rle).astype("uint8") * 255).save(buffer, "PNG", compress_type=3, compress_level=1)
    return buffer.getvalue()
