"""The plan: which images make which part. Appended by the masks stage, never recut."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import ImageRef
from pseudoris_cli.storage import files
from pseudoris_cli.storage.locks import exclusive


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """A part of the plan; its images are read from the file when they are needed."""

    part: int
    count: int
    offset: int
    length: int


class Plan:
    """The parts of `plan.jsonl`, one line each: {"part": id, "images": [[key, image_id, file_name?], ...]}.

    Memory does not grow with the number of images, only with that of parts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts: list[PlannedPart] = []
        for offset, length, record in files.read_lines(path):
            self._admit(record["part"], len(record["images"]), offset, length)

    def _admit(self, part: int, count: int, offset: int, length: int) -> None:
        if part != len(self.parts):
            raise UsageError(f"{self.path} is damaged: part {part} where {len(self.parts)} was expected")
        self.parts.append(PlannedPart(part, count, offset, length))

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def image_count(self) -> int:
        """Images in all parts."""
        return sum(part.count for part in self.parts)

    def images(self, part: int) -> list[ImageRef]:
        """The images of a part, in order."""
        place = self.parts[part]
        return [_reference(row) for row in files.read_line(self.path, place.offset, place.length)["images"]]

    def all_images(self) -> Iterator[ImageRef]:
        """Every planned image in plan order."""
        for _, _, record in files.read_lines(self.path):
            yield from map(_reference, record["images"])

    def extend(self, images: Iterable[ImageRef], part_size: int, limit: int | None = None) -> int:
        """Append parts for the images that are not planned yet, so that the plan holds at most `limit`; returns how many."""
        with exclusive(self.path.with_suffix(".lock"), "planning"):
            files.cut_torn_line(self.path)
            self.__init__(self.path)  # type: ignore[misc]  # another writer may have planned meanwhile
            known = {_fingerprint(image.key) for image in self.all_images()}
            room = None if limit is None else max(0, limit - len(known))
            return self._append(islice(_new(images, known), room), part_size)

    def _append(self, images: Iterator[ImageRef], part_size: int) -> int:
        added = 0
        chunk = list(islice(images, part_size))
        if not chunk:
            return 0
        with self.path.open("ab") as file:
            while chunk:
                record = {"part": len(self.parts), "images": [_row(image) for image in chunk]}
                offset = files.append_line(file, record)
                self._admit(record["part"], len(chunk), offset, file.tell() - offset)
                added += len(chunk)
                chunk = list(islice(images, part_size))
            files.sync_line(file)
        return added


def _new(images: Iterable[ImageRef], known: set[int]) -> Iterator[ImageRef]:
    """The images whose key was not seen before; a key listed twice counts once."""
    for image in images:
        mark = _fingerprint(image.key)
        if mark not in known:
            known.add(mark)
            yield image


def _fingerprint(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def _row(image: ImageRef) -> list[Any]:
    row: list[Any] = [image.key, image.image_id]
    return row if image.file_name == image.key else [*row, image.file_name]


def _reference(row: list[Any]) -> ImageRef:
    return ImageRef(row[0], row[1], row[2] if len(row) > 2 else row[0])
