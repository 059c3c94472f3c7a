"""A COCO `instances_*.json`: its images in file order, with their ids. Annotations are not read here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pseudoris_cli.codecs.foreign_names import is_elsewhere, plain_name
from pseudoris_cli.codecs.foreign_text import read_json
from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import ImageRef
from pseudoris_cli.sources.base import FileReader, refusal
from pseudoris_cli.sources.metadata import NAME_FIELDS, begins_with_list, first_of_each, image_ref, name_of

DETECT_ORDER = 40


class CocoInstances(FileReader):
    """Images named by a COCO annotation file, below `root`, or below one of `more_roots`."""

    def __init__(self, json_file: Path, root: Path, *more_roots: Path) -> None:
        super().__init__(root, *more_roots)
        self.json_file = json_file

    def images(self) -> Iterator[ImageRef]:
        return first_of_each(self._listed(), self.json_file)

    def _listed(self) -> Iterator[ImageRef]:
        names: dict[int, str] = {}
        entries = _read_images(self.json_file)
        checked = False
        for number, image in enumerate(entries):
            where = f"{self.json_file}, image {number}"
            if not isinstance(image, dict) or image.get("id") is None:
                raise UsageError(f"{where}: has no id")
            name = name_of(image)
            if name is None:
                raise UsageError(f"{where}: the image name is missing; none of {', '.join(NAME_FIELDS)} is there")
            if isinstance(name, str) and is_elsewhere(name):
                if not checked and not self._has_any(entries):
                    raise refusal(name, where)
                checked, name = True, plain_name(name)
            found = image_ref(name, image["id"], where)
            if names.setdefault(found.image_id, found.key) != found.key:
                raise UsageError(f"{where}: the id {found.image_id} stands for two files, {found.key} is the second")
            yield found

    def _has_any(self, entries: list[Any]) -> bool:
        """Whether any name that leads elsewhere (another machine's folder, an address) has its file below the roots."""
        names = (name_of(entry) for entry in entries if isinstance(entry, dict))
        return any(self.finder.look(plain_name(name)) for name in names if isinstance(name, str) and is_elsewhere(name))


def _read_images(path: Path) -> list[Any]:
    data = read_json(path, "COCO JSON")
    if not isinstance(data, dict) or not isinstance(data.get("images"), list):
        raise UsageError(f"{path} has no `images` list; --images takes a COCO instances file")
    return data["images"]


def detects(path: Path) -> bool:
    """A JSON file that does not begin with a list."""
    return path.is_file() and path.suffix.lower() == ".json" and not begins_with_list(path)


def open_source(root: Path, options: dict[str, Any], image_root: Path | None) -> CocoInstances:
    """Open a COCO file. Images lie below `image_root`; by default where annotation tools put them, see `_usual_roots`."""
    return CocoInstances(root, image_root) if image_root else CocoInstances(root, *_usual_roots(root))


def _usual_roots(json_file: Path) -> list[Path]:
    """The folders in which images may lie, likeliest first: COCO's, CVAT's, FiftyOne's, and those of the file itself."""
    split, here, above = json_file.stem.removeprefix("instances_"), json_file.parent, json_file.parent.parent
    usual = [above / split, above / "images" / split, here / "images", here / "data"]
    if here.name in ("annotations", "labels"):
        usual.append(above / "images")
    return [*(folder for folder in usual if folder.is_dir()), here, *([above] if here.name == "annotations" else [])]
