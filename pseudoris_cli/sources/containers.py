"""Images that lie in large files: what tars and Parquet files share. An index of each file is made once and kept.

The index of a file is JSON in the work directory (`WORK/source-index/`), valid for one size and modification time. It is written
when the images are listed, as one durable step; readers that find none, or an old one, make it in memory.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import RLock
from typing import Any, ClassVar, Generic, TypeVar

from pseudoris_cli.errors import UsageError
from pseudoris_cli.places.addresses import is_pattern, is_url, split_pattern
from pseudoris_cli.places.base import Place, open_place
from pseudoris_cli.records import ImageRef, Stamp
from pseudoris_cli.sources.base import IMAGE_SUFFIXES, LeftOut, Source
from pseudoris_cli.storage import files
from pseudoris_cli.storage.locks import exclusive

T = TypeVar("T")
FORMAT = 1
"""Of an index file; another number is made anew."""
OPEN = 3
"""Files held open, with their indexes, by each process."""
AT_ONCE = 4
"""Indexes of remote files that are made side by side."""
WAIT_SECONDS = 600
LOOKED_AT = 2000
FOLDERS = 20
"""Entries and folders that are looked at to recognise a source."""
MISSING = "files that the pattern names and that are not there"


class Unreadable(Exception):
    """Nothing of a file can be read; the message is the reason, without the file's name."""


