"""What a file system can do, tried in a folder before hours of work depend on it. Nothing that is made stays."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pseudoris_cli.storage import files

_PREFIX = ".pseudoris-trial-"
_LONGEST_SECONDS = 600
"""A trial takes milliseconds; one that is older was killed."""


@dataclass(frozen=True, slots=True)
class Ability:
    """Something that a folder's file system can or cannot do; `error` is None where it can."""

    name: str
    needed_for: str
    error: OSError | None

    @property
    def reason(self) -> str:
        """The system's words."""
        return self.error.strerror or str(self.error) if self.error else ""


def nearest_folder(path: Path) -> Path:
    """The folder itself or, before it exists, the one to hold it. Raises OSError where that is no folder."""
    folder = path.absolute()
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder", str(folder))
    return folder


def abilities(path: Path, names: Collection[str] | None = None) -> Iterator[Ability]:
    """Try everything, or what is named, in `path` or in the folder to hold it. Raises OSError where nothing can be written.

    What a kill left of an earlier trial is removed.
    """
    folder = nearest_folder(path)
    for left in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another command may be at it
            if time.time() - left.stat().st_mtime > _LONGEST_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder, ignore_cleanup_errors=True) as made:
        place = Path(made)
        (place / "a").write_bytes(b"a")
        (place / "b").write_bytes(b"b")
        (place / "folder").mkdir()
        trials: tuple[tuple[str, str, Callable[[Path], object]], ...] = (
            ("rename", "every file and folder appears complete or not at all", _rename),
            ("append", "manifests grow line by line", _append),
            ("sync", "finished work outlives a power cut", lambda folder: files.sync_file(folder / "b")),
            ("lock", "two commands do not write at once", _lock),
            ("link", "--images link", lambda folder: (folder / "link").symlink_to("b")),
            ("case", "A.jpg and a.jpg are two files", _case),
        )
        for name, needed_for, attempt in trials:
            if names is not None and name not in names:
                continue
            try:
                attempt(place)
            except OSError as error:
                yield Ability(name, needed_for, error)
            else:
                yield Ability(name, needed_for, None)


def lacks(path: Path, *names: str) -> list[Ability]:
    """Those of the named abilities that the file system of `path` lacks. Raises OSError as `abilities` does."""
    return [one for one in abilities(path, names) if one.error]


def _rename(place: Path) -> None:
    os.replace(place / "a", place / "b")
    os.replace(place / "folder", place / "folder again")


def _append(place: Path) -> None:
    (place / "lines").write_bytes(b"1\n")
    with (place / "lines").open("ab") as file:
        file.write(b"2\n")
    if (place / "lines").read_bytes() != b"1\n2\n":
        raise OSError(errno.EIO, "appended bytes are lost")


def _lock(place: Path) -> None:
    descriptor = os.open(place / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def _case(place: Path) -> None:
    (place / "case").write_bytes(b"")
    if (place / "CASE").exists():
        raise OSError(errno.EEXIST, "names that differ in case only are one file")
    with suppress(OSError):
        (place / "case").unlink()
