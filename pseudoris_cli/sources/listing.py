"""A text file with one image path per line, relative to the file (or to --image-root); blank lines and # comments are skipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import ImageRef
from pseudoris_cli.sources.base import IMAGE_SUFFIXES, FileReader, image_id_of, is_text, read_head

DETECT_ORDER = 80


class Listing(FileReader):
    """Images in the order of the list. Absolute paths are allowed: the list is the user's own."""

    def __init__(self, list_file: Path, root: Path) -> None:
        super().__init__(root)
        self.list_file = list_file

    def images(self) -> Iterator[ImageRef]:
        try:
            with self.list_file.open(encoding="utf-8-sig") as lines:
                for number, line in enumerate(lines, 1):
                    name = line.strip()
                    if name and not name.startswith("#"):
                        if not is_text(name):
                            raise UsageError(f"{self.list_file}, line {number}: {name[:200]!r} is no file name")
                        key = PurePosixPath(name).as_posix()
                        yield ImageRef(key, image_id_of(key), key)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the image list {self.list_file}: {error}") from error


def detects(path: Path) -> bool:
    """Any file that could be text and is not named like an image."""
    return path.is_file() and path.suffix.lower() not in IMAGE_SUFFIXES and b"\0" not in read_head(path)


def open_source(root: Path, options: dict[str, Any], image_root: Path | None) -> Listing:
    """Open a list file; its names are relative to `image_root`, by default the folder of the list."""
    return Listing(root, image_root or root.parent)
