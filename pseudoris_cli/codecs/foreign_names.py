"""Where a file is that somebody else's list names: by another Unicode form, case, folder, machine or tool than it has here.

A name is looked for below the image roots and nowhere else, whatever it says. The plain path comes first and costs one look;
all others are tried only where there is no such file. The last resort is an index of everything below the first root, which
also finds names that differ in case, and files that were sorted into folders. A path is taken only if one of the two, the name
or the path below the root, is the end of the other: `val/1.jpg` never becomes `train/1.jpg`.
"""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import RLock
from urllib.parse import unquote

MOST_INDEXED = 2_000_000
"""Files below the roots beyond which no index is made: half a gigabyte of memory in every worker."""
_URL = re.compile(r"[a-z][a-z0-9+.-]+://[^/]*/?", re.IGNORECASE)
_DRIVE = re.compile(r"^(//\?/)?[A-Za-z]:")
_LOCAL_FILES = re.compile(r"^.*\?d=")  # Label Studio: /data/local-files/?d=folder/a.jpg
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")  # Label Studio puts eight digits before the name of an upload
_COCO_2014 = re.compile(r"^COCO_(?:train|val|test)20\d\d_(?=\d{12}\.)")  # LVIS 0.5 names COCO 2017's files so
_LOCK = RLock()

log = logging.getLogger("pseudoris")


def plain_name(name: str) -> str:
    """A name from elsewhere as a relative POSIX path: without scheme, host, drive, root, and all up to the last `..`.

    Nothing is looked up; `photos/a.jpg` stays as it is. Empty where nothing is left.
    """
    text = name.replace("\\", "/")
    if _LOCAL_FILES.match(text):
        text = unquote(_LOCAL_FILES.sub("", text))
    elif _URL.match(text):
        text = unquote(re.split(r"[?#]", _URL.sub("", text), maxsplit=1)[0])
    parts = [part for part in _DRIVE.sub("", text).split("/") if part not in ("", ".")]
    if ".." in parts:
        parts = parts[len(parts) - parts[::-1].index("..") :]
    return "/".join(parts)


def is_elsewhere(name: str) -> bool:
    """Whether a name is absolute, an address, or leaves its folder, so that it cannot be taken as a path below a root."""
    path = name.replace("\\", "/")
    return bool(path.startswith("/") or _URL.match(path) or _DRIVE.match(path) or ".." in path.split("/"))


def comparable(name: str) -> str:
    """A plain name in the form in which names are compared: composed Unicode, no difference of case, no % escapes."""
    return unicodedata.normalize("NFC", unquote(plain_name(name))).casefold()


def is_end_of(one: str, other: str) -> bool:
    """Whether one of two comparable names is the end of the other, folder by folder."""
    return one == other or one.endswith("/" + other) or other.endswith("/" + one)


class Finder:
    """The files below some roots, found by the names that a list gives them; only the first root is searched."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(roots)
        self._index: dict[str, list[str]] | None = None

    def __reduce__(self) -> tuple[type[Finder], tuple[tuple[Path, ...]]]:
        return type(self), (self.roots,)

    def find(self, name: str) -> Path:
        """The file of a name; where there is none, the path at which it was expected."""
        return self.look(name) or self.roots[0] / name

    def look(self, name: str) -> Path | None:
        """The file of a name, or None."""
        if not is_text(name):
            return None
        if found := self._below(self.roots, name):
            return found
        first = self.roots[0]
        variants = list(_variants(name)) if first.is_dir() else []
        for variant in variants:
            if found := self._below(self.roots, variant):
                return found
        for variant in variants:
            for tail in _tails(variant):
                if found := self._below((first,), tail):
                    return found
        return self._in_index(variants) if variants else None

    def _below(self, roots: Sequence[Path], name: str) -> Path | None:
        return next((path for root in roots if os.path.lexists(path := root / name)), None)

    def _in_index(self, variants: Sequence[str]) -> Path | None:
        with _LOCK:
            if self._index is None:
                self._index = _index(self.roots[0])
        for variant in variants:
            wanted = comparable(variant)
            entries = self._index.get(wanted.rpartition("/")[2], [])
            fitting = [path for path in entries if is_end_of(comparable(path), wanted)]
            if len(fitting) == 1:
                return self.roots[0] / fitting[0]
        return None


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8 and given to the operating system."""
    return "\0" not in name and not any("\ud800" <= character <= "\udfff" for character in name)


def _variants(name: str) -> Iterator[str]:
    """The relative paths that a name may stand for, likeliest first, each once."""
    plain = plain_name(name)
    bases = [plain, unquote(plain)]
    for pattern in (_UPLOADED, _COCO_2014):
        folder, slash, last = bases[1].rpartition("/")
        bases.append(folder + slash + pattern.sub("", last))
    seen: set[str] = set()
    for base in bases:
        for form in (base, unicodedata.normalize("NFC", base), unicodedata.normalize("NFD", base)):
            if form and form not in seen and is_text(form) and ".." not in form.split("/"):
                seen.add(form)
                yield form


def _tails(name: str) -> Iterator[str]:
    """A path without its first folder, then without the second, and so on: what a move may leave of it."""
    parts = name.split("/")
    yield from ("/".join(parts[first:]) for first in range(1, len(parts)))


def _index(root: Path) -> dict[str, list[str]]:
    """The path of every file below a root by its comparable last name; empty where there are too many."""
    found: dict[str, list[str]] = defaultdict(list)
    count = 0
    for folder, _, names in os.walk(root):
        count += len(names)
        if count > MOST_INDEXED:
            log.warning(
                "%s holds more than %s files, so names are looked for only as they are written",
                root,
                f"{MOST_INDEXED:,}",
            )
            return {}
        below = os.path.relpath(folder, root)
        for name in names:
            path = name if below == "." else f"{below}/{name}"
            if is_text(path):
                found[comparable(name)].append(path)
    return found
