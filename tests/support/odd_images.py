"""Images that are odd but right, made in code: each with the exact RGB that it must decode to, computed from its source array
and never by decoding it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

WHITE = 255
LOSSY = 14
"""Largest error of a pixel after JPEG or lossy WebP at the quality used here (the picture is smooth)."""


@dataclass(frozen=True)
class Odd:
    """A file and the pixels [H, W, 3] that it must give, each within `tolerance`."""

    name: str
    data: bytes
    pixels: np.ndarray
    tolerance: int = 0


def picture(height: int = 40, width: int = 56) -> np.ndarray:
    """[H, W, 3] uint8: red rises to the right, green downwards, blue marks the upper left corner; no symmetry at all."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[:, :, 0] = np.linspace(20, 235, width).astype(np.uint8)[None, :]
    rgb[:, :, 1] = np.linspace(235, 30, height).astype(np.uint8)[:, None]
    rgb[:, :, 2] = 60
    rgb[: height // 2, : width // 2, 2] = 200
    return rgb


RGB = picture()
SMOOTH = RGB.copy()
SMOOTH[:, :, 2] = 60
GREY = RGB[:, :, 0]
ALPHA = np.where(np.arange(RGB.shape[0])[:, None] < 20, 255, 90) * np.ones((1, RGB.shape[1]), int)
ALPHA = ALPHA.astype(np.uint8)


def three(grey: np.ndarray) -> np.ndarray:
    """[H, W] as [H, W, 3]."""
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours laid on white, rounded to the nearest."""
    share = alpha.astype(float)[:, :, None] / 255
    return np.floor(rgb * share + WHITE * (1 - share) + 0.5).astype(np.uint8)


def save(pixels: np.ndarray | Image.Image, kind: str, **how: Any) -> bytes:
    """A file of this format."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def jpeg(pixels: np.ndarray | Image.Image, **how: Any) -> bytes:
    """A JPEG without chroma subsampling, so that colours stay near."""
    return save(pixels, "JPEG", **{"quality": 97, "subsampling": 0, **how})


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG of raw rows (each begins with its filter byte); `extra` chunks stand before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = b"".join([chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])
    return b"\x89PNG\r\n\x1a\n" + body


def _png_rows(values: np.ndarray) -> bytes:
    """Rows without filter; values wider than a byte big-endian."""
    rows = values.astype(values.dtype.newbyteorder(">")).reshape(values.shape[0], -1)
    return b"".join(b"\0" + row.tobytes() for row in rows)


def exif(orientation: int) -> Image.Exif:
    """EXIF that holds an orientation."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def oriented(upright: np.ndarray, orientation: int) -> np.ndarray:
    """How a camera stores the upright picture under an EXIF orientation (TIFF 6: where row 0 and column 0 are)."""
    return {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a.swapaxes(0, 1)[::-1],
        7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
        8: lambda a: a.swapaxes(0, 1)[:, ::-1],
    }.get(orientation, lambda a: a)(upright)


def odd_images() -> Iterator[Odd]:
    """All of them."""
    for family in (_plain, _inks, _deep, _palettes, _alpha, _turned, _moving, _shapes, _baggage):
        yield from family()


def _plain() -> Iterator[Odd]:
    yield Odd("plain.jpg", jpeg(RGB), RGB, LOSSY)
    yield Odd("progressive.jpg", jpeg(RGB, progressive=True), RGB, LOSSY)
    yield Odd("grey.jpg", jpeg(GREY), three(GREY), LOSSY)
    yield Odd("plain.png", save(RGB, "PNG"), RGB)
    yield Odd("plain.bmp", save(RGB, "BMP"), RGB)
    yield Odd("plain.ppm", save(RGB, "PPM"), RGB)
    yield Odd("lossless.webp", save(RGB, "WEBP", lossless=True), RGB)
    yield Odd("lossy.webp", save(SMOOTH, "WEBP", quality=98), SMOOTH, LOSSY)
    yield Odd("plain.jp2", save(RGB, "JPEG2000"), RGB)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield Odd(f"{compression}.tif", save(RGB, "TIFF", compression=compression), RGB)
    yield Odd("jpeg_inside.tif", save(SMOOTH, "TIFF", compression="jpeg", quality=97), SMOOTH, LOSSY)
    yield Odd("LOUD.JPEG", jpeg(RGB), RGB, LOSSY)
    yield Odd("really_a_png.jpg", save(RGB, "PNG"), RGB)
    yield Odd("really_a_jpeg.png", jpeg(RGB), RGB, LOSSY)
    yield Odd("really_a_webp.gif", save(RGB, "WEBP", lossless=True), RGB)


def _inks() -> Iterator[Odd]:
    """CMYK: RGB = (255 - ink) (255 - key) / 255. A JPEG holds inks inverted; all common readers take that for granted."""
    ink = 255 - RGB
    key = three(np.full(GREY.shape, 30))[:, :, :1]
    cmyk = np.concatenate([ink, key], axis=2)
    expected = np.floor((255 - ink).astype(float) * (255 - key) / 255 + 0.5).astype(np.uint8)
    image = Image.frombytes("CMYK", (RGB.shape[1], RGB.shape[0]), cmyk.tobytes())
    adobe = jpeg(image)
    yield Odd("cmyk_adobe_inverted.jpg", adobe, expected, LOSSY)
    yield Odd("cmyk_without_adobe.jpg", _without_segment(adobe, 0xEE), expected, LOSSY)
    yield Odd("ycck.jpg", _ycck(cmyk), expected, LOSSY)
    yield Odd("cmyk.tif", save(image, "TIFF"), expected, 1)


def _without_segment(data: bytes, marker: int) -> bytes:
    start = data.index(bytes([0xFF, marker]))
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


def _ycck(cmyk: np.ndarray) -> bytes:
    """Adobe's YCCK: YCbCr of (255-C', 255-M', 255-Y'), where C' are the inverted inks, beside the inverted key."""
    r, g, b = (cmyk[:, :, n].astype(float) for n in range(3))
    y = 0.299 * r + 0.587 * g + 0.114 * b
    cb, cr = 128 + (b - y) / 1.772, 128 + (r - y) / 1.402
    raw = np.stack([y, cb, cr, 255.0 - cmyk[:, :, 3]], axis=2)
    raw = np.clip(raw + 0.5, 0, 255).astype(np.uint8)
    data = jpeg(Image.frombytes("CMYK", (cmyk.shape[1], cmyk.shape[0]), (255 - raw).tobytes()))
    place = data.index(b"Adobe") + 11
    assert data[place] == 0
    return data[:place] + b"\2" + data[place + 1 :]


