"""Tars of images: WebDataset's, img2dataset's or any other. Each image is read by one seek; nothing is unpacked.

A key is `<tar>/<member>`. Of a sample (`000.jpg`, `000.json`, `000.txt`) the picture is taken and the rest passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from pseudoris_cli.codecs import image_kinds
from pseudoris_cli.codecs.foreign_names import is_elsewhere
from pseudoris_cli.codecs.tar_members import HEAD, Damage, Member, compression_of, scan
from pseudoris_cli.places.base import PlaceFile, open_place
from pseudoris_cli.records import ImageRef, Stamp
from pseudoris_cli.sources.base import IMAGE_SUFFIXES, MAX_BYTES, LeftOut, image_id_of
from pseudoris_cli.sources.containers import OPEN, Containers, Recent, Unreadable, first_file, relocated

DETECT_ORDER = 60
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_HIDDEN = "hidden members (the name begins with a dot)"
_LEAVES = "members whose names leave the tar (absolute, or with ..)"
_FURTHER = "further pictures of a sample (as 0.mask.png beside 0.jpg)"


class Tars(Containers):
    """The images of tars."""

    suffixes = (".tar",)
    noun = "tar"

    def __init__(self, root: Path | str, options: dict[str, str]) -> None:
        super().__init__(root, options)
        self._files: Recent[PlaceFile] = Recent(OPEN)

    def names(self, left_out: LeftOut) -> list[str]:
        """The tars, in order; compressed ones are counted as left out."""
        for name in self.place.names(_COMPRESSED):
            left_out.add("compressed tars, in which nothing can be sought; unpack them to plain .tar", name.encode())
        return super().names(left_out)

    def make_index(self, name: str) -> dict[str, Any]:
        file = self.place.open(name)
        try:
            if packed := compression_of(file.read_at(0, HEAD)):
                raise Unreadable(f"compressed ({packed}), so that nothing can be sought; unpack them to plain .tar")
            if not file.size:
                raise Unreadable("empty")
            return _Indexing(name).of(file)
        finally:
            file.close()

    def refs(self, name: str, index: dict[str, Any]) -> Iterator[ImageRef]:
        for member in index.get("names", ()):
            key = f"{name}/{member}"
            yield ImageRef(key, image_id_of(key), key, member)

    def find(self, index: dict[str, Any], inner: str) -> tuple[int, int] | None:
        if "spots" not in index:
            spots = zip(index.get("offsets", ()), index.get("sizes", ()), strict=True)
            index["spots"] = dict(zip(index.get("names", ()), spots, strict=True))
        return index["spots"].get(inner)

    def fetch(self, name: str, stamp: Stamp, spot: tuple[int, int]) -> bytes:
        offset, size = spot
        if size > MAX_BYTES:
            raise OSError(f"{size:,} bytes are more than an image has")
        with self._lock:
            file = self._files.get((name, stamp), lambda: self.place.open(name))
        data = file.read_at(offset, size)
        if len(data) < size:
            raise OSError(f"the tar ends within the picture, after {len(data):,} of its {size:,} bytes")
        return data


class _Indexing:
    """Goes through the headers of a tar once."""

    def __init__(self, tar: str) -> None:
        self._tar = tar.encode("utf-8", "backslashreplace")
        self._left_out = LeftOut()
        self._spots: dict[str, tuple[int, int]] = {}
        self._files: dict[bytes, Member] = {}
        """Every file so far, for hard links to it."""
        self._stem: bytes | None = None
        self._sample: list[tuple[Member, bool]] = []
        """The pictures of the sample at work, and whether each is its only or a further one by its name."""

    def of(self, file: PlaceFile) -> dict[str, Any]:
        """The index. Unreadable where the file does not begin like a tar and no good header follows."""
        damages: list[Damage] = []
        for one in scan(file.read_at, file.size):
            if isinstance(one, Damage):
                damages.append(one)
            else:
                self._take(one)
        self._end_sample()
        if damages and damages[0].offset == 0 and not self._files and not self._left_out.kinds:
            raise Unreadable(f"no tar: it {damages[0].reason}")
        for damage in damages:
            self._left_out.add(f"damages: the tar {damage.reason}", self._tar + b", byte %d" % damage.offset)
        return {
            "names": list(self._spots),
            "offsets": [offset for offset, _ in self._spots.values()],
            "sizes": [size for _, size in self._spots.values()],
            "left_out": self._left_out.kinds,
        }

    def _take(self, member: Member) -> None:
        """Sort a member; pictures wait until the whole sample is known."""
        kind = member.kind
        if kind == "hard link" and (original := self._files.get(member.target)):
            member, kind = replace(original, name=member.name), "file"
        folder, _, base = member.name.rpartition(b"/")
        stem, _, extension = base.partition(b".")
        suffix = os.path.splitext(base)[1].decode("ascii", "replace").lower()
        if kind == "file":
            self._files[member.name] = member
        elif kind != "folder" and (suffix in IMAGE_SUFFIXES or kind == "sparse"):
            self._leave(f"members that are no plain files: {kind}", member)
        if kind != "file" or base[:2] == b"._" or not self._is_picture(member, suffix):
            return
        if any(part.startswith(b".") and part not in (b".", b"..") for part in member.name.split(b"/")):
            self._leave(_HIDDEN, member)
            return
        if (sample := folder + b"/" + stem) != self._stem:
            self._end_sample()
            self._stem = sample
        self._sample.append((member, b"." in extension))

    def _is_picture(self, member: Member, suffix: str) -> bool:
        if suffix in IMAGE_SUFFIXES:
            return True
        kind = image_kinds.kind_of_suffix(suffix)
        if kind is None and image_kinds.may_be_image(suffix):
            kind = image_kinds.kind_of_bytes(member.head)
            if kind in image_kinds.DECODED:
                return True
        if kind in image_kinds.WITH_IMAGES:
            self._leave(f"of a kind that is not read: {kind}", member)
        return False

    def _end_sample(self) -> None:
        """Take the pictures of a sample: those named after it, else all."""
        plain = [member for member, further in self._sample if not further]
        for member, further in self._sample:
            if further and plain:
                self._leave(_FURTHER, member)
            else:
                self._add(member)
        self._sample = []

    def _add(self, member: Member) -> None:
        if not member.name or is_elsewhere(member.name.decode("utf-8", "replace")):
            self._leave(_LEAVES, member)
            return
        name = member.name.replace(b"\\x", b"\\x5cx").decode("utf-8", "backslashreplace")
        name = PurePosixPath(name).as_posix()
        while name in self._spots:  # a second member of a name is another picture, and keeps its own place in its key
            name = f"@{member.offset}/{name}"
        self._spots[name] = (member.offset, member.size)

    def _leave(self, kind: str, member: Member) -> None:
        self._left_out.add(kind, self._tar + b"/" + member.name)


def detects(path: Path) -> bool:
    """A tar by its name, or a folder with tars, there or one level below, and no pictures beside them."""
    if path.is_dir():
        return first_file(path, (".tar", *_COMPRESSED)) is not None
    return path.is_file() and path.name.lower().endswith((".tar", *_COMPRESSED))


def detects_address(address: str) -> bool:
    """A URL or a pattern that stands for tars."""
    return bool(open_place(address).names((".tar", *_COMPRESSED)))


def open_source(root: Path | str, options: dict[str, Any], image_root: Path | str | None) -> Tars:
    """Open a tar, a folder of tars, a pattern or a URL; `image_root` says where they lie now."""
    return Tars(relocated(root, image_root, Tars.suffixes), {})