class Recent(Generic[T]):
    """The last few values by key. What is put out is not closed: another thread may be reading from it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Any, T] = OrderedDict()

    def get(self, key: Any, make: Callable[[], T]) -> T:
        """The value of a key, made if it is not there."""
        if key not in self._values:
            made = make()
            self._values[key] = made
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        return self._values[key]


class Containers(Source):
    """The images of many files, in the order of the files and of what lies in them. Keys begin with the name of the file.

    A class derived from it says how a file is read: `make_index`, `refs`, `find` and `fetch`.
    """

    suffixes: ClassVar[tuple[str, ...]]
    noun: ClassVar[str]
    """What messages call a file."""

    def __init__(self, root: Path | str, options: dict[str, str]) -> None:
        self.root, self.options = root, options
        self.place: Place = open_place(root)
        self.left_out: LeftOut | None = None
        self._folder: Path | None = None
        self._name_ends = re.compile(f"(?:{'|'.join(map(re.escape, self.suffixes))})(?=/)", re.IGNORECASE | re.ASCII)
        self._lock = RLock()
        self._indexes: Recent[dict[str, Any]] = Recent(OPEN)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (type(self), self.root, self.options, self._folder)

    # --- what a kind of file says -------------------------------------------------------------------------------------

    def make_index(self, name: str) -> dict[str, Any]:
        """What lies in a file, as plain JSON, with `left_out`. Unreadable says why there is nothing."""
        raise NotImplementedError

    def refs(self, name: str, index: dict[str, Any]) -> Iterator[ImageRef]:
        """The images of a file."""
        raise NotImplementedError

    def find(self, index: dict[str, Any], inner: str) -> Any:
        """Where the image of a key without its file's name lies; None where there is none."""
        raise NotImplementedError

    def fetch(self, name: str, stamp: Stamp, spot: Any) -> bytes:
        """The bytes of an image."""
        raise NotImplementedError

    def chosen(self, names: list[str]) -> list[str]:
        """The files whose images are taken."""
        return names

    # --- what a source offers -----------------------------------------------------------------------------------------

    def keep_index_in(self, folder: Path) -> None:
        """Where indexes are kept; without it they are made anew by each process."""
        self._folder = folder

    def images(self) -> Iterator[ImageRef]:
        """Every image, file by file. UsageError where there are none, with the reasons."""
        left_out = self.left_out = LeftOut()
        for name in getattr(self.place, "missing", list)():
            left_out.add(MISSING, name.encode())
        names = self.names(left_out)
        listed = 0
        for name, index in self._all_indexes(names):
            for kind, row in index["left_out"].items():
                known = left_out.kinds.setdefault(kind, {"count": 0, "example": row["example"]})
                known["count"] += row["count"]
            for ref in self.refs(name, index):
                listed += 1
                yield ref
        left_out.complete = True
        if not listed:
            reasons = "; ".join(
                f"{row['count']:,} {kind}, e.g. {row['example']}" for kind, row in left_out.kinds.items()
            )
            raise UsageError(
                f"{self.root}: no image in {len(names)} {self.noun} files ({reasons or 'nothing to read'})"
            )

    def names(self, left_out: LeftOut) -> list[str]:
        """The files of this kind, in order."""
        return self.chosen(self.place.names(self.suffixes))

    def stamp(self, key: str) -> Stamp | None:
        """That of the file that holds the image; digests tell which images changed in it. None if the image is not in it."""
        name, inner, stamp = self._file_of(key)
        return None if stamp is None or self._spot(name, inner, stamp) is None else stamp

    def read(self, key: str) -> bytes:
        """The encoded image. FileNotFoundError if it, or its file, is gone; another OSError with the reason if it is damaged."""
        name, inner, stamp = self._file_of(key)
        spot = None if stamp is None else self._spot(name, inner, stamp)
        if stamp is None or spot is None:
            raise FileNotFoundError(errno.ENOENT, f"no such image in a {self.noun} file", key)
        return self.fetch(name, stamp, spot)

    def _spot(self, name: str, inner: str, stamp: Stamp) -> Any:
        # the lock is for indexes: who held it while the system is asked for a stamp would keep the other threads from reading
        with self._lock:
            return self.find(self._index(name, stamp), inner)

    # --- indexes ------------------------------------------------------------------------------------------------------

    def _file_of(self, key: str) -> tuple[str, str, Stamp | None]:
        """Name of the file, rest of the key, and the file's stamp (None where there is no such file)."""
        for match in self._name_ends.finditer(key):
            if stamp := self.place.stamp(key[: match.end()]):
                return key[: match.end()], key[match.end() + 1 :], stamp
        return key, "", None

    def _all_indexes(self, names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The index of each file, those of a server made side by side; new ones are kept."""
        alone = 1 if self.place.is_remote else len(names)
        yield from ((name, self._kept_index(name)) for name in names[:alone])  # who asks for one image reads one file
        waiting = iter(names[alone:])
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="index") as pool:
            begun = [(name, pool.submit(self._kept_index, name)) for name in islice(waiting, AT_ONCE)]
            try:
                while begun:
                    name, future = begun.pop(0)
                    index = future.result()
                    begun += [(other, pool.submit(self._kept_index, other)) for other in islice(waiting, 1)]
                    yield name, index
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _kept_index(self, name: str) -> dict[str, Any]:
        """The index of a file for a listing: from the work directory, or made and kept there."""
        stamp = self.place.stamp(name)
        if stamp is None:
            return {"left_out": {f"{self.noun} files that vanished": {"count": 1, "example": name}}}
        if known := self._load(name, stamp):
            return known
        index = self._made(name, stamp)
        if self._folder is not None and self.place.stamp(name) == stamp:  # it may be written to while we read it
            with files.os_errors_as_stop(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                with exclusive(self._folder / "index.lock", "indexing", WAIT_SECONDS):
                    text = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
                    files.replace_file(self._path(self._folder, name), text.encode("utf-8", "backslashreplace"))
        return index

    def _index(self, name: str, stamp: Stamp) -> dict[str, Any]:
        """The index of a file for reading. Call it with the lock held."""
        return self._indexes.get((name, stamp), lambda: self._load(name, stamp) or self._made(name, stamp))

    def _made(self, name: str, stamp: Stamp) -> dict[str, Any]:
        try:
            index = self.make_index(name)
        except FileNotFoundError:
            index = {"left_out": {f"{self.noun} files that vanished": {"count": 1, "example": name}}}
        except Unreadable as error:
            index = {"left_out": {f"{self.noun} files that cannot be read: {error}": {"count": 1, "example": name}}}
        except OSError as error:
            reason = f"{self.noun} files that cannot be read: {error.strerror or error}"
            index = {"left_out": {reason: {"count": 1, "example": name}}}
        return index | {"format": FORMAT, "file": name, "stamp": [stamp.size, stamp.mtime_ns], "options": self.options}

    def _load(self, name: str, stamp: Stamp) -> dict[str, Any] | None:
        """What the work directory has; None where it has none for this state of the file."""
        if self._folder is None:
            return None
        try:
            index = json.loads(self._path(self._folder, name).read_bytes())
            wanted = [FORMAT, name, [stamp.size, stamp.mtime_ns], self.options]
            return index if [index[part] for part in ("format", "file", "stamp", "options")] == wanted else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _path(self, folder: Path, name: str) -> Path:
        return folder / f"{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}.json"


def _reopened(kind: type[Containers], root: Path | str, options: dict[str, str], folder: Path | None) -> Containers:
    source = kind(root, options)
    source._folder = folder
    return source


def relocated(root: Path | str, image_root: Path | str | None, suffixes: tuple[str, ...]) -> Path | str:
    """Where a source lies that `--image-root` may have moved: a file or a pattern keeps its name, below that folder or URL."""
    text, moved = str(root), str(image_root)
    if image_root is None:
        return root
    if is_pattern(text) and not Path(text).exists():
        name = split_pattern(text)[1]
    elif text.lower().endswith(suffixes):
        name = text.rpartition("/")[2]
    else:
        return image_root
    if is_pattern(moved) or moved.lower().endswith(suffixes):
        return image_root
    return f"{moved}/{name}" if is_url(moved) else Path(moved) / name


def first_file(folder: Path, suffixes: tuple[str, ...]) -> Path | None:
    """A file of a folder, or one level below, whose name ends so; None where images lie beside it: they are what is meant."""
    found, below, loose = _look(folder, suffixes)
    if found or loose:
        return None if loose else found
    for path in below[:FOLDERS]:
        found, _, loose = _look(path, suffixes)
        if found or loose:
            return None if loose else found
    return None


def _look(folder: Path, suffixes: tuple[str, ...]) -> tuple[Path | None, list[Path], bool]:
    """The first such file of a folder, its folders, and whether there are images; of the first LOOKED_AT entries."""
    try:
        with os.scandir(folder) as entries:
            seen = sorted((e for e in islice(entries, LOOKED_AT) if not e.name.startswith(".")), key=lambda e: e.name)
    except PermissionError:
        return None, [], False
    found = next((Path(entry.path) for entry in seen if entry.name.lower().endswith(suffixes)), None)
    loose = any(os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES for entry in seen)
    return found, [Path(entry.path) for entry in seen if entry.is_dir()], loose
