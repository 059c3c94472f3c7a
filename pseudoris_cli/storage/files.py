"""The durable steps that everything on disk is made of. One function per step, so that a test can kill the process around each.

The protocol for a part is write_temporary, sync_file, publish, sync_folder, then append_line and sync_line for its manifest
(docs/artifacts.md): a crash between any two leaves either the old state or the new one.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from pseudoris_cli.errors import EnvironmentStop

FEW = 200
"""Files that are synced one by one."""


def write_temporary(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Create `path` and let `write` fill it; nothing is left behind if that fails."""
    try:
        with path.open("wb") as file:
            write(file)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def sync_file(path: Path) -> None:
    """Force the file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Force every file below a folder to the disk; links are left alone.

    Many files go at once where the system waits for that (Linux): one by one, 2.5 ms each, a large export would spend
    longer here than on writing.
    """
    plain = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    first = list(islice(plain, FEW + 1))
    if len(first) > FEW and sys.platform == "linux":
        os.sync()
        return
    for path in chain(first, plain):
        sync_file(path)


def publish(temporary: Path, target: Path) -> None:
    """Give a finished file its name, atomically."""
    os.replace(temporary, target)


_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EISDIR, errno.EACCES)
"""What file systems say that cannot sync a folder (CIFS, some of FUSE); nothing better can be done there."""


def sync_folder(folder: Path) -> None:
    """Force the folder's entries to the disk, so that a rename survives a power cut; nothing where the system cannot."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def append_line(file: FileIO, record: dict[str, Any]) -> int:
    """Append one JSON line to a file opened without buffer; returns its offset. After an error nothing of it is left."""
    offset = file.seek(0, os.SEEK_END)
    line = memoryview(_encode(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"))
    try:
        while line:
            line = line[file.write(line) :]
    except BaseException:
        file.truncate(offset)
        raise
    return offset


def sync_line(file: FileIO) -> None:
    """Force an appended line to the disk."""
    os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Write a small file so that it is always complete: temporary, fsync, rename, fsync of the folder.

    The temporary's name is fixed, so that doing it again leaves none behind; two writers need a lock around it.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write_temporary(temporary, lambda file: _write(file, data))
        sync_file(temporary)
        publish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)


def replace_json(path: Path, value: Any) -> None:
    """`replace_file` with indented JSON."""
    replace_file(path, _encode(json.dumps(value, indent=2, ensure_ascii=False) + "\n"))


def _encode(text: str) -> bytes:
    """JSON as UTF-8; half a surrogate pair (a path that is no UTF-8 has them) becomes JSON's own escape."""
    return text.encode("utf-8", "backslashreplace")


def cut_torn_line(path: Path) -> bool:
    """Remove an unfinished or unreadable last line (the writer died in it); True if there was one."""
    if not path.exists():
        return False
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        start = _last_line_start(file, size)
        file.seek(start)
        last = file.read()
        if not last or (last.endswith(b"\n") and _parse(last) is not None):
            return False
        file.truncate(start)
        os.fsync(file.fileno())
    return True


def read_lines(path: Path, start: int = 0) -> Iterator[tuple[int, int, dict[str, Any] | None]]:
    """(offset, length, record) of every line from byte `start` on; record is None where a line is damaged.

    A torn last line is left out: it may be one that is being written.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        offset = file.seek(start)
        for line in file:
            record = _parse(line) if line.endswith(b"\n") else None
            if record is None and not file.peek(1):
                return
            yield offset, len(line), record
            offset += len(line)


def read_line(path: Path, offset: int, length: int) -> dict[str, Any]:
    """One line again, by its offset and length."""
    with path.open("rb") as file:
        file.seek(offset)
        return json.loads(file.read(length))


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _last_line_start(file: BinaryIO, size: int, block: int = 1 << 16) -> int:
    """Offset at which the last line begins (a final newline belongs to it)."""
    end = max(size - 1, 0)
    while end > 0:
        start = max(0, end - block)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


@contextmanager
def os_errors_as_stop(folder: Path) -> Iterator[None]:
    """Turn what the operating system refuses inside the block into an EnvironmentStop (exit 1) with the next step."""
    try:
        yield
    except OSError as error:
        raise EnvironmentStop(_explain(error, folder)) from error


_PROPERTIES = {
    errno.EROFS: "it is mounted read-only. Choose another folder",
    errno.EFBIG: "the file is larger than this file system takes (FAT32: 4 GB). Choose a folder on another one",
    errno.EXDEV: "the folder cannot be renamed there (a mount, or a layer of a container). Choose a new folder below it",
    errno.EBUSY: "the folder is a mount point or in use. Choose a new folder below it",
    errno.ENAMETOOLONG: "a name is longer than this file system takes. Choose a folder on another one",
    errno.EILSEQ: "a name has characters that this file system does not take. Choose a folder on another one",
    errno.EOPNOTSUPP: "the file system cannot do this. Choose a folder on another one",
    errno.ENOSYS: "the file system cannot do this. Choose a folder on another one",
    errno.ENOTDIR: "a part of the path is a file, not a folder. Choose another folder",
    errno.EEXIST: "a file is in the place of a folder. Choose another folder",
}
"""What will not go away by itself, and what to do."""


def _explain(error: OSError, folder: Path) -> str:
    if error.errno == errno.ENOSPC:
        return f"the disk is full ({folder}); committed work is kept. Free space and run the same command again"
    if error.errno == errno.EDQUOT:
        return f"the disk is full ({folder}): quota; committed work is kept. Free space and run the same command again"
    if error.errno in (errno.EIO, errno.ESTALE):
        return (
            f"{folder}: {error}; committed work is kept, run the same command again once the disk or its server is well"
        )
    place = f"{error.filename or folder}: {error.strerror or error}; committed work is kept"
    if error.errno in _PROPERTIES:
        return f"{place}: {_PROPERTIES[error.errno]}"
    if error.errno == errno.EINVAL:
        return f"{place}: the file system does not take this name or cannot do this. Choose a folder on another one"
    if error.errno == errno.EPERM:
        return f"{place}: the file system cannot do this, or forbids it whoever asks. Choose a folder on another one"
    if error.errno == errno.EACCES:
        return f"cannot write in {folder}: {error.strerror}; committed work is kept. Check its permissions"
    return f"{folder}: {error}; committed work is kept, run the same command again"
