"""The LMDB that ETRIS' and Pseudo-RIS' folder2lmdb.py writes, with and without `img_id`: the images lie inside it.

One record for every object, so an image may be there several times; the first is taken. `__keys__` is trusted, not
`__len__`: a second run over an old file leaves stale records behind.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any

from pseudoris_cli.codecs import pyarrow_serialize
from pseudoris_cli.codecs.lmdb_reader import DamagedLmdb, LmdbFile
from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import ImageRef
from pseudoris_cli.sources.base import SPLITS, Source, Stamp, read_head
from pseudoris_cli.sources.metadata import chosen_file, first_of_each, image_ref

_LOCK = RLock()

LMDB_MAGIC = bytes.fromhex("dec0efbe")
DETECT_ORDER = 10


class EtrisLmdb(Source):
    """The images of one LMDB, in the order of its records. Opened on first use, in each process for itself."""

    def __init__(self, file: Path, options: dict[str, str]) -> None:
        self.file = file
        self.options = options

    def __reduce__(self) -> tuple[type[EtrisLmdb], tuple[Path, dict[str, str]]]:
        return type(self), (self.file, self.options)

    def images(self) -> Iterator[ImageRef]:
        return first_of_each((image for image, _ in self._records()), self.file)

    def stamp(self, key: str) -> Stamp | None:
        """That of the LMDB as a whole; digests tell which images changed in it."""
        try:
            status = _data_file(self.file).stat()
        except OSError:
            return None
        return Stamp(status.st_size, status.st_mtime_ns)

    def read(self, key: str) -> bytes:
        """The image file as it was put in. OSError if it is not there any more or damaged."""
        record_key = self._record_keys.get(key)
        if record_key is None:
            raise FileNotFoundError(errno.ENOENT, "no such image in the LMDB", f"{self.file}: {key}")
        try:
            image = pyarrow_serialize.decode(self._values.get(record_key) or b"", {"img"})["img"]
        except (ValueError, KeyError, TypeError) as error:
            raise OSError(errno.EIO, f"damaged LMDB record ({error})", f"{self.file}: {key}") from error
        if not isinstance(image, bytes):
            raise OSError(errno.EIO, "the LMDB record holds no image", f"{self.file}: {key}")
        return image

    @cached_property
    def _values(self) -> LmdbFile:
        path = _data_file(self.file)
        if not path.is_file():
            raise UsageError(f"there is no LMDB at {self.file}")
        try:
            return LmdbFile(path)
        except OSError as error:
            raise UsageError(f"{self.file} cannot be read: {error.strerror}") from error
        except DamagedLmdb as error:
            raise UsageError(f"{self.file} is not a readable LMDB: {error}") from error

    @cached_property
    def _record_keys(self) -> dict[str, bytes]:
        """Image key -> key of its first record. Threads that read images must not each build it."""
        with _LOCK:
            if "_record_keys" in self.__dict__:
                return self.__dict__["_record_keys"]
            found: dict[str, bytes] = {}
            for image, record_key in self._records():
                found.setdefault(image.key, record_key)
            self.__dict__["_record_keys"] = found
            return found

    def _records(self) -> Iterator[tuple[ImageRef, bytes]]:
        for record_key in self._keys():
            where = f"{self.file}, record {record_key.decode('ascii', 'replace'):.40}"
            try:
                value = self._values.get(record_key)
                if value is None:
                    raise UsageError(f"{where}: is listed in __keys__ but missing")
                record = pyarrow_serialize.decode(value, {"img_name", "img_id"})
            except ValueError as error:
                raise UsageError(f"{where}: {error}") from error
            if not isinstance(record, dict) or "img_name" not in record:
                raise UsageError(f"{where}: has no img_name")
            yield image_ref(record["img_name"], record.get("img_id"), where), record_key

    def _keys(self) -> list[bytes]:
        try:
            value = self._values.get(b"__keys__")
            if value is None:
                raise UsageError(f"{self.file} has no __keys__: folder2lmdb.py was stopped, or its split was empty")
            keys = pyarrow_serialize.decode(value)
        except ValueError as error:
            raise UsageError(f"{self.file}, __keys__: {error}") from error
        if not isinstance(keys, list) or not all(isinstance(key, bytes) and 0 < len(key) <= 511 for key in keys):
            raise UsageError(f"{self.file}, __keys__: is not a list of keys")
        return keys


def detects(path: Path) -> bool:
    """An LMDB by its name or magic number, or a folder of LMDBs named like splits."""
    if path.is_dir():
        return (path / "data.mdb").is_file() or any((path / f"{split}.lmdb").is_file() for split in SPLITS)
    return path.is_file() and (path.suffix.lower() == ".lmdb" or read_head(path, 20)[16:20] == LMDB_MAGIC)


def open_source(root: Path, options: dict[str, Any], image_root: Path | None) -> EtrisLmdb:
    """Open an LMDB (file, or folder with data.mdb), or `<split>.lmdb` of a folder of them (option `split`, default train).

    `image_root`, where given, is the LMDB or the folder where it lies now.
    """
    if image_root is not None:
        moved = image_root / root.name
        root = moved if moved.exists() else image_root
    if root.is_dir() and not (root / "data.mdb").is_file():
        return EtrisLmdb(*chosen_file(root, options, ".lmdb"))
    return EtrisLmdb(root, {})


def _data_file(path: Path) -> Path:
    return path / "data.mdb" if path.is_dir() else path
