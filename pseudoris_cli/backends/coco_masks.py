"""Your own masks from a COCO instances JSON: polygons, compressed or uncompressed run-length encodings.

They are the pseudo-masks as they stand; no automatic masks are made (`MASKS_ARE_FINAL`). Where the file lists
`categories`, every mask keeps its own; a file without them is class-agnostic.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from pseudoris_cli.codecs import foreign_text
from pseudoris_cli.codecs.coco_segmentation import BadMask, is_number, read_usable_mask
from pseudoris_cli.codecs.foreign_names import comparable, is_end_of
from pseudoris_cli.errors import UsageError
from pseudoris_cli.method.protocols import Proposal, Proposer
from pseudoris_cli.records import Category
from pseudoris_cli.settings.models import BackendSettings, Numerics, added_later
from pseudoris_cli.settings.resources import expanded
from pseudoris_cli.sources.metadata import name_of
from pseudoris_cli.weights.registry import file_digest

ROLE = "proposer"

log = logging.getLogger("pseudoris")


class Settings(BackendSettings):
    """Where the masks are."""

    NO_RESULT = frozenset({"path"})  # what the file holds enters the version by its digest
    MASKS_ARE_FINAL = True

    backend: Literal["coco_masks"] = Field("coco_masks", description="who says which masks are objects")
    crowd: Literal["keep", "drop"] = added_later(
        "keep", description="what becomes of regions that are marked `iscrowd`"
    )
    path: str = Field(min_length=1, description="COCO instances JSON; its file names are matched with the images'")

    @classmethod
    def tiny(cls) -> Settings:
        return cls(path="instances.json")


class BadAnnotation(ValueError):
    """An image's annotations cannot be used. The image fails; the run goes on."""


@dataclass(slots=True)
class AnnotatedImage:
    """An entry of `images` with its annotations, none of which has been looked into yet."""

    file_name: str
    size: tuple[Any, Any]
    annotations: list[dict[str, Any]] = field(default_factory=list)


class AnnotatedMasks(Proposer):
    """The masks of a file, by image."""

    def __init__(
        self, path: Path, images: Sequence[AnnotatedImage], categories: Mapping[int, str], crowd: str = "keep"
    ) -> None:
        self.path = path
        self.categories = categories
        self.crowd = crowd
        self._left_out: Counter[str] = Counter()
        self.by_last_name: dict[str, list[AnnotatedImage]] = defaultdict(list)
        for image in images:
            self.by_last_name[comparable(image.file_name).rpartition("/")[2]].append(image)

    def propose(self, images_rgb: Sequence[np.ndarray], keys: Sequence[str]) -> list[list[Proposal]]:
        """The annotated masks of each image, best score first (1 where an annotation has none).

        What is no mask is left out and counted by kind. Raises BadAnnotation for an image that the file does not list, that has
        another size there, or whose annotations are all no masks.
        """
        left_out: Counter[str] = Counter()
        found = [
            self._read(key, image.shape[0], image.shape[1], left_out)
            for key, image in zip(keys, images_rgb, strict=True)
        ]
        self._left_out += left_out  # only now: a batch that fails midway is run again
        return found

    def left_out(self) -> dict[str, int]:
        """Annotations, and polygons of them, that were left out since this was last asked, by kind."""
        counted, self._left_out = dict(self._left_out), Counter()
        return counted

    def find(self, key: str) -> AnnotatedImage:
        """The entry of an image: the same path, or one path is the end of the other (`val/1.jpg` and `1.jpg`).

        Unicode form, case, and the folders of another machine make no difference where no entry has the very same path.
        """
        wanted = comparable(key)
        entries = self.by_last_name.get(wanted.rpartition("/")[2], [])
        exact = [entry for entry in entries if entry.file_name == key]
        found = exact or [entry for entry in entries if wanted and is_end_of(comparable(entry.file_name), wanted)]
        if not found:
            raise BadAnnotation(f"{self.path.name} does not list this image")
        if len(found) > 1:
            raise BadAnnotation(f"{self.path.name} lists {len(found)} images that could be this one")
        return found[0]

    def _read(self, key: str, height: int, width: int, left_out: Counter[str]) -> list[Proposal]:
        entry = self.find(key)
        if entry.size not in ((None, None), (height, width)):
            tall, wide = entry.size
            raise BadAnnotation(
                f"{self.path.name} says {wide}x{tall} pixels, but the upright image has {width}x{height}"
            )
        proposals: list[Proposal] = []
        first: BadAnnotation | None = None
        for annotation in entry.annotations:
            if self.crowd == "drop" and annotation.get("iscrowd"):
                left_out["crowd regions"] += 1
                continue
            try:
                mask, bad = read_usable_mask(annotation.get("segmentation"), height, width)
                proposals.append(Proposal(mask, _score(annotation), self._category(annotation)))
                left_out.update(part.kind for part in bad)
            except BadMask as error:
                left_out[error.kind] += 1
                first = first or BadAnnotation(f"annotation {annotation.get('id')!r} of {self.path.name}: {error}")
        if first and not proposals:
            raise first
        return sorted(proposals, key=lambda proposal: -proposal.score)

    def _category(self, annotation: dict[str, Any]) -> Category | None:
        if not self.categories:
            return None
        category_id = annotation.get("category_id")
        if type(category_id) is not int or category_id not in self.categories:
            raise BadMask(
                f"its category_id {category_id!r} is not among the file's categories",
                "masks of a category that is not listed",
            )
        return category_id, self.categories[category_id]


