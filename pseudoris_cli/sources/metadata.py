"""Reading other people's lists of images: JSON, whole-number ids, every image once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pseudoris_cli.codecs.foreign_names import is_text
from pseudoris_cli.codecs.foreign_text import head_of
from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import ImageRef
from pseudoris_cli.sources.base import image_id_of, read_head, safe_key

NAME_FIELDS = ("file_name", "coco_url", "filepath", "path", "filename")
"""Where tools write the name of an image: COCO, LVIS 1.0, FiftyOne, Roboflow and others."""


def begins_with_list(path: Path) -> bool:
    """Whether a JSON file holds a list, told from its first bytes. Raises OSError."""
    return head_of(read_head(path)).lstrip("\ufeff \t\r\n").startswith("[")


def name_of(image: dict[str, Any]) -> Any:
    """The name of one of COCO's `images`: LVIS 1.0 has addresses only, other tools have a field of their own."""
    return next((image[field] for field in NAME_FIELDS if image.get(field) is not None), None)


def image_ref(name: Any, image_id: Any, where: str) -> ImageRef:
    """An image by its name in foreign metadata; `image_id` None takes the id from the name. UsageError for hostile ones."""
    if not isinstance(name, str):
        raise UsageError(f"{where}: the image name {name!r:.80} is not text")
    key = safe_key(name, where)
    if image_id is None:
        return ImageRef(key, image_id_of(key), key)
    if type(image_id) is not int or not 0 <= image_id < 1 << 63:
        raise UsageError(f"{where}: the image id {image_id!r:.80} is not a whole number that fits 63 bits")
    return ImageRef(key, image_id, key)


def first_of_each(images: Iterator[ImageRef], where: Path) -> Iterator[ImageRef]:
    """Each image once, in the order of first appearance; UsageError where one name has two ids."""
    ids: dict[str, int] = {}
    for image in images:
        if image.key not in ids:
            ids[image.key] = image.image_id
            yield image
        elif ids[image.key] != image.image_id:
            raise UsageError(f"{where}: {image.key} has the ids {ids[image.key]} and {image.image_id}")


def chosen_file(folder: Path, options: dict[str, str], suffix: str) -> tuple[Path, dict[str, str]]:
    """The file of a split (option `split`, default train) in a folder of them, and the choice. UsageError names them."""
    split = options.get("split", "train")
    path = folder / f"{split}{suffix}"
    if not is_text(split) or "/" in split or not path.exists():
        there = ", ".join(sorted(file.stem for file in folder.glob(f"*{suffix}")))
        raise UsageError(f"{folder} has no split {split!r}; it has {there or 'none'} (--source-split)")
    return path, {"split": split}


def existing(candidates: Sequence[Path], what: str) -> Path:
    """The first folder that exists; UsageError names all of them otherwise."""
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise UsageError(
        f"the images of {what} are at none of {', '.join(map(str, candidates))}; point to them with --image-root"
    )
