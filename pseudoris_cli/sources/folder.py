"""A folder of images, read recursively."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import ImageRef
from pseudoris_cli.sources.base import IMAGE_SUFFIXES, FileReader, image_id_of

_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")

DETECT_ORDER = 90


class Folder(FileReader):
    """Every file with an image's suffix below a folder, in the order of its path; hidden files and folders are left out.

    Links to files are followed, links to folders are not (they may loop). In keys, bytes that are not UTF-8 are written as
    \\xNN, and so is a backslash before an x, so that every file has a key of its own.
    """

    def images(self) -> Iterator[ImageRef]:
        if not self.root.is_dir():
            raise UsageError(f"the image folder {self.root} does not exist (moved? point to it with --image-root)")
        root = os.path.join(os.fsencode(self.root), b"")
        for path in _walk(root):
            name = path[len(root) :]
            key = name.replace(b"\\x", b"\\x5cx").decode("utf-8", "backslashreplace")
            yield ImageRef(key, image_id_of(key), key)

    def path(self, key: str) -> Path:
        if "\\x" not in key:
            return self.root / key
        raw = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), key.encode())
        return self.root / os.fsdecode(raw)


def _walk(folder: bytes) -> Iterator[bytes]:
    """Paths of the images below a folder, depth first in order of name; no recursion, for folders may be nested deeply."""
    pending = [_entries(folder)]
    while pending:
        entry = next(pending[-1], None)
        if entry is None:
            pending.pop()
        elif entry.is_dir(follow_symlinks=False):
            pending.append(_entries(entry.path))
        elif os.fsdecode(os.path.splitext(entry.name)[1]).lower() in IMAGE_SUFFIXES and not _is_folder(entry):
            yield entry.path


def _entries(folder: bytes) -> Iterator[os.DirEntry[bytes]]:
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(b".")]
    except OSError as error:
        raise UsageError(f"cannot list {os.fsdecode(folder)}: {error.strerror}") from error
    return iter(sorted(entries, key=lambda entry: entry.name))


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that loops: listed, and recorded as gone when it is read
        return False


def detects(path: Path) -> bool:
    """Any folder."""
    return path.is_dir()


def open_source(root: Path, options: dict[str, Any], image_root: Path | None) -> Folder:
    """Open a folder; `image_root` relocates it."""
    return Folder(image_root or root)
