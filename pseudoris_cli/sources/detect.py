"""What kind of source a path is, told from its name and first bytes; nothing is read whole."""

from __future__ import annotations

from pathlib import Path

from pseudoris_cli.errors import UsageError
from pseudoris_cli.sources.base import IMAGE_SUFFIXES
from pseudoris_cli.sources.refer import dataset_folders

_LMDB_MAGIC = bytes.fromhex("dec0efbe")
_HEAD = 4096
_SPLITS = ("train", "val", "test", "testA", "testB", "testC")


def sniff(path: Path) -> str:
    """The kind of source: the name of a file in this folder. UsageError says why a path can be none."""
    return _sniff_folder(path) if path.is_dir() else _sniff_file(path)


def authors_source(folder: Path) -> Path | None:
    """What the release's scripts read in a directory laid out like its authors': the RefCOCO+ LMDB, else its pictures."""
    for name in ("datasets/lmdb/refcoco+/train.lmdb", "datasets/images/train2014"):
        if (folder / name).exists():
            return folder / name
    return None


def _sniff_folder(path: Path) -> str:
    try:
        if (path / "data.mdb").is_file() or any((path / f"{split}.lmdb").is_file() for split in _SPLITS):
            return "etris_lmdb"
        if dataset_folders(path):
            return "refer"
        annotations = [path / f"{split}.json" for split in _SPLITS if (path / f"{split}.json").is_file()]
        if annotations and _sniff_json(annotations[0]) == "etris_anns":
            return "etris_anns"
    except OSError as error:
        raise UsageError(f"{path} cannot be listed: {error.strerror}") from error
    return "folder"


def _sniff_file(path: Path) -> str:
    head = _head(path)
    if path.suffix.lower() == ".lmdb" or head[16:20] == _LMDB_MAGIC:
        return "etris_lmdb"
    if path.suffix.lower() == ".json":
        return _sniff_json(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise UsageError(f"{path} is a single picture; --images takes its folder or a list file")
    if path.suffix == ".p" and path.name.startswith("refs("):
        return "refer"
    if b"\0" in head:
        raise UsageError(f"{path} is neither a folder, a list of images, a COCO or ETRIS JSON nor an LMDB")
    return "listing"


def _sniff_json(path: Path) -> str:
    return "etris_anns" if _head(path).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[") else "coco"


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
