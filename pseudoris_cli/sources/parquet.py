"""Parquet files with images in them: the Image feature of `datasets` (`image {bytes, path}`), or a column of bytes.

A key is `<file>/<row group>/<row>`, and the path where the row names one. A row group is read from its beginning, a few rows
at a time, so that one of any size fits in memory and images in plan order are read once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pseudoris_cli.codecs.foreign_names import is_text, plain_name
from pseudoris_cli.errors import UsageError
from pseudoris_cli.places.addresses import is_pattern
from pseudoris_cli.places.base import Place, PlaceFile, Stream, open_place
from pseudoris_cli.records import ImageRef, Stamp
from pseudoris_cli.sources.base import MAX_BYTES, image_id_of
from pseudoris_cli.sources.containers import Containers, Recent, Unreadable, first_file, relocated

DETECT_ORDER = 70
OPEN = 2
"""Row groups at work in each process."""
KEPT = 4
"""Batches of rows held of each: threads read a little out of order."""
BATCH_BYTES = 8 << 20
MOST_ROWS = 256
_SUFFIXES = (".parquet", ".pq", ".parq")
_SPLIT = re.compile(r"(?:^|/)([A-Za-z_]\w*?)(?:-\d+-of-\d+)?(?:-[0-9a-f]{16})?\.(?:parquet|pq|parq)$")
_SHARDED = re.compile(r"-\d{4,}-of-\d{4,}")
_USUAL = "image"


class ParquetFiles(Containers):
    """The images of Parquet files; of a folder laid out by `datasets` those of one split."""

    suffixes = _SUFFIXES
    noun = "Parquet"

    def __init__(self, root: Path | str, options: dict[str, str]) -> None:
        super().__init__(root, options)
        self._groups: Recent[_Rows] = Recent(OPEN)

    def chosen(self, names: list[str]) -> list[str]:
        """The files of the split. UsageError names those that there are."""
        split = self.options.get("split", "all")
        found = splits(names)
        if split != "all" and names and split not in found.values():
            raise UsageError(
                f"{self.root} has no split {split!r}; it has {', '.join(sorted(set(found.values())))}, or all (--source-split)"
            )
        return [name for name in names if split == "all" or found[name] == split]

    def make_index(self, name: str) -> dict[str, Any]:
        file = self.place.open(name)
        try:
            with _explained():
                parquet = _open(file)
                column = _checked_column(parquet.schema_arrow, self.options["column"])
                return _index_of(parquet, column)
        finally:
            file.close()

    def refs(self, name: str, index: dict[str, Any]) -> Iterator[ImageRef]:
        for group, count in enumerate(index.get("rows", ())):
            for row in range(count):
                own = index["names"][group][row] if index["names"] else None
                key = f"{name}/{group}/{row}" + (f"/{own}" if own else "")
                wanted = index["ids"][group][row] if index["ids"] else None
                yield ImageRef(key, image_id_of(key) if wanted is None else wanted, key, own)

    def find(self, index: dict[str, Any], inner: str) -> tuple[int, int] | None:
        group, row, own = [*inner.split("/", 2), "", ""][:3]
        if not (group.isdecimal() and row.isdecimal()):
            return None
        rows = index.get("rows", ())
        if not (int(group) < len(rows) and int(row) < rows[int(group)]):
            return None
        known = index["names"][int(group)][int(row)] if index["names"] else None
        return (int(group), int(row)) if (known or "") == own else None

    def fetch(self, name: str, stamp: Stamp, spot: tuple[int, int]) -> bytes:
        group, row = spot
        with self._lock:
            rows = self._groups.get(
                (name, stamp, group), lambda: _Rows(self.place, name, self.options["column"], group)
            )
            value = rows.value(row)
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is None and isinstance(value, dict) and value.get("path"):
            raise OSError(
                "the row holds only the path of a picture; embed the pictures (`datasets` does in push_to_hub)"
            )
        if data is None:
            raise OSError("the row holds no picture (null)")
        if len(data) > MAX_BYTES:
            raise OSError(f"{len(data):,} bytes are more than an image has")
        return bytes(data)


class _Rows:
    """The pictures of one row group, read in order; going back further than a few batches begins again."""

    def __init__(self, place: Place, name: str, column: str, group: int) -> None:
        self._place, self._name, self._column, self._group = place, name, column, group
        self._file: PlaceFile | None = None
        self._failure: str | None = None
        self._begin()

    def value(self, row: int) -> Any:
        """The picture of a row, as its column has it. OSError with the reason if the row group is damaged."""
        if self._failure:
            raise OSError(self._failure)
        try:
            with _explained():
                return self._value(row)
        except Unreadable as error:
            self._failure = f"row group {self._group} of the Parquet file is damaged: {error}"
            raise OSError(self._failure) from error

    def _begin(self) -> None:
        self._kept: list[tuple[int, pa.Array]] = []
        self._next = 0
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._begun = False

    def _value(self, row: int) -> Any:
        if self._kept and row < self._kept[0][0]:
            self._begin()
        while True:
            for first, values in self._kept:
                if first <= row < first + len(values):
                    return values[row - first].as_py()
            if not self._begun:
                self._batches, self._begun = self._read(), True
            batch = next(self._batches, None)
            if batch is None:
                raise Unreadable("it ends before its last row")
            self._kept = [*self._kept[1 - KEPT :], (self._next, batch.column(0))]
            self._next += batch.num_rows

    def _read(self) -> Iterator[pa.RecordBatch]:
        if self._file is None:
            self._file = self._place.open(self._name)
        parquet = _open(self._file)
        leaves = _leaves(parquet, self._column, self._group)
        size = sum(leaves.values()) / max(1, parquet.metadata.row_group(self._group).num_rows)
        rows = int(min(MOST_ROWS, max(1, BATCH_BYTES // max(1, size))))
        return parquet.iter_batches(rows, row_groups=[self._group], columns=list(leaves), use_threads=False)


class _explained:
    """Turns what Arrow says of a damaged file into Unreadable; errors of the place go through as they are."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        said = (str(error).strip().splitlines() or [""])[0][:200]
        if isinstance(error, pa.ArrowException) or (type(error) is OSError and error.errno is None):
            raise Unreadable("encrypted" if "crypt" in said.lower() else said) from error


