"""What a place offers: the names of its files, their stamps, and reads at any offset."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from pseudoris_cli.places.addresses import is_url
from pseudoris_cli.records import Stamp


class PlaceFile(Protocol):
    """An open file, for several threads at once."""

    size: int

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes from `offset` on; fewer than `size` only where the file ends."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Place(Protocol):
    """Files below one folder. Names are relative POSIX paths, and the same wherever the folder is moved to.

    OSError for what cannot be read, FileNotFoundError for what is gone; EnvironmentStop where a server does not answer.
    """

    is_remote: bool

    def names(self, suffixes: Collection[str]) -> list[str]:
        """The files whose names end in one of the suffixes (lower case), always in the same order."""
        ...

    def stamp(self, name: str) -> Stamp | None:
        """Size and modification time (of a remote file: a digest of its ETag); None where there is no such file."""
        ...

    def open(self, name: str) -> PlaceFile:
        """Open a file."""
        ...


def open_place(root: Path | str) -> Place:
    """The place of a path, pattern or URL. MissingDependency (exit 3) names the package that a URL needs."""
    if is_url(str(root)):
        from pseudoris_cli.places.remote import RemotePlace

        return RemotePlace(str(root))
    from pseudoris_cli.places.local import LocalPlace

    return LocalPlace(root)


class Stream(io.RawIOBase):
    """A PlaceFile as a file object with a position."""

    def __init__(self, file: PlaceFile) -> None:
        super().__init__()
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read_at(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
