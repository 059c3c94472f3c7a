"""A text file with one image path per line, relative to the file (or to --image-root); blank lines and # comments are skipped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pseudoris_cli.codecs.foreign_names import is_text
from pseudoris_cli.codecs.foreign_text import encoding_of, head_of, lines
from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import ImageRef
from pseudoris_cli.sources.base import IMAGE_SUFFIXES, FileReader, image_id_of, read_head

DETECT_ORDER = 80
_SUFFIX = "|".join(sorted(re.escape(suffix) for suffix in IMAGE_SUFFIXES))
_QUOTED = re.compile(rf"""(["'])(.+?(?:{_SUFFIX}))\1(?=$|[\s,;])""", re.IGNORECASE)
_ENDS_AS_IMAGE = re.compile(rf"(?:{_SUFFIX})$", re.IGNORECASE)
_LABELLED = re.compile(rf"(.+?(?:{_SUFFIX}))(?:[\s,;].*)$", re.IGNORECASE)


class Listing(FileReader):
    """Images in the order of the list. Absolute paths are allowed: the list is the user's own."""

    def __init__(self, list_file: Path, root: Path) -> None:
        super().__init__(root)
        self.list_file = list_file

    def images(self) -> Iterator[ImageRef]:
        for number, line in enumerate(lines(self.list_file, "an image list"), 1):
            name = named_in(line)
            if name and not is_text(name):
                raise UsageError(f"{self.list_file}, line {number}: {name[:200]!r} is no file name")
            if name.startswith("{"):
                raise UsageError(
                    f"{self.list_file}, line {number}: {name[:60]!r} is JSON, not a path; write one image path per line"
                )
            if name:
                key = PurePosixPath(name).as_posix()
                yield ImageRef(key, image_id_of(key), key)


def named_in(line: str) -> str:
    """The path that a line names, empty for a comment: without quotes around it, and without what follows an image's suffix.

    That is a label or a comment, as in `n01440764/1.JPEG 0`; a name that ends in a suffix is taken as it stands.
    """
    name = line.strip()
    if not name or name.startswith("#"):
        return ""
    if quoted := _QUOTED.match(name):
        return quoted[2]
    if not _ENDS_AS_IMAGE.search(name) and (labelled := _LABELLED.match(name)):
        return labelled[1]
    return name


def detects(path: Path) -> bool:
    """Any file that could be text and is not named like an image."""
    if not path.is_file() or path.suffix.lower() in IMAGE_SUFFIXES:
        return False
    head = read_head(path)
    return encoding_of(head) is not None and "\0" not in head_of(head)


def open_source(root: Path, options: dict[str, Any], image_root: Path | None) -> Listing:
    """Open a list file; its names are relative to `image_root`, by default the folder of the list."""
    return Listing(root, image_root or root.parent)
