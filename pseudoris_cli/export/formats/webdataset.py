"""`webdataset`: tar files that the `webdataset` package and `datasets` stream.

    <split>-<000000>.tar                shards of about `--shard-mb` megabytes

A picture is two members with one key, its image id: `KEY.jpg`, the image file as it is (whatever its kind, since `datasets` wants
the same members for every key; decoders look at the bytes), and `KEY.json`, the row of `hf` without the picture. With `--images
none` there is the JSON alone. `doc` and `listener` are left out where they are undefined: `datasets` guesses types from the first
rows.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from pseudoris_cli.export.base import BySplit, ExportContext, ExportImage, Write, read_image_file
from pseudoris_cli.export.image_row import image_row
from pseudoris_cli.export.json_stream import dumps

OPTIONS = ("shard_mb",)


@contextmanager
def open_writer(context: ExportContext, folder: Path) -> Iterator[Write]:
    """Write the shards of every split; images without a referred object are left out."""
    with ExitStack() as stack:
        splits = BySplit(stack, lambda split: _Shards(folder, split, context.shard_bytes))

        def write(image: ExportImage) -> None:
            if image.objects:
                picture = None if context.images == "none" else read_image_file(image, context)
                splits[image.split].add(
                    f"{image.image_id:012d}", picture, dumps(_row(image, context.judged)).encode("ascii")
                )

        yield write


def _row(image: ExportImage, judged: bool) -> dict[str, object]:
    row = image_row(image, judged)
    for obj in row["objects"]:
        for name in ("doc", "listener"):
            if None in obj.get(name, ()):
                del obj[name]
    return row


class _Shards:
    """The shards of one split; a new one begins before a picture that the last has no room for."""

    def __init__(self, folder: Path, split: str, shard_bytes: int) -> None:
        self._folder, self._split, self._limit = folder, split, shard_bytes
        self._file: BinaryIO | None = None
        self._count = 0

    def __enter__(self) -> _Shards:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def add(self, key: str, picture: bytes | None, row: bytes) -> None:
        """One picture; both members are in the same shard."""
        members = [_member(f"{key}.jpg", picture)] if picture is not None else []
        members.append(_member(f"{key}.json", row))
        if self._file is not None and self._file.tell() + sum(map(len, members)) > self._limit:
            self._close()
        if self._file is None:
            self._file = (self._folder / f"{self._split}-{self._count:06d}.tar").open("wb")
            self._count += 1
        self._file.writelines(members)

    def _close(self) -> None:
        if self._file is not None:
            end = self._file.tell() + 2 * tarfile.BLOCKSIZE
            self._file.write(b"\0" * (2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE))
            self._file.close()
            self._file = None


def _member(name: str, data: bytes) -> bytes:
    """A file of a tar: mode, owner and time are constants, so that the same input gives the same bytes."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    return header.tobuf(tarfile.GNU_FORMAT) + data + b"\0" * (-len(data) % tarfile.BLOCKSIZE)
