"""The format of `pa.serialize`, which pyarrow 12 removed, through pyarrow's public IPC: the values of ETRIS' LMDB files.

Layout, as pyarrow 10 and 11 write it: four int32 counts (tensors, sparse tensors, ndarrays, buffers; all 0 here), an
Arrow IPC stream of one batch with one row, zero bytes up to a multiple of 64. The row is a dense union whose children
are named by a decimal type tag. pyarrow's own `deserialize` unpickles objects that the bytes name; this reader never does.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

_COUNTS = bytes(16)
_NULL, _BOOL, _INT, _BYTES, _TEXT, _FLOAT, _LIST, _DICT, _TUPLE, _SET = (
    "0",
    "1",
    "2",
    "4",
    "5",
    "8",
    "10",
    "11",
    "12",
    "13",
)
_SCALARS = {
    _NULL: pa.null(),
    _BOOL: pa.bool_(),
    _INT: pa.int64(),
    _BYTES: pa.binary(),
    _TEXT: pa.utf8(),
    _FLOAT: pa.float64(),
}
_SEQUENCES = {_LIST: list, _TUPLE: tuple, _SET: set}
_PYTYPE = "_pytype_"
_MAX_DEPTH = 20
"""Levels of nested containers; each is several levels of Arrow types, of which Arrow's IPC reads 64."""


