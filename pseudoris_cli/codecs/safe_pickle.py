"""Pickles of plain values, the file format of REFER: read without running code, written item by item.

Plain values are dict, list, tuple, set, str, bytes, int, float, bool and None; anything else in a pickle calls code.
"""

from __future__ import annotations

import pickle
import struct
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, ClassVar

from pseudoris_cli.errors import UsageError

_BATCH = 1000
"""Items between MARK and APPENDS, as Python's own pickler groups them."""


_PythonUnpickler: Any = pickle._Unpickler


class _PlainUnpickler(_PythonUnpickler):
    """Rejects every global and persistent id, so that nothing that the file names is ever imported or called.

    It derives from the unpickler in Python: the one in C allocates its memo up to any key, so that ten bytes fill memory.
    """

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is code and not a plain value")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it holds a persistent id")

    # Hashing nested tuples that each hold the one before twice takes exponential time: sixty levels fit into a hundred bytes.

    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _check_keys(self.stack[0::2])
        super().load_setitems()

    def load_dict(self) -> None:
        _check_keys(self.stack[0::2])
        super().load_dict()

    def load_additems(self) -> None:
        _check_keys(self.stack)
        super().load_additems()

    def load_frozenset(self) -> None:
        _check_keys(self.stack)
        super().load_frozenset()

    dispatch: ClassVar[dict[int, Any]] = dict(_PythonUnpickler.dispatch)
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.ADDITEMS[0]] = load_additems
    dispatch[pickle.FROZENSET[0]] = load_frozenset


class _ArrayUnpickler(_PlainUnpickler):
    """Also knows numpy's arrays and ordered dictionaries, and builds nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy as np

        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in ("_reconstruct", "scalar"):
            example: Any = np.zeros(0) if name == "_reconstruct" else np.float64(0)
            return example.__reduce__()[0]
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            in_protocol_5: Any = np.zeros(1).__reduce_ex__(5)
            return in_protocol_5[0]
        known = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("collections", "OrderedDict"): dict,
            ("_codecs", "encode"): _encode_latin,
        }
        return known.get((module, name)) or super().find_class(module, name)


def _encode_latin(text: str, encoding: str) -> bytes:
    """What Python 3 writes for bytes in a protocol that Python 2 reads."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes as {encoding!r}")
    return text.encode("latin-1")


def _check_keys(keys: list[Any]) -> None:
    if any(isinstance(key, (tuple, frozenset)) for key in keys):
        raise pickle.UnpicklingError("it has a key or an item of a set that is itself a container")


def load(path: Path) -> Any:
    """The value of a pickle of plain values, text of Python 2 read as latin-1 (as REFER's users do).

    Raises UsageError for a missing or truncated file, and for one that holds anything but plain values.
    """
    return _load(path, _PlainUnpickler, "plain values")


def load_arrays(path: Path) -> Any:
    """The same for values that may hold numpy arrays, as detectron2's `.pkl` files do."""
    return _load(path, _ArrayUnpickler, "plain values and arrays")


def _load(path: Path, unpickler: Any, allowed: str) -> Any:
    try:
        with path.open("rb") as file:
            return unpickler(file, encoding="latin1").load()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise UsageError(f"{path} is damaged or hostile: it needs more memory than there is") from error
    except Exception as error:  # hostile bytes make the unpickler raise nearly every class
        raise UsageError(f"{path} is not a pickle of {allowed}: {error}") from error


class PickleList:
    """A pickle of a list, written as a stream in protocol 2, the last that Python 2 reads. Use as a context manager.

    Items are built of dict, list, str, int and float. Ints beyond 32 bits are written so that Python 2 reads `int`, not
    `long`; dict keys are written once and memoised, which keeps the file and the reader's memory small.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("wb")
        self._file.write(pickle.PROTO + b"\x02" + pickle.EMPTY_LIST)
        self._keys: dict[str, int] = {}
        self._count = 0

    def append(self, item: Any) -> None:
        """Write one more item."""
        if self._count % _BATCH == 0:
            self._file.write(pickle.APPENDS + pickle.MARK if self._count else pickle.MARK)
        buffer = BytesIO()
        self._write(item, buffer)
        self._file.write(buffer.getbuffer())
        self._count += 1

    def __enter__(self) -> PickleList:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._file.write((pickle.APPENDS if self._count else b"") + pickle.STOP)
        self._file.close()

    def _write(self, value: Any, out: BytesIO) -> None:
        if type(value) is str:
            _write_text(value, out)
        elif type(value) is int:
            out.write(
                pickle.BININT + struct.pack("<i", value)
                if -(1 << 31) <= value < 1 << 31
                else pickle.INT + b"%d\n" % value
            )
        elif type(value) is float:
            out.write(pickle.BINFLOAT + struct.pack(">d", value))
        elif type(value) is list:
            out.write(pickle.EMPTY_LIST + pickle.MARK)
            for item in value:
                self._write(item, out)
            out.write(pickle.APPENDS)
        elif type(value) is dict:
            out.write(pickle.EMPTY_DICT + pickle.MARK)
            for key, item in value.items():
                self._write_key(key, out)
                self._write(item, out)
            out.write(pickle.SETITEMS)
        else:
            raise TypeError(f"{type(value).__name__} is not a plain value")

    def _write_key(self, key: str, out: BytesIO) -> None:
        memo = self._keys.get(key)
        if memo is not None:
            out.write(pickle.BINGET + bytes([memo]))
        elif len(self._keys) < 256:
            _write_text(key, out)
            self._keys[key] = memo = len(self._keys)
            out.write(pickle.BINPUT + bytes([memo]))
        else:
            _write_text(key, out)


def _write_text(text: str, out: BytesIO) -> None:
    data = text.encode("utf-8")
    out.write(pickle.BINUNICODE + struct.pack("<I", len(data)) + data)