def _score(annotation: dict[str, Any]) -> float:
    score = annotation.get("score", 1.0)
    if not is_number(score):
        raise BadMask(f"its score {score!r} is no finite number", "masks whose score is no number")
    return float(score)


def version(settings: Settings) -> str:
    """The digest of the file, which stands in the version for its contents."""
    return file_digest(_existing(settings))


def load(settings: Settings, numerics: Numerics, device: str) -> AnnotatedMasks:
    """Read the file. Raises UsageError where it is not a COCO instances file; single masks are checked when used."""
    path = _existing(settings)
    try:
        data = json.loads(foreign_text.decode(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"masks.proposals.path: {path} cannot be read as JSON: {error}") from error
    if not isinstance(data, dict) or not all(isinstance(data.get(name), list) for name in ("images", "annotations")):
        raise UsageError(f"masks.proposals.path: {path} has no lists `images` and `annotations`; a COCO file is wanted")
    images = _images_by_id(path, data["images"])
    homeless = []
    for number, annotation in enumerate(data["annotations"]):
        image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
        if isinstance(image_id, (int, str)) and image_id in images:
            images[image_id].annotations.append(annotation)
        else:
            homeless.append(f"annotation number {number} belongs to no listed image (image_id {image_id!r})")
    if homeless and len(homeless) == len(data["annotations"]):
        raise UsageError(f"{path}: {homeless[0]}, nor does any other")
    if homeless:
        log.warning("%s: %s annotations are left out; the first: %s", path, f"{len(homeless):,}", homeless[0])
    categories = _categories(path, data.get("categories") or [])
    return AnnotatedMasks(path, list(images.values()), categories, settings.crowd)


def _images_by_id(path: Path, entries: Sequence[Any]) -> dict[int | str, AnnotatedImage]:
    images: dict[int | str, AnnotatedImage] = {}
    names: set[str] = set()
    for number, entry in enumerate(entries):
        image_id, name = (entry.get("id"), name_of(entry)) if isinstance(entry, dict) else (None, None)
        if not isinstance(image_id, (int, str)) or not isinstance(name, str) or not name:
            raise UsageError(f"{path}: image number {number} has no `id` or no `file_name`")
        if image_id in images or name in names:
            raise UsageError(f"{path}: image {image_id!r} ({name}) is listed twice")
        names.add(name)
        images[image_id] = AnnotatedImage(name, (entry.get("height"), entry.get("width")))
    return images


def _categories(path: Path, entries: Any) -> dict[int, str]:
    """id -> name. Ids have 31 bits, as readers of exports hold them in int32."""
    names: dict[int, str] = {}
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        category_id, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if type(category_id) is not int or not 0 <= category_id < 1 << 31 or category_id in names:
            raise UsageError(f"{path}: category number {number} has no `id` of its own (a whole number of 31 bits)")
        if not isinstance(name, str) or not name or not name.isprintable():
            raise UsageError(f"{path}: category {category_id} has no `name`")
        names[category_id] = name
    return names


def _existing(settings: Settings) -> Path:
    path = expanded(settings.path, "masks.proposals.path")
    if not path.is_file():
        raise UsageError(f"masks.proposals.path: there is no file {path.absolute()}")
    return path