def encode(value: Any) -> bytes:
    """The bytes that `pa.serialize(value).to_buffer()` gave, identical except for the order of a set.

    Takes None, bool, int, float, str, bytes, list, tuple, set and dict, nested; raises ValueError for anything else.
    """
    root = _UnionBuilder()
    root.append(value, 0)
    batch = pa.record_batch([root.finish()], names=["list"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data = _COUNTS + sink.getvalue().to_pybytes()
    return data + bytes(-len(data) % 64)


def decode(data: bytes | memoryview, only: Collection[str] | None = None) -> Any:
    """The value of such bytes; with `only`, just these keys of a top-level dict are read.

    Raises ValueError for damaged bytes and for everything but plain values: tensors, buffers, arrays, pickled objects.
    """
    counts = bytes(data[:16])
    if len(counts) < 16:
        raise ValueError("too short for a pyarrow.serialize value")
    if counts != _COUNTS:
        raise ValueError("it holds tensors, arrays or buffers (or is no pyarrow.serialize value)")
    try:
        stream = memoryview(data)[16:]
        body = 8 + int.from_bytes(stream[4:8], "little")
        schema = _read_schema(bytes(stream[:body]))
        batch = pa.ipc.read_record_batch(pa.py_buffer(stream[body:]), schema)
        batch.validate(full=True)
        if batch.num_rows != 1:
            raise ValueError(f"{batch.num_rows} rows where pyarrow.serialize writes one")
        return _Union(batch.column(0)).value(0, only)
    except (pa.ArrowException, OSError, EOFError, OverflowError, TypeError, MemoryError) as error:
        raise ValueError(f"damaged Arrow stream: {error}") from error


class _UnionBuilder:
    """Values of one union: children appear in the order of their first use, after the null child."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.offsets: list[int] = []
        self.children: dict[str, Any] = {_NULL: []}

    def append(self, value: Any, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise ValueError(f"more than {_MAX_DEPTH} containers inside one another")
        tag, value = _tag(value)
        child = self.children.get(tag)
        if child is None:
            child = self.children[tag] = [] if tag in _SCALARS else _ListBuilder(is_dict=tag == _DICT)
        self.codes.append(list(self.children).index(tag))
        self.offsets.append(len(child))
        if isinstance(child, _ListBuilder):
            child.append(value, depth + 1)
        else:
            child.append(value)

    def finish(self) -> pa.Array:
        children = [
            child.finish() if isinstance(child, _ListBuilder) else pa.array(child, _SCALARS[tag])
            for tag, child in self.children.items()
        ]
        codes, offsets = pa.array(self.codes, pa.int8()), pa.array(self.offsets, pa.int32())
        return pa.UnionArray.from_dense(codes, offsets, children, list(self.children))


class _ListBuilder:
    """All lists (or dicts) at one node of the type tree, concatenated."""

    def __init__(self, is_dict: bool) -> None:
        self.ends = [0]
        self.items = _UnionBuilder()
        self.keys = _UnionBuilder() if is_dict else None

    def __len__(self) -> int:
        return len(self.ends) - 1

    def append(self, values: Any, depth: int) -> None:
        if self.keys is not None:
            for key in values:
                self.keys.append(key, depth)
            values = values.values()
        for value in values:
            self.items.append(value, depth)
        self.ends.append(self.ends[-1] + len(values))

    def finish(self) -> pa.Array:
        items = self.items.finish()
        if self.keys is not None:
            items = pa.StructArray.from_arrays([self.keys.finish(), items], names=["keys", "vals"])
        return pa.ListArray.from_arrays(pa.array(self.ends, pa.int32()), items)


def _tag(value: Any) -> tuple[str, Any]:
    """The tag of a value and the value to write under it. bool is tested before int, its base class."""
    if value is None:
        return _NULL, None
    if isinstance(value, (bool, np.bool_)):
        return _BOOL, bool(value)
    if isinstance(value, (int, np.integer)):
        number = int(value)
        if -(1 << 63) <= number < 1 << 63:
            return _INT, number
        return _DICT, {"data": str(number), _PYTYPE: "int"}
    if isinstance(value, dict) and _PYTYPE in value:
        raise ValueError(f"a dict with the key {_PYTYPE!r} would be read as a pickled object")
    for kind, tag in (
        (bytes, _BYTES),
        (str, _TEXT),
        (float, _FLOAT),
        (list, _LIST),
        (dict, _DICT),
        (tuple, _TUPLE),
        (set, _SET),
    ):
        if isinstance(value, kind):
            return tag, value
    raise ValueError(f"{type(value).__name__} is not a plain value")


@lru_cache(maxsize=64)
def _read_schema(message: bytes) -> pa.Schema:
    """A checked schema from its IPC message, cached: all records of an LMDB file share a few schemas."""
    schema = pa.ipc.read_schema(pa.py_buffer(message))
    if len(schema) != 1:
        raise ValueError("its Arrow stream is not pyarrow.serialize's")
    _check_union(schema.field(0).type, 0)
    return schema


def _check_union(union: pa.DataType, depth: int) -> None:
    """Raise ValueError unless only the types of plain values occur, so that no extension type is ever built."""
    if not pa.types.is_union(union) or union.mode != "dense" or union.type_codes != list(range(union.num_fields)):
        raise ValueError("its Arrow type is not pyarrow.serialize's")
    if depth > _MAX_DEPTH:
        raise ValueError(f"more than {_MAX_DEPTH} containers inside one another")
    for child in (union.field(i) for i in range(union.num_fields)):
        if child.name in _SCALARS and child.type == _SCALARS[child.name]:
            continue
        if pa.types.is_list(child.type) and child.name in _SEQUENCES:
            _check_union(child.type.value_type, depth + 1)
        elif pa.types.is_list(child.type) and child.name == _DICT:
            struct = child.type.value_type
            if not pa.types.is_struct(struct) or [field.name for field in struct] != ["keys", "vals"]:
                raise ValueError("a dict is not made of keys and values")
            for field in struct:
                _check_union(field.type, depth + 1)
        else:
            raise ValueError(f"it holds a value of type {child.type} under tag {child.name!r}, which is no plain value")


class _Union:
    """Reads one union. The buffers of an empty one are never accessed: pyarrow 26 ends in a segmentation fault there."""

    def __init__(self, array: pa.UnionArray) -> None:
        self._array = array
        self._codes = array.type_codes.to_numpy().tolist() if len(array) else []
        self._offsets = array.offsets.to_numpy().tolist() if len(array) else []
        self._children: list[_Scalars | _Lists | None] = [None] * array.type.num_fields
        used = [0] * array.type.num_fields
        for code, offset in zip(self._codes, self._offsets, strict=True):
            if offset != used[code]:
                raise ValueError("one value is referenced several times, which pyarrow.serialize never writes")
            used[code] += 1

    def _child(self, code: int) -> _Scalars | _Lists:
        child = self._children[code]
        if child is None:
            tag, array = self._array.type.field(code).name, self._array.field(code)
            child = self._children[code] = _Scalars(array, tag) if tag in _SCALARS else _Lists(array, tag)
        return child

    def value(self, index: int, only: Collection[str] | None = None) -> Any:
        child, offset = self._child(self._codes[index]), self._offsets[index]
        return child.dictionary(offset, only) if isinstance(child, _Lists) and only is not None else child.value(offset)


class _Scalars:
    """Reads one scalar child. Binaries are large and converted one by one; nulls are never read, as they may claim any length."""

    def __init__(self, array: pa.Array, tag: str) -> None:
        if tag != _NULL and array.null_count:
            raise ValueError("a null where a value belongs")
        self._binaries = array if tag == _BYTES else None
        self._values = None if tag in (_NULL, _BYTES) else array.to_pylist()

    def value(self, index: int) -> Any:
        if self._binaries is not None:
            return self._binaries[index].as_py()
        return None if self._values is None else self._values[index]


class _Lists:
    """Reads the lists, tuples, sets or dicts at one node of the type tree."""

    def __init__(self, array: pa.ListArray, tag: str) -> None:
        if array.null_count:
            raise ValueError("a null where a list belongs")
        self._tag = tag
        self._ends = array.offsets.to_numpy().tolist()
        items = array.values
        self._keys = _Union(items.field(0)) if tag == _DICT else None
        self._items = _Union(items.field(1) if tag == _DICT else items)

    def value(self, index: int) -> Any:
        if self._keys is not None:
            return self.dictionary(index, None)
        items = (self._items.value(i) for i in range(self._ends[index], self._ends[index + 1]))
        return _SEQUENCES[self._tag](items)

    def dictionary(self, index: int, only: Collection[str] | None) -> Any:
        if self._keys is None:
            raise ValueError("it is not a dict")
        start, stop = self._ends[index], self._ends[index + 1]
        keys = [self._keys.value(i) for i in range(start, stop)]
        if not all(isinstance(key, Hashable) for key in keys) or len(set(keys)) != len(keys):
            raise ValueError("a dict has a key twice, or one that cannot be a key")
        if _PYTYPE in keys:
            value = {key: self._items.value(i) for key, i in zip(keys, range(start, stop), strict=True)}
            if list(value) == ["data", _PYTYPE] and value[_PYTYPE] == "int" and isinstance(value["data"], str):
                return int(value["data"])
            raise ValueError(f"it holds a pickled object ({value[_PYTYPE]!r:.40}); refusing to run it")
        return {
            key: self._items.value(i)
            for key, i in zip(keys, range(start, stop), strict=True)
            if only is None or key in only
        }
