"""A folder of images, read recursively."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from pseudoris_cli.codecs import image_kinds
from pseudoris_cli.codecs.foreign_names import is_text
from pseudoris_cli.errors import UsageError
from pseudoris_cli.places.addresses import is_url
from pseudoris_cli.places.base import open_place
from pseudoris_cli.places.remote import RemotePlace
from pseudoris_cli.records import ImageRef, Stamp
from pseudoris_cli.sources.base import IMAGE_SUFFIXES, MAX_BYTES, FileReader, LeftOut, Source, image_id_of

_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
SYSTEM_FOLDERS = frozenset(
    {
        *(
            b"@eadir",
            b"#recycle",
            b"@recycle",
            b"#snapshot",
            b"@recently-snapshot",
            b"~snapshot",
        ),  # Synology, QNAP, NetApp
        *(b"__macosx", b"lost+found", b"$recycle.bin", b"system volume information", b"recycler"),
    }
)
"""Folders, in lower case, in which a file server or a system keeps thumbnails, old states and what was deleted."""
_SYSTEM = "in folders of the system (thumbnails, recycle bins, snapshots)"
_HIDDEN = "hidden (the name begins with a dot)"
_EVICTED = "not downloaded (placeholders of a cloud folder)"
_UNREADABLE = "in folders that may not be listed"
_LINKED = "in folders behind a link"

DETECT_ORDER = 90
MOST_EXPECTED = 256
"""Images of a server that are held for who has said that they will be read; a run expects `decode_ahead` of them."""


class Folder(FileReader):
    """Every image below a folder, in the order of its path: files with an image's suffix, and files that begin as one.

    Links to files are followed, links to folders are not (they may loop). What else could hold images is left out and counted
    by kind in `left_out`. In keys, bytes that are not UTF-8 are written as \\xNN, and so is a backslash before an x, so that
    every file has a key of its own.
    """

    def images(self) -> Iterator[ImageRef]:
        if not self.root.is_dir():
            raise UsageError(f"the image folder {self.root} does not exist (moved? point to it with --image-root)")
        root = os.path.join(os.fsencode(self.root), b"")
        self.left_out = LeftOut()
        for path in _walk(root, self.left_out):
            name = path[len(root) :]
            key = name.replace(b"\\x", b"\\x5cx").decode("utf-8", "backslashreplace")
            yield ImageRef(key, image_id_of(key), key)
        self.left_out.complete = True

    def path(self, key: str) -> Path:
        if "\\x" not in key:
            return self.root / key
        raw = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), key.encode())
        return self.root / os.fsdecode(raw)


class RemoteFolder(Source):
    """Every image below a URL, by its suffix, in the order of its path. One request for each image, those expected side by side."""

    def __init__(self, url: str) -> None:
        self.place = RemotePlace(url)
        self.url = url
        self._expected: OrderedDict[str, Future[bytes]] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple[type[RemoteFolder], tuple[str]]:
        return type(self), (self.url,)

    def images(self) -> Iterator[ImageRef]:
        for key in self.place.names(IMAGE_SUFFIXES):
            if is_text(key):
                yield ImageRef(key, image_id_of(key), key)

    def stamp(self, key: str) -> Stamp | None:
        """Size and a digest of the ETag, as they were when the folder was listed."""
        return self.place.stamp(key)

    def expect(self, key: str) -> None:
        """Begin to fetch an image that will be read soon. Of more than MOST_EXPECTED that nobody read the oldest is forgotten."""
        if (
            self.place.stamp(key) is None
        ):  # lists the place, if nobody has: not a thing for the threads that it lists with
            return
        with self._lock:
            if key not in self._expected:
                self._expected[key] = self.place.begin(partial(self._fetch, key))
            while len(self._expected) > MOST_EXPECTED:
                self._expected.popitem(last=False)[1].cancel()

    def read(self, key: str) -> bytes:
        """The object's bytes. EnvironmentStop where the server does not answer."""
        with self._lock:
            begun = self._expected.pop(key, None)
        return self._fetch(key) if begun is None else begun.result()

    def _fetch(self, key: str) -> bytes:
        if (stamp := self.place.stamp(key)) and stamp.size > MAX_BYTES:
            raise OSError(errno.EFBIG, f"{stamp.size:,} bytes are more than an image has")
        return self.place.read(key)


