"""Pictures packed into tars and Parquet files, as img2dataset and `datasets` do, and one such kind of source after the other."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

KINDS = ("webdataset", "parquet")
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    """A member for `write_tar`."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, target
    return info, data


def write_tar(path: Path, members: Iterable[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.GNU_FORMAT) -> Path:
    """A tar of these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


def write_parquet(
    path: Path, pictures: Sequence[Mapping[str, Any] | None], group: int = 3, **columns: list[Any]
) -> Path:
    """A Parquet file with an `image` column as `datasets` writes it, `group` rows a row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": pa.array(list(pictures), IMAGE), **columns})
    pq.write_table(table, path, row_group_size=group)
    return path


def pack(kind: str, pictures: Mapping[str, bytes], folder: Path, each: int = 4) -> Path:
    """Pictures by name in files of `each`; returns what `--images` takes."""
    names = list(pictures)
    for number, first in enumerate(range(0, len(names), each)):
        chosen = names[first : first + each]
        if kind == "parquet":
            rows = [{"bytes": pictures[name], "path": name} for name in chosen]
            write_parquet(folder / "data" / f"train-{number:05}-of-00003.parquet", rows)
            continue
        sample = [
            one
            for name in chosen
            for stem in [name.partition(".")[0]]
            for one in (
                member(name, pictures[name]),
                member(f"{stem}.txt", b"a caption"),
                member(f"{stem}.json", json.dumps({"key": stem, "status": "success"}).encode()),
            )
        ]
        write_tar(folder / f"{number:05}.tar", sample)
        write_parquet(folder / f"{number:05}.parquet", [])  # img2dataset's rows of statuses lie beside each tar
    return folder


def pictures_in(folder: Path) -> dict[str, bytes]:
    """The files of a folder by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