def _deep() -> Iterator[Odd]:
    """More and fewer than 8 bits."""
    height, width = GREY.shape
    wide = GREY.astype(np.uint16) * 257
    yield Odd("grey16.png", save(wide, "PNG"), three(GREY))
    yield Odd("grey16.tif", save(wide, "TIFF"), three(GREY))
    big = Image.frombytes("I;16B", (width, height), wide.astype(">u2").tobytes())
    yield Odd("grey16_big_endian.tif", save(big, "TIFF"), three(GREY))
    yield Odd("rgb16.png", png(width, height, 16, 2, _png_rows(RGB.astype(np.uint16) * 257)), RGB)
    deep = np.concatenate([RGB, ALPHA[:, :, None]], axis=2).astype(np.uint16) * 257
    yield Odd("rgba16.png", png(width, height, 16, 6, _png_rows(deep)), on_white(RGB, ALPHA), 1)
    pair = np.stack([GREY, ALPHA], axis=2).astype(np.uint16) * 257
    yield Odd("la16.png", png(width, height, 16, 4, _png_rows(pair)), on_white(three(GREY), ALPHA), 1)
    bits = RGB[:, :, 0] > 120
    yield Odd("one_bit.png", save(Image.fromarray(bits), "PNG"), three(bits * 255))
    yield Odd("one_bit.tif", save(Image.fromarray(bits), "TIFF", compression="group4"), three(bits * 255))
    yield Odd("one_bit.bmp", save(Image.fromarray(bits), "BMP"), three(bits * 255))
    quarter = GREY // 64
    packed = np.packbits(np.unpackbits(quarter[:, :, None], axis=2)[:, :, 6:].reshape(height, -1), axis=1)
    yield Odd("two_bit.png", png(width, height, 2, 0, _png_rows(packed)), three(quarter * 85))
    unit = GREY.astype(np.float32) / 255
    yield Odd("float_0_to_1.tif", save(unit, "TIFF"), three(GREY))
    yield Odd("float_0_to_255.tif", save(GREY.astype(np.float32), "TIFF"), three(GREY))
    holed = unit.copy()
    holed[5, 5:9] = np.nan
    filled = GREY.copy()
    filled[5, 5:9] = 0
    yield Odd("float_with_nan.tif", save(holed, "TIFF"), three(filled))
    yield Odd("int32.tif", save(wide.astype(np.int32), "TIFF"), three(GREY))
    yield Odd("grey16.pgm", b"P5 %d %d 65535\n" % (width, height) + wide.astype(">u2").tobytes(), three(GREY))


