"""A COCO `instances_*.json`: its images in file order, with their ids. Annotations are not read here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import ImageRef
from pseudoris_cli.sources.base import FileReader, safe_key


class CocoInstances(FileReader):
    """Images named by a COCO annotation file, below `root`."""

    def __init__(self, json_file: Path, root: Path) -> None:
        super().__init__(root)
        self.json_file = json_file

    def images(self) -> Iterator[ImageRef]:
        for number, image in enumerate(_read_images(self.json_file)):
            where = f"{self.json_file}, image {number}"
            if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
                raise UsageError(f"{where}: has no file_name")
            image_id = image.get("id")
            if isinstance(image_id, bool) or not isinstance(image_id, int) or not 0 <= image_id < 1 << 63:
                raise UsageError(f"{where}: its id {image_id!r} is not a whole number that fits 63 bits")
            key = safe_key(image["file_name"], where)
            yield ImageRef(key, image_id, key)


def _read_images(path: Path) -> list[Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as COCO JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("images"), list):
        raise UsageError(f"{path} has no `images` list; --images takes a COCO instances file")
    return data["images"]


def open_source(root: Path, options: dict[str, Any], image_root: Path | None) -> CocoInstances:
    """Open a COCO file. Images lie below `image_root`; by default COCO's layout (../<split>) or the file's own folder."""
    return CocoInstances(root, image_root or _usual_root(root))


def _usual_root(json_file: Path) -> Path:
    split = json_file.stem.removeprefix("instances_")
    for folder in (
        json_file.parent.parent / split,
        json_file.parent.parent / "images" / split,
        json_file.parent / "images",
    ):
        if folder.is_dir():
            return folder
    return json_file.parent
