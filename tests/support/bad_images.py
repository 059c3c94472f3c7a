"""Files that are no usable images, made in code: each with the reason that must be recorded for it."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from odd_images import RGB, chunk, jpeg, picture, png, save
from PIL import Image

UNKNOWN = "not an image of a known format"
TOO_LARGE = r"is more than max_pixels \(40000000\)"
TRUNCATED = r"truncated|cut short|cannot|broken|incomplete|not enough|decoder|Truncated|unexpected"


@dataclass(frozen=True)
class Bad:
    """A file and a regular expression that the reason must match."""

    name: str
    data: bytes
    reason: str


def bad_images() -> Iterator[Bad]:
    """All of them."""
    for family in (_cut, _foreign, _liars, _bombs, _broken):
        yield from family()


def _cut() -> Iterator[Bad]:
    """Files that end too early: within the header, in the middle, near the end."""
    detail = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    whole = {
        "jpg": jpeg(detail),
        "png": save(detail, "PNG"),
        "webp": save(detail, "WEBP", quality=90),
        "gif": save(detail, "GIF"),
        "bmp": save(detail, "BMP"),
        "tif": save(detail, "TIFF", compression="tiff_lzw"),
        "raw.tif": save(detail, "TIFF"),
        "jp2": save(detail, "JPEG2000", irreversible=False),
        "ppm": save(detail, "PPM"),
    }
    for kind, data in whole.items():
        for share in (0.5, 0.9):
            yield Bad(f"cut_{share}.{kind}", data[: int(len(data) * share)], ".")
        for size in (1, 9, 30):
            yield Bad(f"cut_at_{size}.{kind}", data[:size], ".")


def _foreign() -> Iterator[Bad]:
    """What is no picture, or one that we do not read."""
    yield Bad("empty.jpg", b"", "empty file")
    yield Bad("zeros.jpg", bytes(5000), UNKNOWN)
    yield Bad("text.jpg", b"This is not a picture.\n" * 40, UNKNOWN)
    yield Bad("page.jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", UNKNOWN)
    yield Bad("drawing.png", b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>', UNKNOWN)
    yield Bad("phone.jpg", struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(500), UNKNOWN)
    yield Bad("modern.jpg", save(RGB, "AVIF"), UNKNOWN)
    yield Bad("print.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run showpage\n", UNKNOWN)
    yield Bad("paper.jpg", b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF", UNKNOWN)
    yield Bad("icon.png", save(RGB, "ICO", sizes=[(16, 16)]), UNKNOWN)
    yield Bad("array.png", _npy(), UNKNOWN)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("plain.jpg", jpeg(RGB))
    yield Bad("archive.jpg", packed.getvalue(), UNKNOWN)
    yield Bad("page_number.jpg", b"\xff\xd8\xff", ".")


def _npy() -> bytes:
    out = io.BytesIO()
    np.save(out, RGB)
    return out.getvalue()


def _liars() -> Iterator[Bad]:
    """20,000 x 20,000 in the header, next to nothing behind it: refused before a pixel is decoded."""
    side = 20_000
    yield Bad("huge.png", png(side, side, 8, 2, b"\0"), TOO_LARGE)
    yield Bad("widest.png", png(2**31 - 1, 2**31 - 1, 8, 2, b"\0"), TOO_LARGE)
    frame = jpeg(picture(8, 8))
    place = frame.index(b"\xff\xc0") + 5
    for number in (side, 65_500):
        yield Bad(
            f"huge_{number}.jpg", frame[:place] + struct.pack(">HH", number, number) + frame[place + 4 :], TOO_LARGE
        )
    gif = save(RGB, "GIF")
    yield Bad("huge.gif", gif[:6] + struct.pack("<HH", side, side) + gif[10:], TOO_LARGE)
    block = gif.index(b",") + 5
    yield Bad("huge_frame.gif", gif[:block] + struct.pack("<HH", side, side) + gif[block + 4 :], TOO_LARGE)
    bmp = save(RGB, "BMP")
    yield Bad("huge.bmp", bmp[:18] + struct.pack("<ii", side, side) + bmp[26:], TOO_LARGE)
    yield Bad("huge_upside_down.bmp", bmp[:18] + struct.pack("<ii", side, -side) + bmp[26:], TOO_LARGE)
    yield Bad("huge.tif", _tiff(side, side), TOO_LARGE)
    yield Bad("huge.ppm", b"P6 20000 20000 255\n" + bytes(99), TOO_LARGE)
    yield Bad("huge.jp2", _jp2(side), TOO_LARGE)
    yield Bad("huge.webp", _webp(16_383, _vp8l(16_383)), TOO_LARGE)


def _tiff(width: int, height: int, *more: tuple[int, int, int]) -> bytes:
    """A grey TIFF with one strip of 8 bytes; `more` are further (tag, type, value)."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, height)]
    tags = sorted([*tags, (279, 4, 8), *more])
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 16) + bytes(8) + struct.pack("<H", len(tags)) + entries + bytes(4)


