"""The manifest: what is done. One appended line per committed part; a part file without a line does not exist."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from pseudoris_cli.records import ImageStatus
from pseudoris_cli.storage import files, parts
from pseudoris_cli.storage.locks import exclusive
from pseudoris_cli.storage.parts import PartFile

STATUSES: tuple[ImageStatus, ...] = ("done", "empty", "failed", "gone")
SCAN_FRACTION = 0.01
"""Fraction of the time that may go into looking for manifests of new writers: the folder holds one file per part."""


@dataclass(frozen=True, slots=True)
class ImageOutcome:
    """What became of one image. size, mtime_ns and sha256 are those of the bytes that were read; absent where none were."""

    key: str
    status: ImageStatus
    rows: int = 0
    error: str | None = None
    size: int | None = None
    mtime_ns: int | None = None
    sha256: str | None = None

    def record(self) -> dict[str, Any]:
        """Compact form for the manifest: only what is known."""
        return {name: value for name, value in asdict(self).items() if value is not None and (name != "rows" or value)}


@dataclass(frozen=True, slots=True)
class PartEntry:
    """One line of a manifest, without its images (they are read when needed)."""

    part: int
    generation: int
    file: PartFile
    upstream: str | None
    counts: dict[str, int]
    notes: dict[str, Any]
    seconds: float
    committed: float
    line: tuple[Path, int, int] = field(repr=False)
    """Manifest, offset and length of the line."""

    @property
    def images(self) -> list[ImageOutcome]:
        """What became of each image of the part."""
        path, offset, length = self.line
        return [ImageOutcome(**row) for row in files.read_line(path, offset, length)["images"]]


_FIELDS = ("part", "generation", "upstream", "counts", "notes", "seconds", "committed")


def writer_name(shard: tuple[int, int] | None) -> str:
    """The name of a run's manifest: `main`, or one per shard."""
    return "main" if shard is None else f"shard-{shard[0]}-of-{shard[1]}"


class Manifest:
    """The union of all manifests of one version: for each part its newest generation.

    Equal generations written by two overlapping runs hold equal rows; the first in order of writer name is taken, so that
    every reader takes the same. A damaged line is as good as none (its part is done again); `damaged` counts them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[int, PartEntry] = {}
        self.damaged = 0
        self._read_to: dict[Path, int] = {}
        self._next_scan = -math.inf
        self.refresh()

    def refresh(self) -> None:
        """Read what other writers have appended since."""
        if (started := time.monotonic()) >= self._next_scan:
            self._read_to = {path: self._read_to.get(path, 0) for path in sorted(self.folder.glob("manifest-*.jsonl"))}
            now = time.monotonic()
            self._next_scan = now + (now - started) / SCAN_FRACTION
        for path, start in self._read_to.items():
            for offset, length, record in files.read_lines(path, start):
                entry = _entry(record, (path, offset, length))
                if entry:
                    self.add(entry)
                else:
                    self.damaged += 1
                self._read_to[path] = offset + length

    def add(self, entry: PartEntry) -> None:
        """Take an entry into account."""
        path, offset, length = entry.line
        if self._read_to.get(path, 0) == offset:
            self._read_to[path] = offset + length
        known = self.entries.get(entry.part)
        if known is None or (-entry.generation, entry.file.name) < (-known.generation, known.file.name):
            self.entries[entry.part] = entry

    def path_of(self, entry: PartEntry) -> Path:
        """The part file of an entry."""
        return self.folder / entry.file.name

    def is_intact(self, entry: PartEntry, digest: bool = False) -> bool:
        """Whether the part file is there with the listed size (and digest)."""
        path = self.path_of(entry)
        try:
            if path.stat().st_size != entry.file.bytes:
                return False
            return not digest or parts.digest_of(path) == entry.file.sha256
        except OSError:
            return False

    def counts(self) -> dict[str, int]:
        """Images by status, over all parts."""
        total: dict[str, int] = dict.fromkeys(STATUSES, 0)
        for entry in self.entries.values():
            for status, count in entry.counts.items():
                total[status] += count
        return total

    def failures(self) -> Iterator[ImageOutcome]:
        """Every failed or vanished image, in plan order."""
        for _, entry in sorted(self.entries.items()):
            if entry.counts.get("failed") or entry.counts.get("gone"):
                yield from (image for image in entry.images if image.status in ("failed", "gone"))


class ManifestWriter:
    """The only writer of one manifest, as a context manager: holds the lock, cleans up after a crash, and commits parts."""

    def __init__(self, folder: Path, stage: str, writer: str, header: dict[str, Any]) -> None:
        self.folder, self.stage, self.writer, self.header = folder, stage, writer, header
        self.path = folder / f"manifest-{writer}.jsonl"
        self._stack = ExitStack()

    def __enter__(self) -> ManifestWriter:
        with ExitStack() as stack:
            stack.enter_context(exclusive(self.folder / f"manifest-{self.writer}.lock", f"{self.stage}, {self.writer}"))
            self.cut = files.cut_torn_line(self.path)
            self.manifest = Manifest(self.folder)
            listed = {entry.file.name for entry in self.manifest.entries.values()}
            self.removed = parts.remove_strays(self.folder, self.writer, listed)
            self._file = stack.enter_context(FileIO(self.path, "ab"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def commit(
        self,
        part: int,
        columns: dict[str, Any],
        images: Sequence[ImageOutcome],
        upstream: str | None,
        notes: dict[str, Any],
        seconds: float,
    ) -> PartEntry:
        """Publish a part and list it. A redo gets the next generation; the file it supersedes is then deleted."""
        old = self.manifest.entries.get(part)
        generation = old.generation + 1 if old else 0
        name = parts.part_name(part, generation, self.writer)
        file = parts.write_part(self.folder, name, self.stage, columns, self.header)
        counts = {status: n for status in STATUSES if (n := sum(image.status == status for image in images))}
        record = {
            "part": part,
            "generation": generation,
            "file": asdict(file),
            "upstream": upstream,
            "counts": counts,
            "notes": notes,
            "seconds": round(seconds, 3),
            "committed": round(time.time(), 3),
            "images": [image.record() for image in images],
        }
        offset = files.append_line(self._file, record)
        files.sync_line(self._file)
        entry = _entry(record, (self.path, offset, self._file.tell() - offset))
        assert entry is not None
        self.manifest.add(entry)
        if old and parts.writer_of(old.file.name) == self.writer:
            self.manifest.path_of(old).unlink(missing_ok=True)
        return entry


def _entry(record: dict[str, Any] | None, line: tuple[Path, int, int]) -> PartEntry | None:
    """The entry of a line; None if the line is damaged."""
    try:
        fields = {name: record[name] for name in _FIELDS}  # type: ignore[index]
        return PartEntry(**fields, file=PartFile(**record["file"]), line=line)  # type: ignore[index]
    except (KeyError, TypeError):
        return None