def _walk(folder: bytes, left_out: LeftOut) -> Iterator[bytes]:
    """Paths of the images below a folder, depth first in order of name; no recursion, for folders may be nested deeply."""
    try:
        pending = [_entries(folder, left_out)]
    except OSError as error:
        raise UsageError(f"cannot list {os.fsdecode(folder)}: {error.strerror}") from error
    while pending:
        entry = next(pending[-1], None)
        if entry is None:
            pending.pop()
        elif entry.is_dir(follow_symlinks=False):
            if entry.name.lower() in SYSTEM_FOLDERS:
                left_out.add(_SYSTEM, entry.path)
                continue
            try:
                pending.append(_entries(entry.path, left_out))
            except PermissionError:
                left_out.add(_UNREADABLE, entry.path)
            except FileNotFoundError:
                pass  # deleted since its parent was listed
        elif _is_image(entry, left_out):
            yield entry.path


def _entries(folder: bytes, left_out: LeftOut) -> Iterator[os.DirEntry[bytes]]:
    """The entries of a folder in order of name. PermissionError and FileNotFoundError as they are, else UsageError."""
    entries = []
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if not entry.name.startswith(b"."):
                    entries.append(entry)
                elif _suffix(entry.name) in IMAGE_SUFFIXES and not entry.name.startswith(b"._"):
                    left_out.add(_HIDDEN, entry.path)
                elif entry.name.endswith(b".icloud"):
                    left_out.add(_EVICTED, entry.path)
    except (PermissionError, FileNotFoundError):
        raise
    except OSError as error:
        raise UsageError(f"cannot list {os.fsdecode(folder)}: {error.strerror}") from error
    return iter(sorted(entries, key=lambda entry: entry.name))


def _is_image(entry: os.DirEntry[bytes], left_out: LeftOut) -> bool:
    """Whether a file is taken; what holds images and is not taken is counted."""
    suffix = _suffix(entry.name)
    if _is_folder(entry):
        left_out.add(_LINKED, entry.path)
        return False
    if suffix in IMAGE_SUFFIXES:
        return True
    kind = image_kinds.kind_of_suffix(suffix)
    if kind is None and image_kinds.may_be_image(suffix):
        kind = image_kinds.kind_of_bytes(_head(entry))
        if kind in image_kinds.DECODED:
            return True
    if kind in image_kinds.WITH_IMAGES:
        left_out.add(f"of a kind that is not read: {kind}", entry.path)
    return False


def _head(entry: os.DirEntry[bytes]) -> bytes:
    """The first bytes of a regular file; none of what is no file or cannot be read (opening a pipe would never end)."""
    try:
        if not stat.S_ISREG(entry.stat().st_mode):
            return b""
        with open(entry.path, "rb") as file:
            return file.read(image_kinds.HEAD_BYTES)
    except OSError:
        return b""


def _suffix(name: bytes) -> str:
    return os.fsdecode(os.path.splitext(name)[1]).lower()


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that loops: listed, and recorded as gone when it is read
        return False


def detects(path: Path) -> bool:
    """Any folder."""
    return path.is_dir()


def detects_address(address: str) -> bool:
    """A URL below which images are."""
    return is_url(address) and bool(open_place(address).names(IMAGE_SUFFIXES))


def open_source(root: Path | str, options: dict[str, Any], image_root: Path | str | None) -> Folder | RemoteFolder:
    """Open a folder; `image_root` relocates it."""
    place = image_root or root
    return RemoteFolder(place) if isinstance(place, str) else Folder(place)
