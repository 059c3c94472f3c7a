"""ETRIS' annotations, `anns/<dataset>/<split>.json`: the images that its objects are in. Masks and sentences are not read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pseudoris_cli.codecs.foreign_text import read_json
from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import ImageRef
from pseudoris_cli.sources.base import SPLITS, FileReader
from pseudoris_cli.sources.metadata import begins_with_list, chosen_file, existing, first_of_each, image_ref

DETECT_ORDER = 30


class EtrisAnns(FileReader):
    """The images of one annotation file, in the order in which it names them first."""

    def __init__(self, json_file: Path, root: Path, options: dict[str, str]) -> None:
        super().__init__(root)
        self.json_file = json_file
        self.options = options

    def images(self) -> Iterator[ImageRef]:
        return first_of_each(self._objects(), self.json_file)

    def _objects(self) -> Iterator[ImageRef]:
        objects = read_json(self.json_file, "ETRIS annotations")
        if not isinstance(objects, list):
            raise UsageError(f"{self.json_file} is not a list of ETRIS annotations")
        for number, item in enumerate(objects):
            where = f"{self.json_file}, object {number}"
            if not isinstance(item, dict) or "img_name" not in item:
                raise UsageError(f"{where}: has no img_name")
            yield image_ref(item["img_name"], item.get("img_id"), where)


def detects(path: Path) -> bool:
    """A JSON file that begins with a list, or a folder of them named like splits."""
    if path.is_dir():
        files = [path / f"{split}.json" for split in SPLITS if (path / f"{split}.json").is_file()]
        return bool(files) and begins_with_list(files[0])
    return path.suffix.lower() == ".json" and begins_with_list(path)


def open_source(root: Path, options: dict[str, Any], image_root: Path | None) -> EtrisAnns:
    """Open an annotation file, or `<split>.json` of a folder of them (option `split`, default train)."""
    json_file, chosen = chosen_file(root, options, ".json") if root.is_dir() else (root, {})
    if image_root is None:
        usual = [folder / "images" / "train2014" for folder in json_file.parents[:3]]
        image_root = existing([*reversed(usual), json_file.parent / "images"], str(json_file))
    return EtrisAnns(json_file, image_root, chosen)
