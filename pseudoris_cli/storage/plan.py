"""The plan: which images make which part. Appended by the masks stage, never recut."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Any

from pseudoris_cli.errors import EnvironmentStop
from pseudoris_cli.records import ImageRef
from pseudoris_cli.storage import files
from pseudoris_cli.storage.locks import exclusive

PLAN = "plan.jsonl"
"""The plan of a run over the whole source; pilots have plans of their own."""
WAIT_SECONDS = 600
"""Seconds to wait for another process that is planning: the shards of a job array start together."""


def pilot_plan(images: int) -> str:
    """The name of the plan of a pilot of so many images."""
    return f"plan-pilot-{images}.jsonl"


def pilot_of(plan_name: str) -> str | None:
    """`pilot-8` for the plan of a pilot of 8 images, None for that of a run over the whole source."""
    return None if plan_name == PLAN else plan_name.removeprefix("plan-").removesuffix(".jsonl")


def images_of(plan_name: str) -> int | None:
    """How many images a pilot was to have; None for a run over the whole source."""
    pilot = pilot_of(plan_name)
    return int(pilot.removeprefix("pilot-")) if pilot else None


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """A part of the plan; its images are read from the file when they are needed."""

    part: int
    count: int
    offset: int
    length: int


class Plan:
    """The parts of `plan.jsonl`, one line each: {"part": id, "images": [[key, image_id, file_name?, name?], ...]}.

    Memory does not grow with the number of images, only with that of parts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reload()

    def reload(self) -> None:
        """Read the file anew. EnvironmentStop if it is damaged: every part's meaning hangs on it."""
        self.parts: list[PlannedPart] = []
        for offset, length, record in files.read_lines(self.path):
            self._add(record or {}, offset, length)

    def _add(self, record: dict[str, Any], offset: int, length: int) -> None:
        part, images = record.get("part"), record.get("images")
        if part != len(self.parts) or not isinstance(images, list):
            raise EnvironmentStop(
                f"{self.path} is damaged at byte {offset} (part {len(self.parts)} was expected there); "
                "restore it from a copy, or begin in another work directory (--work)"
            )
        self.parts.append(PlannedPart(part, len(images), offset, length))

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def image_count(self) -> int:
        """Images in all parts."""
        return sum(part.count for part in self.parts)

    def images(self, part: int) -> list[ImageRef]:
        """The images of a part, in order."""
        planned = self.parts[part]
        return [_reference(row) for row in files.read_line(self.path, planned.offset, planned.length)["images"]]

    def all_images(self) -> Iterator[ImageRef]:
        """Every planned image in plan order."""
        for planned in self.parts:
            yield from self.images(planned.part)

    def locked(self, purpose: str) -> AbstractContextManager[None]:
        """Keep others from planning."""
        return exclusive(self.path.with_suffix(".lock"), purpose, WAIT_SECONDS)

    def extend(self, images: Iterable[ImageRef], part_size: int, limit: int | None = None, leader: bool = True) -> int:
        """Append parts for the images that are not planned yet, so that the plan holds at most `limit`; returns how many.

        Of many processes that begin together only one, the leader, need list the images: the others wait until nobody is
        planning and take what is there, if anything is.
        """
        if not leader:
            with files.os_errors_as_stop(self.path.parent), self.locked("waiting"):
                pass  # reading takes long for millions of images, and needs no lock
            self.reload()
            if self.parts:
                return 0
        with files.os_errors_as_stop(self.path.parent), self.locked("planning"):
            files.cut_torn_line(self.path)
            self.reload()  # another writer may have planned meanwhile
            known = {_fingerprint(image.key) for image in self.all_images()}
            free = None if limit is None else max(0, limit - len(known))
            return self._append(islice(_new(images, known), free), part_size)

    def append_part(self, images: Sequence[ImageRef]) -> None:
        """Append one part with these images, which are known to be new; for a plan that nobody else works on."""
        self._append(iter(images), max(1, len(images)))

    def _append(self, images: Iterator[ImageRef], part_size: int) -> int:
        added = 0
        chunk = list(islice(images, part_size))
        if not chunk:
            return 0
        with FileIO(self.path, "ab") as file:
            while chunk:
                record = {"part": len(self.parts), "images": [_row(image) for image in chunk]}
                offset = files.append_line(file, record)
                self._add(record, offset, file.tell() - offset)
                added += len(chunk)
                chunk = list(islice(images, part_size))
            files.sync_line(file)
        files.sync_folder(self.path.parent)
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
    if image.name is not None:
        return [*row, image.file_name, image.name]
    return row if image.file_name == image.key else [*row, image.file_name]


def _reference(row: list[Any]) -> ImageRef:
    return ImageRef(row[0], row[1], row[2] if len(row) > 2 else row[0], row[3] if len(row) > 3 else None)
