"""Files behind a URL, through fsspec (extra `remote`): listed once, read in ranges, asked for again where a server stumbles.

Credentials come from where the file systems' own libraries look for them; nothing of them is kept or written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import cached_property
from threading import Lock
from typing import Any, TypeVar

from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.places.addresses import expand_braces, has_wildcard, is_pattern, split_pattern
from pseudoris_cli.places.ahead import MOST_AHEAD, ReadAhead
from pseudoris_cli.places.retrying import ShortAnswer, patiently
from pseudoris_cli.records import Stamp

T = TypeVar("T")
TIMEOUT = 30.0
"""Seconds in which a server must have answered a request; then it is asked again."""
PIECE = 8 << 20
"""Bytes of a file that are asked for at once where all of it is wanted: a slow line has TIMEOUT for each piece."""
_MARKS = (
    "ETag", "etag", "md5Hash", "Content-MD5", "generation", "blob_id", "oid", "LastModified", "Last-Modified", "last_modified",
    "updated", "mtime", "created",
)  # fmt: skip
"""What file systems tell versions of a file apart by, best first."""


class RemotePlace:
    """A folder, a file or a pattern of files on a server. Files are listed once, when they are first asked for."""

    is_remote = True

    def __init__(self, url: str) -> None:
        """UsageError for a kind of URL that there is none of; MissingDependency names the package that it needs."""
        self.url = url
        self._listing = Lock()
        self._found: dict[str, Stamp] | None = None
        self._fs, path = _file_system(url)
        self._pattern: str | None = None
        if is_pattern(path):
            self.base, self._pattern = split_pattern(path)
        else:
            self.base = path.rstrip("/")

    def __reduce__(self) -> tuple[type[RemotePlace], tuple[str]]:
        return type(self), (self.url,)

    def names(self, suffixes: Collection[str]) -> list[str]:
        """The files, by name; those of a pattern in the order of its braces. UsageError where there is nothing."""
        return [name for name in self._stamps if name.lower().endswith(tuple(suffixes))]

    def missing(self) -> list[str]:
        """Files that braces name and that are not there."""
        named = expand_braces(self._pattern) if self._pattern else iter(())
        return [name for name in named if not has_wildcard(name) and name not in self._stamps]

    def stamp(self, name: str) -> Stamp | None:
        return self._stamps.get(name)

    def open(self, name: str) -> ReadAhead:
        stamp = self.stamp(name)
        if stamp is None:
            raise FileNotFoundError(f"{self.url}: no {name}")
        path = self._path(name)
        return ReadAhead(stamp.size, lambda start, end: self._range(path, start, end), self._pool)

    def begin(self, work: Callable[[], T]) -> Future[T]:
        """Do something in one of the threads that fetch."""
        return self._pool.submit(work)

    def read(self, name: str) -> bytes:
        """A whole file, piece by piece in this thread. FileNotFoundError if it is gone."""
        stamp = self.stamp(name)
        if stamp is None:
            raise FileNotFoundError(f"{self.url}: no {name}")
        path, size = self._path(name), stamp.size
        return b"".join(self._range(path, at, min(at + PIECE, size)) for at in range(0, size, PIECE))

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(MOST_AHEAD, thread_name_prefix="fetch")

    @property
    def _stamps(self) -> dict[str, Stamp]:
        """Every file, with its stamp, in order."""
        with self._listing:
            if self._found is None:
                found = self._listed() if self._pattern is None else self._matching(self._pattern)
                if not found:
                    raise UsageError(f"there is nothing at {self.url} (moved? point to it with --image-root)")
                self._found = found
            return self._found

    def _listed(self) -> dict[str, Stamp]:
        infos = self._ask("_find", "find", self.base, detail=True)
        files = {path: info for path, info in infos.items() if info.get("type") == "file"}
        if list(files) == [self.base]:  # the URL is that of one file
            self.base, _, name = self.base.rpartition("/")
            return {name: _stamp(files[f"{self.base}/{name}"])}
        below = {path[len(self.base) + 1 :]: info for path, info in files.items() if path.startswith(f"{self.base}/")}
        return {name: _stamp(below[name]) for name in sorted(below) if not _is_hidden(name)}

    def _matching(self, pattern: str) -> dict[str, Stamp]:
        names = list(expand_braces(pattern))
        if any(map(has_wildcard, names)):
            every = self._listed()
            chosen = {name: [one for one in every if _matches(one, name)] for name in names}
            return {one: every[one] for name in names for one in chosen[name]}
        stamps = self._pool.map(self._look, names)
        return {name: stamp for name, stamp in zip(names, stamps, strict=True) if stamp}

    def _look(self, name: str) -> Stamp | None:
        try:
            return _stamp(self._ask("_info", "info", self._path(name)))
        except FileNotFoundError:
            return None

    def _range(self, path: str, start: int, end: int) -> bytes:
        def ask() -> bytes:
            data = self._once("_cat_file", "cat_file", path, start=start, end=end)
            if len(data) > end - start:
                raise UsageError(f"{self.url}: the server sends whole files where a range is asked for; copy them here")
            if len(data) < end - start:
                raise ShortAnswer(f"{len(data):,} of {end - start:,} bytes")
            return data

        return patiently(ask, f"{self.url}, {path}") if end > start else b""

    def _ask(self, name: str, plain: str, *arguments: Any, **options: Any) -> Any:
        return patiently(lambda: self._once(name, plain, *arguments, **options), self.url)

    def _once(self, name: str, plain: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the file system; one that is asynchronous is given up after TIMEOUT seconds."""
        if not self._fs.async_impl:
            return getattr(self._fs, plain)(*arguments, **options)
        from fsspec.asyn import sync

        return sync(self._fs.loop, getattr(self._fs, name), *arguments, timeout=TIMEOUT, **options)

    def _path(self, name: str) -> str:
        return f"{self.base}/{name}" if self.base else name


def _file_system(url: str) -> tuple[Any, str]:
    protocol = url.partition("://")[0].lower()
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingDependency(
            f"{protocol}:// needs the package 'fsspec', which is not installed: pip install 'pseudoris[remote]'"
        ) from error
    options: dict[str, Any] = {"use_listings_cache": False}
    try:
        fs, path = url_to_fs(url, **options)
    except ImportError as error:
        raise MissingDependency(f"{protocol}:// cannot be opened: {error}; pip install 'pseudoris[remote]'") from error
    except ValueError as error:
        raise UsageError(f"--images {url}: no file system for {protocol}:// ({error})") from error
    return fs, path


def _stamp(info: dict[str, Any]) -> Stamp:
    mark = next((str(info[name]) for name in _MARKS if info.get(name)), "")
    digest = hashlib.blake2b(mark.encode(), digest_size=8).digest()
    return Stamp(int(info.get("size") or 0), int.from_bytes(digest, "big") >> 1)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _matches(name: str, pattern: str) -> bool:
    """Whether a name fits a pattern folder by folder; `**` stands for any number of folders."""
    return _fits(name.split("/"), pattern.split("/"))


def _fits(parts: list[str], wanted: list[str]) -> bool:
    if not wanted or not parts:
        return not wanted and not parts
    if wanted[0] == "**":
        return _fits(parts, wanted[1:]) or _fits(parts[1:], wanted)
    return fnmatchcase(parts[0], wanted[0]) and _fits(parts[1:], wanted[1:])