def _open(file: PlaceFile) -> pq.ParquetFile:
    return pq.ParquetFile(Stream(file), buffer_size=1 << 20, pre_buffer=False)


def _leaves(parquet: pq.ParquetFile, column: str, group: int) -> dict[str, int]:
    """The leaf columns of a picture and their bytes in a row group."""
    meta = parquet.metadata.row_group(group)
    chunks = [meta.column(number) for number in range(meta.num_columns)]
    return {
        chunk.path_in_schema: chunk.total_uncompressed_size
        for chunk in chunks
        if chunk.path_in_schema in (column, f"{column}.bytes", f"{column}.path")
    }


def _index_of(parquet: pq.ParquetFile, column: str) -> dict[str, Any]:
    schema, groups = parquet.schema_arrow, range(parquet.metadata.num_row_groups)
    is_struct = pa.types.is_struct(schema.field(column).type)
    has_path = is_struct and schema.field(column).type.get_field_index("path") >= 0
    kind = schema.field("id").type if "id" in schema.names else None
    numbered = kind is not None and pa.types.is_integer(kind)
    named = kind is not None and not numbered and (pa.types.is_string(kind) or pa.types.is_large_string(kind))
    names: list[list[str | None]] = []
    ids: list[list[int | None]] = []
    for group in groups:
        columns = ([f"{column}.path"] if has_path else []) + (["id"] if numbered or named else [])
        table = parquet.read_row_group(group, columns=columns, use_threads=False) if columns else None
        own = table.column("id").to_pylist() if table is not None and kind is not None and (numbered or named) else []
        if table is not None and has_path:
            paths = [_name((value or {}).get("path")) for value in table.column(column).to_pylist()]
            names.append([path or (_name(other) if named else None) for path, other in _zipped(paths, own)])
        elif named:
            names.append([_name(value) for value in own])
        if numbered:
            ids.append([value if value is not None and 0 <= value < 1 << 63 else None for value in own])
    rows = [parquet.metadata.row_group(group).num_rows for group in groups]
    return {"rows": rows, "names": names, "ids": ids, "left_out": {}}


