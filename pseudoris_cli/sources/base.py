"""What a source must offer, and what all sources share: ids and path safety."""

from __future__ import annotations

import errno
import hashlib
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

from pseudoris_cli.codecs.foreign_names import Finder, is_elsewhere, is_text
from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import ImageRef, Stamp

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2"})
SPLITS = ("train", "val", "test", "testA", "testB", "testC")
"""Names under which ETRIS keeps its splits."""
MAX_BYTES = 1 << 29
"""40 million pixels of four 16-bit channels have 320 MB uncompressed."""
_COCO_STEM = re.compile(r"(?:COCO_.*_)?(\d{12})")


@dataclass(slots=True)
class LeftOut:
    """What a source passed over while it listed its images: how many by kind, and an example of each."""

    kinds: dict[str, dict[str, Any]] = field(default_factory=dict)
    complete: bool = False
    """Whether the listing came to its end."""

    def add(self, kind: str, path: bytes) -> None:
        """Count a file or folder."""
        known = self.kinds.setdefault(kind, {"count": 0, "example": path.decode("utf-8", "backslashreplace")})
        known["count"] += 1


@runtime_checkable
class Source(Protocol):
    """An ordered collection of images. Listing never reads pixels.

    A kind of source is one file in this folder, named like the kind (or a module of an installed package). It defines

    * `open_source(root, options, image_root)`, which returns a Source; `options` are the user's choices within it,
    * `detects(path)`, whether a path given as `--images` looks like one of this kind; OSError where it cannot be read,
    * `DETECT_ORDER`: kinds with a lower number are asked first (50 where there is none).

    A Source may have a method `expect(key)`: it is told of each image, in order, some images before that is read.
    """

    options: dict[str, str] = {}  # noqa: RUF012  # never changed in place
    """What was chosen within the source, by the user or by default."""

    def images(self) -> Iterator[ImageRef]:
        """Every image, always in the same order. UsageError when the source cannot be read."""
        ...

    def stamp(self, key: str) -> Stamp | None:
        """Size and mtime now; None if the image is gone."""
        ...

    def read(self, key: str) -> bytes:
        """The encoded image. FileNotFoundError if it is gone, another OSError if it cannot be read."""
        ...


def read_head(path: Path, size: int = 4096) -> bytes:
    """The first bytes of a file. Raises OSError."""
    with path.open("rb") as file:
        return file.read(size)


def image_id_of(key: str) -> int:
    """The image id of a key whose source has none: COCO's from `COCO_*_<12 digits>` or `<12 digits>`, else a 52-bit hash.

    52 bits, so that the id survives readers that hold numbers as doubles.
    """
    name = key.rpartition("/")[2]
    match = _COCO_STEM.fullmatch(name.rpartition(".")[0] or name)
    if match:
        return int(match[1])
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 12


def safe_key(name: str, where: str) -> str:
    """A name from foreign metadata as a key. UsageError if it is absolute or leaves its root."""
    if not name or is_elsewhere(name) or not is_text(name):
        raise refusal(name, where)
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def refusal(name: str, where: str) -> UsageError:
    """The error about a name that is no path below a root, and below which no file is of that name either."""
    return UsageError(
        f"{where}: the image name {name[:200]!r} is empty, absolute, leaves its folder or is no text; refusing to follow it"
    )


class FileReader:
    """The half of a source that reads files below some folders; a class derived from it adds `images`."""

    options: dict[str, str] = {}  # noqa: RUF012  # never changed in place
    left_out: LeftOut | None = None

    def __init__(self, root: Path, *more_roots: Path) -> None:
        """Files are looked for below `root`, then below each of `more_roots`."""
        self.root = root
        self.finder = Finder((root, *more_roots))

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.finder.find(key)

    def stamp(self, key: str) -> Stamp | None:
        """Size and mtime of the file; None if it is gone or no regular file."""
        try:
            status = self.path(key).stat()
        except OSError:
            return None
        return Stamp(status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None

    def read(self, key: str) -> bytes:
        """The file's bytes. OSError for what is no regular file (a pipe would never end) or too large to be an image."""
        path = self.path(key)
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if status.st_size > MAX_BYTES:
            raise OSError(errno.EFBIG, f"{status.st_size:,} bytes are more than an image has")
        return path.read_bytes()
