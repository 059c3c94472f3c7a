"""A COCO `instances_*.json`: its images in file order, with their ids. Annotations are not read here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import ImageRef
from pseudoris_cli.sources.base import FileReader
from pseudoris_cli.sources.metadata import begins_with_list, first_of_each, image_ref, read_json

DETECT_ORDER = 40


class CocoInstances(FileReader):
    """Images named by a COCO annotation file, below `root`."""

    def __init__(self, json_file: Path, root: Path) -> None:
        super().__init__(root)
        self.json_file = json_file

    def images(self) -> Iterator[ImageRef]:
        return first_of_each(self._listed(), self.json_file)

    def _listed(self) -> Iterator[ImageRef]:
        names: dict[int, str] = {}
        for number, image in enumerate(_read_images(self.json_file)):
            where = f"{self.json_file}, image {number}"
            if not isinstance(image, dict) or image.get("id") is None:
                raise UsageError(f"{where}: has no id")
            found = image_ref(image.get("file_name"), image["id"], where)
            if names.setdefault(found.image_id, found.key) != found.key:
                raise UsageError(f"{where}: the id {found.image_id} stands for two files, {found.key} is the second")
            yield found


def _read_images(path: Path) -> list[Any]:
    data = read_json(path, "COCO JSON")
    if not isinstance(data, dict) or not isinstance(data.get("images"), list):
        raise UsageError(f"{path} has no `images` list; --images takes a COCO instances file")
    return data["images"]


def detects(path: Path) -> bool:
    """A JSON file that does not begin with a list."""
    return path.is_file() and path.suffix.lower() == ".json" and not begins_with_list(path)


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