def _zipped(paths: list[str | None], own: list[Any]) -> Iterator[tuple[str | None, Any]]:
    return zip(paths, own or [None] * len(paths), strict=True)


def _name(path: Any) -> str | None:
    """What a row calls its picture, as the end of a key: no root, no host, and nothing that leads upwards."""
    if not isinstance(path, str) or not is_text(path):
        return None
    return plain_name(path) or None


def splits(names: list[str]) -> dict[str, str]:
    """The split of each file, by its name as `datasets` writes it, else by its folder (`train/0.parquet`), else `train`."""
    found = {}
    for name in names:
        match = _SPLIT.search(name)
        folder = name.rpartition("/")[0].rpartition("/")[2]
        sharded = match and (_SHARDED.search(name) or match[1] in _NAMED)
        found[name] = match[1] if match and sharded else folder if folder in _NAMED else "train"
    return found


_NAMED = frozenset({"train", "validation", "valid", "val", "test", "dev"})


def image_columns(schema: pa.Schema) -> list[str]:
    """The columns that may hold pictures: bytes, or a struct with `bytes`."""
    return [field.name for field in schema if _fits(field.type)]


def _fits(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _checked_column(schema: pa.Schema, column: str) -> str:
    if column in image_columns(schema):
        return column
    raise Unreadable(f"without a column {column!r} of pictures; they have {', '.join(schema.names)}")


def detects(path: Path) -> bool:
    """A Parquet file by its name, or a folder whose first Parquet file, there or one level below, has a column of pictures."""
    if not path.is_dir():
        return path.is_file() and path.name.lower().endswith(_SUFFIXES)
    first = first_file(path, _SUFFIXES)
    try:
        return first is not None and bool(image_columns(pq.read_schema(first)))
    except (OSError, pa.ArrowException):
        return False


def detects_address(address: str) -> bool:
    """A URL or a pattern that stands for Parquet files."""
    return bool(open_place(address).names(_SUFFIXES))


def open_source(root: Path | str, options: dict[str, Any], image_root: Path | str | None) -> ParquetFiles:
    """Open a Parquet file, a folder of them, a pattern or a URL; `image_root` says where they lie now.

    Options: `column`, by default `image` or the only one that fits; `split`, by default `train` or the only one
    of a folder; `all` takes all, and is the default where files are named.
    """
    place_root = relocated(root, image_root, _SUFFIXES)
    if "column" in options and "split" in options:
        return ParquetFiles(place_root, options)
    place = open_place(place_root)
    names = place.names(_SUFFIXES)
    named = is_pattern(str(place_root)) or (isinstance(place_root, Path) and place_root.is_file())
    split = options.get("split") or ("all" if named else _usual_split(splits(names), root))
    column = _column(place, names, options.get("column"), root)
    return ParquetFiles(place_root, {"column": column, "split": split})


def _usual_split(found: dict[str, str], root: Path | str) -> str:
    there = Counter(found.values())
    if len(there) < 2:
        return next(iter(there), "train")
    if "train" in there:
        return "train"
    raise UsageError(f"{root} has the splits {', '.join(sorted(there))}; say which with --source-split, or all")


def _column(place: Place, names: list[str], wanted: str | None, root: Path | str) -> str:
    """The column of pictures, told from the first file that can be read. UsageError where it cannot be told."""
    for name in names:
        try:
            file = place.open(name)
            with _explained():
                schema = _open(file).schema_arrow
        except (Unreadable, OSError):
            continue
        fitting = image_columns(schema)
        chosen = wanted or (_USUAL if _USUAL in fitting else fitting[0] if len(fitting) == 1 else None)
        if chosen in fitting:
            return chosen
        which = (
            f"no column {wanted!r} of pictures" if wanted else f"{len(fitting) or 'no'} columns that may hold pictures"
        )
        raise UsageError(
            f"{root}: {name} has {which} (bytes, or a struct with `bytes`); it has {', '.join(schema.names)}: name the one with "
            "--source-column"
        )
    return wanted or _USUAL
