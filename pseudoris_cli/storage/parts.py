"""Parts: Parquet files of one part of the plan, published complete or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pseudoris_cli.errors import EnvironmentStop
from pseudoris_cli.storage import files, schema

HEADER_KEY = b"pseudoris"
_NAME = re.compile(r"part-(\d+)-g(\d+)-(?P<writer>[a-z0-9-]+)\.parquet")
_TEMPORARY = re.compile(r"\.part-\d+-g\d+-(?P<writer>[a-z0-9-]+)\.parquet\.tmp")


@dataclass(frozen=True, slots=True)
class PartFile:
    """A published part: its name, rows, bytes and sha256."""

    name: str
    rows: int
    bytes: int
    sha256: str


def part_name(part: int, generation: int, writer: str) -> str:
    """The file name of a part; a redo has a new generation, so a listed file is never overwritten."""
    return f"part-{part:06d}-g{generation}-{writer}.parquet"


def writer_of(name: str) -> str | None:
    """The writer of a part file or of its temporary file; None for any other file."""
    match = _NAME.fullmatch(name) or _TEMPORARY.fullmatch(name)
    return match["writer"] if match else None


def write_part(folder: Path, name: str, stage: str, columns: dict[str, Any], header: dict[str, Any]) -> PartFile:
    """Write and publish one part. `header` (the artifact's) goes into the Parquet metadata.

    The steps are those of `storage.files`; after an error nothing is left behind.
    """
    table = schema.to_table(stage, columns)
    table = table.replace_schema_metadata({HEADER_KEY: json.dumps(header, sort_keys=True).encode()})
    temporary = folder / f".{name}.tmp"
    files.write_temporary(temporary, lambda file: pq.write_table(table, file, compression="zstd"))
    try:
        digest, size = digest_of(temporary), temporary.stat().st_size
        files.sync_file(temporary)
        files.publish(temporary, folder / name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    files.sync_folder(folder)
    return PartFile(name, table.num_rows, size, digest)


def digest_of(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_part(path: Path, columns: list[str] | None = None, sha256: str | None = None) -> dict[str, Any]:
    """Columns of a part (see schema.from_table).

    Raises EnvironmentStop if the file is missing, damaged, or has another digest than `sha256`.
    """
    try:
        data = path.read_bytes()
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise pa.ArrowInvalid("its bytes are not those that the manifest lists")
        return schema.from_table(pq.ParquetFile(pa.BufferReader(data)).read(columns=columns))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise EnvironmentStop(
            f"{path} cannot be read ({str(error).splitlines()[0]}); `pseudoris status --verify` finds damaged parts "
            "and running the stage again redoes them"
        ) from error


def read_header(path: Path) -> dict[str, Any]:
    """The artifact header in a part's metadata."""
    return json.loads((pq.read_schema(path).metadata or {}).get(HEADER_KEY, b"{}"))


def remove_strays(folder: Path, writer: str, listed: set[str]) -> list[str]:
    """Delete this writer's files that its manifest does not list (a crash left them, or a redo superseded them)."""
    removed = []
    for entry in os.scandir(folder):
        if writer_of(entry.name) == writer and entry.name not in listed:
            Path(entry.path).unlink(missing_ok=True)
            removed.append(entry.name)
    return sorted(removed)
