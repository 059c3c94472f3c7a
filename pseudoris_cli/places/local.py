"""Files of this machine: one, those below a folder, or those that a pattern names."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from pseudoris_cli.errors import UsageError
from pseudoris_cli.places.addresses import expand_braces, has_wildcard, is_pattern, split_pattern
from pseudoris_cli.records import Stamp


class LocalPlace:
    """A folder with everything below it (links to files are followed, hidden folders are not entered), or what is named."""

    is_remote = False

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._pattern: str | None = None
        if self.root.is_dir():
            self.base = self.root
        elif self.root.exists() or not is_pattern(str(root)):
            self.base, self._pattern = self.root.parent, glob.escape(self.root.name)
        else:
            folder, self._pattern = split_pattern(str(root))
            self.base = Path(folder or ("/" if str(root).startswith("/") else "."))

    def names(self, suffixes: Collection[str]) -> list[str]:
        """The files, by name; those of a pattern in the order of its braces. UsageError where the folder cannot be listed."""
        gone = self.root if not is_pattern(str(self.root)) and not self.root.exists() else self.base
        if not gone.exists():
            raise UsageError(f"{gone} does not exist (moved? point to it with --image-root)")
        found = self._below() if self._pattern is None else self._matching(self._pattern)
        return [name for name in dict.fromkeys(found) if name.lower().endswith(tuple(suffixes))]

    def missing(self) -> list[str]:
        """Files that braces name and that are not there."""
        if self._pattern is None or not is_pattern(str(self.root)):
            return []
        named = [name for name in expand_braces(self._pattern) if not has_wildcard(name)]
        return [name for name in named if not self.path(name).is_file()]

    def path(self, name: str) -> Path:
        """The path of a file."""
        return self.base / name

    def stamp(self, name: str) -> Stamp | None:
        try:
            status = os.stat(os.path.join(self.base, name))
        except OSError:
            return None
        return Stamp(status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None

    def open(self, name: str) -> LocalFile:
        return LocalFile(self.base / name)

    def _below(self) -> Iterator[str]:
        def refuse(error: OSError) -> None:
            raise UsageError(f"cannot list {error.filename}: {error.strerror}") from error

        found = []
        for folder, folders, files in os.walk(self.base, onerror=refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            below = os.path.relpath(folder, self.base)
            found += [name if below == "." else f"{below}/{name}" for name in files if not name.startswith(".")]
        yield from sorted(found)

    def _matching(self, pattern: str) -> Iterator[str]:
        for name in expand_braces(pattern):
            if has_wildcard(name):
                yield from sorted(glob.glob(name, root_dir=self.base, recursive=True))
            elif (self.base / name).is_file():
                yield name


class LocalFile:
    """An open file; reads need no lock, as they give their offset."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self.size = os.fstat(self._descriptor).st_size

    def read_at(self, offset: int, size: int) -> bytes:
        size = max(0, min(size, self.size - offset))  # a header may claim any size; no more memory than the file has
        data = os.pread(self._descriptor, size, offset)
        while len(data) < size and (more := os.pread(self._descriptor, size - len(data), offset + len(data))):
            data += more
        return data

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()
