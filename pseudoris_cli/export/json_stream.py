"""JSON files larger than memory: lists and COCO `instances` files, written item by item."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from pseudoris_cli.errors import UsageError
from pseudoris_cli.export.base import ExportContext, ExportImage, ExportObject


def dumps(value: Any) -> str:
    """JSON in ASCII on one line, since readers open the files in the platform's encoding; NaN is an error."""
    return json.dumps(value, allow_nan=False, separators=(", ", ": "))


class JsonList:
    """A JSON list on disk, one item per line. Use as a context manager; an error leaves an unfinished file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("w", encoding="ascii", newline="\n")
        self._file.write("[")
        self.count = 0

    def append(self, item: Any) -> None:
        """Write one more item."""
        self._file.write(",\n" if self.count else "\n")
        self._file.write(dumps(item))
        self.count += 1

    def __enter__(self) -> JsonList:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._file.write("\n]")
        self._file.close()


class InstancesFile:
    """`{info, licenses, images, annotations, categories}`: both lists grow in files beside it, joined at the end."""

    def __init__(self, path: Path, info: Mapping[str, Any]) -> None:
        self._path = path
        self._info = dict(info)
        self._parts = {name: path.with_name(f"{path.name}.{name}") for name in ("images", "annotations")}
        if any(part.exists() for part in self._parts.values()):
            raise UsageError(f"two formats would write {path.parent.name}/{path.name}; choose another --dataset")
        self._lists = {name: JsonList(part) for name, part in self._parts.items()}
        self._categories: dict[int, str] = {}

    def name_category(self, number: int, name: str) -> None:
        """List a category, with or without annotations. UsageError if the number has another name."""
        known = self._categories.setdefault(number, name)
        if known != name:
            raise UsageError(f"category {number} is called both {known!r} and {name!r}; ids must be unique")

    def add_image(self, image: Mapping[str, Any]) -> None:
        """Append to `images`."""
        self._lists["images"].append(image)

    def add_annotation(self, annotation: Mapping[str, Any], category_name: str) -> None:
        """Append to `annotations`; its category is listed once."""
        self.name_category(annotation["category_id"], category_name)
        self._lists["annotations"].append(annotation)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for items in self._lists.values():
            items.__exit__(kind, error, trace)
        if kind is None:
            self._join()
        for part in self._parts.values():
            part.unlink()

    def _join(self) -> None:
        categories = [{"id": i, "name": name, "supercategory": name} for i, name in sorted(self._categories.items())]
        with self._path.open("wb") as file:
            file.write(f'{{"info": {dumps(self._info)},\n"licenses": []'.encode("ascii"))
            for name, part in self._parts.items():
                file.write(f',\n"{name}": '.encode("ascii"))
                with part.open("rb") as source:
                    shutil.copyfileobj(source, file)
            file.write(f',\n"categories": {dumps(categories)}}}\n'.encode("ascii"))


def describe(context: ExportContext) -> dict[str, Any]:
    """`info` of a COCO-like file."""
    return {
        "description": f"{context.dataset} ({context.split_by}), pseudo-labelled by pseudoris",
        "provenance": dict(context.provenance),
    }


def image_record(image: ExportImage) -> dict[str, Any]:
    """One of COCO's `images`."""
    return {"id": image.image_id, "file_name": image.file_name, "height": image.height, "width": image.width}


def annotation(image: ExportImage, obj: ExportObject) -> dict[str, Any]:
    """One of COCO's `annotations`, without its `segmentation`."""
    return {
        "id": obj.ann_id,
        "image_id": image.image_id,
        "category_id": obj.category[0],
        "area": int(obj.mask.area),
        "bbox": [int(value) for value in obj.mask.bbox],
        "iscrowd": 0,
    }