def _jp2(side: int) -> bytes:
    data = save(RGB, "JPEG2000", no_jp2=True)
    return data[:8] + struct.pack(">II", side, side) + data[16:]


def _webp(side: int, frame: bytes = b"") -> bytes:
    """An animation of that canvas with the beginning of one frame, or with none."""
    size = (side - 1).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<II", 10, 2) + size + b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    if frame:
        head = bytes(6) + size + bytes([50, 0, 0, 0])
        body += b"ANMF" + struct.pack("<I", len(head + frame)) + head + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _vp8l(side: int) -> bytes:
    """A lossless WebP frame: its header and zeros."""
    return b"VP8L" + struct.pack("<IBI", 66, 0x2F, side - 1 | side - 1 << 14) + bytes(61)


def _bombs() -> Iterator[Bad]:
    """Small on disk, large in memory."""
    pixels = 60_000_000
    row = b"\0" * 10_001
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(row) for _ in range(6000)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 6000, 8, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    yield Bad("bomb.png", data, TOO_LARGE)
    black = Image.new("1", (10_000, pixels // 10_000))
    yield Bad("bomb.gif", save(black, "GIF"), TOO_LARGE)
    yield Bad("bomb.tif", save(black, "TIFF", compression="group4"), TOO_LARGE)
    inflated = zlib.compress(bytes(100_000_000), 1)
    height, width = RGB.shape[:2]
    lines = b"".join(b"\0" + row.tobytes() for row in RGB)
    for kind in (b"iCCP", b"zTXt"):
        extra = chunk(kind, b"x\0\0" + inflated)
        yield Bad(f"bomb_in_{kind.decode()}.png", png(width, height, 8, 2, lines, extra), "too large")
    tile = [(322, 4, 2**31 - 16), (323, 4, 2**31 - 16), (324, 4, 8), (325, 4, 8)]
    yield Bad("huge_tile.tif", _tiff(64, 64, *tile), ".")


def _broken() -> Iterator[Bad]:
    """Right at first sight, wrong within."""
    good = save(RGB, "PNG")
    spot = good.index(b"IDAT") + 12
    yield Bad("checksum.png", good[:spot] + bytes([good[spot] ^ 255]) + good[spot + 1 :], ".")
    yield Bad("no_pixels.png", good[: good.index(b"IDAT") - 4] + chunk(b"IEND", b""), ".")
    for size in ((0, 9), (9, 0)):
        yield Bad(f"{size[0]}x{size[1]}.png", png(*size, 8, 2, b"\0"), ".")
    yield Bad("zero_wide.gif", b"GIF89a" + bytes(4) + b"\x80\0\0" + bytes(6) + b",", ".")
    frame = jpeg(RGB)
    yield Bad("no_tables.jpg", _without(frame, b"\xff\xdb"), ".")
    yield Bad("no_codes.jpg", frame[: frame.index(b"\xff\xda")] + b"\xff\xd9", ".")
    yield Bad("twelve_bit.jpg", frame.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), ".")
    yield Bad("lossless.jpg", frame.replace(b"\xff\xc0", b"\xff\xc3"), ".")
    yield Bad("far_strip.tif", _tiff(64, 64).replace(struct.pack("<HHII", 273, 4, 1, 8), _strip_at(2**31)), ".")
    yield Bad("tag_bomb.tif", _tiff(64, 64).replace(struct.pack("<HHII", 273, 4, 1, 8), _many_strips()), ".")
    yield Bad("directory_loop.tif", _tiff(0, 0)[:-4] + struct.pack("<I", 16), ".")
    yield Bad("no_frames.webp", _webp(64), ".")
    yield Bad("bad_colours.bmp", save(RGB, "BMP")[:28] + struct.pack("<H", 7) + save(RGB, "BMP")[30:], ".")
    yield Bad("words.ppm", b"P3 5 5 255 red green blue", ".")
    yield Bad("deep.ppm", b"P6 5 5 99999999999 " + bytes(99), ".")


def _without(data: bytes, marker: bytes) -> bytes:
    while (start := data.find(marker)) >= 0:
        data = data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]
    return data


def _strip_at(offset: int) -> bytes:
    return struct.pack("<HHII", 273, 4, 1, offset)


def _many_strips() -> bytes:
    return struct.pack("<HHII", 273, 4, 2**31, 8)
