"""A REFER root: the images of one split of RefCOCO, RefCOCO+, RefCOCOg or RefClef, as `refs(<split_by>).p` lists them.

ROOT/<dataset>/refs(<split_by>).p and instances.json, image files in ROOT/images/...; ROOT or ROOT/<dataset> may be given
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pseudoris_cli.codecs import safe_pickle
from pseudoris_cli.codecs.foreign_text import read_json
from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import ImageRef
from pseudoris_cli.sources.base import FileReader
from pseudoris_cli.sources.metadata import existing, first_of_each, image_ref

_REFS = re.compile(r"refs\((.+)\)\.p")

DETECT_ORDER = 20


class Refer(FileReader):
    """The images of one split, in the order in which its refs name them first."""

    def __init__(self, dataset: Path, root: Path, split_by: str, split: str) -> None:
        super().__init__(root)
        self.dataset = dataset
        self.split_by = split_by
        self.split = split
        self.options = {"split": split, "split_by": split_by}

    def images(self) -> Iterator[ImageRef]:
        refs_file = self.dataset / f"refs({self.split_by}).p"
        return first_of_each(self._refs(refs_file), refs_file)

    def _refs(self, refs_file: Path) -> Iterator[ImageRef]:
        names = _names(self.dataset / "instances.json")
        refs = safe_pickle.load(refs_file)
        if not isinstance(refs, list):
            raise UsageError(f"{refs_file} holds no list of refs")
        splits = set()
        for number, ref in enumerate(refs):
            where = f"{refs_file}, ref {number}"
            if (
                not isinstance(ref, dict)
                or type(ref.get("image_id")) is not int
                or not isinstance(ref.get("split"), str)
            ):
                raise UsageError(f"{where}: has no image_id or no split")
            splits.add(ref["split"])
            if not _is_in(ref["split"], self.split):
                continue
            if ref["image_id"] not in names:
                raise UsageError(f"{where}: its image {ref['image_id']} is not in instances.json")
            yield image_ref(names[ref["image_id"]], ref["image_id"], where)
        if not any(_is_in(split, self.split) for split in splits):
            raise UsageError(
                f"{refs_file} has no split {self.split!r}; it has {', '.join(sorted(splits)) or 'none'} (--source-split)"
            )


def detects(path: Path) -> bool:
    """A `refs(...).p`, or a folder that holds one with an instances.json beside it, itself or one level below."""
    if path.is_dir():
        return bool(dataset_folders(path))
    return path.suffix == ".p" and path.name.startswith("refs(")


def open_source(root: Path, options: dict[str, Any], image_root: Path | None) -> Refer:
    """Open a REFER root, a data set in it, or its `refs(<split_by>).p`.

    Options: `split` (default train; `test` takes testA, testB... as REFER does) and `split_by`.
    """
    named = _REFS.fullmatch(root.name)
    dataset = _dataset(root.parent if named else root)
    parent = dataset.parent
    usual = [parent / "images/mscoco/images/train2014", parent / "images/train2014", parent / "images/saiapr_tc-12"]
    if dataset.name == "refclef":
        usual.reverse()
    image_root = image_root or existing([*usual, parent / "images"], f"{dataset.name} ({dataset})")
    wanted = options.get("split_by")
    if named and wanted not in (None, named[1]):
        raise UsageError(f"{root} is split by {named[1]}, not by {wanted!r}; give its folder with --source-split-by")
    split_by = _split_by(dataset, named[1] if named else wanted)
    return Refer(dataset, image_root, split_by, options.get("split") or "train")


def dataset_folders(root: Path) -> list[Path]:
    """The folders that hold `refs(...).p`: `root` itself or its children."""
    folders = [root, *sorted(path for path in root.iterdir() if _is(path.is_dir))]
    found = [folder for folder in folders if _is((folder / "instances.json").is_file) and _refs_files(folder)]
    return found[:1] if found[:1] == [root] else found


def _is(question: Callable[[], bool]) -> bool:
    """The answer to a question about a path; no for what may not be looked at, such as root's `lost+found`."""
    try:
        return question()
    except OSError:
        return False


def _refs_files(folder: Path) -> list[str]:
    try:
        return sorted(match[1] for path in folder.iterdir() if (match := _REFS.fullmatch(path.name)))
    except OSError:
        return []


def _dataset(root: Path) -> Path:
    found = dataset_folders(root) if root.is_dir() else []
    if not found:
        raise UsageError(f"{root} holds no refs(...).p with an instances.json beside it")
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        raise UsageError(f"{root} holds several data sets ({names}); give one of them, as in --images {found[0]}")
    return found[0]


def _split_by(dataset: Path, wanted: str | None) -> str:
    known = _refs_files(dataset)
    if wanted is None and len(known) > 1:
        raise UsageError(f"{dataset} is split by {', '.join(known)}; say which: --source-split-by {known[0]}")
    if wanted is not None and wanted not in known:
        raise UsageError(f"{dataset} is not split by {wanted!r}; it has {', '.join(known)}")
    return wanted or known[0]


def _is_in(split: str, wanted: str) -> bool:
    """REFER compares exactly, but `test` takes every split with that in its name."""
    return split == wanted or wanted == "all" or (wanted == "test" and "test" in split)


def _names(instances: Path) -> dict[int, Any]:
    """image id -> file name. Annotations are not looked at."""
    data = read_json(instances, "REFER's instances.json")
    images = data.get("images") if isinstance(data, dict) else None
    if not isinstance(images, list):
        raise UsageError(f"{instances} has no list of images")
    names: dict[int, Any] = {}
    for number, image in enumerate(images):
        if not isinstance(image, dict) or type(image.get("id")) is not int:
            raise UsageError(f"{instances}, image {number}: has no id")
        if names.setdefault(image["id"], image.get("file_name")) != image.get("file_name"):
            raise UsageError(f"{instances}, image {number}: the id {image['id']} stands for two files")
    return names