def _palettes() -> Iterator[Odd]:
    index = (np.indices(GREY.shape).sum(axis=0) // 8 % 4).astype(np.uint8)
    colours = np.array([[250, 10, 20], [20, 240, 30], [30, 40, 230], [90, 91, 92]], np.uint8)
    image = Image.fromarray(index).convert("P")
    image.putpalette(colours.tobytes())
    yield Odd("palette.png", save(image, "PNG"), colours[index])
    yield Odd("palette.bmp", save(image, "BMP"), colours[index])
    yield Odd("palette.tif", save(image, "TIFF"), colours[index])
    yield Odd("palette.gif", save(image, "GIF"), colours[index])
    holed = np.where(index[:, :, None] == 2, WHITE, colours[index]).astype(np.uint8)
    yield Odd("palette_one_transparent.png", save(image, "PNG", transparency=2), holed)
    yield Odd("palette_transparent.gif", save(image, "GIF", transparency=2), holed)
    alphas = np.array([255, 128, 0, 60], np.uint8)
    soft = on_white(colours[index], alphas[index])
    yield Odd("palette_alpha.png", save(image, "PNG", transparency=alphas.tobytes()), soft, 1)


def _alpha() -> Iterator[Odd]:
    soft = on_white(RGB, ALPHA)
    rgba = np.concatenate([RGB, ALPHA[:, :, None]], axis=2)
    yield Odd("rgba.png", save(rgba, "PNG"), soft, 1)
    yield Odd("rgba.tif", save(rgba, "TIFF"), soft, 1)
    yield Odd("rgba.webp", save(rgba, "WEBP", lossless=True), soft, 1)
    yield Odd("rgba.jp2", save(rgba, "JPEG2000"), soft, 1)
    grey_alpha = Image.fromarray(np.stack([GREY, ALPHA], axis=2), "LA")
    yield Odd("grey_alpha.png", save(grey_alpha, "PNG"), on_white(three(GREY), ALPHA), 1)
    height, width = GREY.shape
    spared = (int(RGB[3, 4, 0]), int(RGB[3, 4, 1]), int(RGB[3, 4, 2]))
    holed = np.where((spared == RGB).all(axis=2, keepdims=True), WHITE, RGB).astype(np.uint8)
    yield Odd("rgb_one_transparent.png", save(RGB, "PNG", transparency=spared), holed)
    tone = int(GREY[0, 9])
    grey_holed = np.where(tone == GREY, WHITE, GREY)
    trns = chunk(b"tRNS", struct.pack(">H", tone))
    yield Odd("grey_one_transparent.png", png(width, height, 8, 0, _png_rows(GREY), trns), three(grey_holed))
    trns16 = chunk(b"tRNS", struct.pack(">H", tone * 257))
    wide = _png_rows(GREY.astype(np.uint16) * 257)
    yield Odd("grey16_one_transparent.png", png(width, height, 16, 0, wide, trns16), three(grey_holed))


def _turned() -> Iterator[Odd]:
    for orientation in range(1, 9):
        stored = np.ascontiguousarray(oriented(RGB, orientation))
        yield Odd(f"turned_{orientation}.jpg", jpeg(stored, exif=exif(orientation)), RGB, LOSSY)
    stored = np.ascontiguousarray(oriented(RGB, 6))
    yield Odd("turned_6.png", save(stored, "PNG", exif=exif(6)), RGB)
    yield Odd("turned_6.webp", save(stored, "WEBP", lossless=True, exif=exif(6)), RGB)
    yield Odd("turned_6.tif", save(stored, "TIFF", tiffinfo={0x0112: 6}), RGB)
    for orientation in (0, 9, 65535):
        yield Odd(f"orientation_{orientation}.jpg", jpeg(RGB, exif=exif(orientation)), RGB, LOSSY)
    whole = exif(6).tobytes()
    yield Odd("exif_cut.jpg", jpeg(RGB, exif=whole[:13]), RGB, LOSSY)
    yield Odd("exif_noise.jpg", jpeg(RGB, exif=b"Exif\0\0" + bytes(range(200))), RGB, LOSSY)
    loop = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"
    yield Odd("exif_loop.jpg", jpeg(RGB, exif=loop), RGB, LOSSY)


def _moving() -> Iterator[Odd]:
    """Of an animation, the first frame."""
    frames = [Image.fromarray(255 - RGB), Image.fromarray(RGB // 2)]
    how = {"save_all": True, "append_images": frames, "duration": 50}
    yield Odd("moving.webp", save(RGB, "WEBP", lossless=True, **how), RGB)
    yield Odd("moving.png", save(RGB, "PNG", **how), RGB)
    yield Odd("pages.tif", save(RGB, "TIFF", save_all=True, append_images=frames), RGB)
    few = (RGB // 128 * 127).astype(np.uint8)
    fewer = [Image.fromarray(255 - few), Image.fromarray(few // 2)]
    yield Odd("moving.gif", save(few, "GIF", save_all=True, append_images=fewer, duration=50), few)
    yield Odd(
        "camera_pair.jpg", save(SMOOTH, "MPO", save_all=True, append_images=frames[:1], quality=97), SMOOTH, LOSSY
    )


def _shapes() -> Iterator[Odd]:
    for height, width in ((1, 1), (1, 3000), (3000, 1), (2, 700)):
        values = np.resize(picture(), (height, width, 3))
        yield Odd(f"{width}x{height}.png", save(values, "PNG"), values)


def _baggage() -> Iterator[Odd]:
    """What rides along does not matter."""
    yield Odd("icc_noise.jpg", jpeg(RGB, icc_profile=b"no profile at all" * 9), RGB, LOSSY)
    yield Odd("icc_huge.jpg", jpeg(RGB, icc_profile=bytes(3_000_000)), RGB, LOSSY)
    yield Odd("icc_noise.png", save(RGB, "PNG", icc_profile=b"no profile"), RGB)
    yield Odd("comment.jpg", jpeg(RGB, comment=b"\x1b[2J" + bytes(60_000)), RGB, LOSSY)
    yield Odd("rubbish_behind.jpg", jpeg(RGB) + b"\0rubbish" * 99, RGB, LOSSY)
    yield Odd("rubbish_behind.png", save(RGB, "PNG") + b"PK\3\4" * 99, RGB)
