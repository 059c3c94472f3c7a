"""Ground truth of a set of images: object masks and, for rendered scenes, their attributes.

`truth.json` of rendered scenes:

    {"kind": "pseudoris-demo-truth", "images": [{"file_name", "seed", "objects": [
        {"segmentation": {"size": [H, W], "counts": COCO compressed}, "shape", "colour", "texture", "size",
         "phrases": [{"text", "unique"}]}]}]}

where `phrases` are the simplest wordings of everything that holds for the object, and whether they hold for no other object.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pseudoris_cli.codecs import foreign_text
from pseudoris_cli.codecs.coco_segmentation import read_mask
from pseudoris_cli.demo.grammar import Attributes, claims, phrase
from pseudoris_cli.demo.world import Scene, Split, render_scene, scene_seed
from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import Rle
from pseudoris_cli.rle import encode_rle

KIND = "pseudoris-demo-truth"


@dataclass(frozen=True, slots=True)
class KnownImage:
    """The objects of one image. `attributes` is None where only masks are known."""

    key: str
    masks: tuple[Rle, ...]
    attributes: tuple[Attributes, ...] | None = None


def known_scene(key: str, scene: Scene) -> KnownImage:
    """The truth of a rendered scene."""
    return KnownImage(key, tuple(encode_rle(mask) for mask in scene.masks), scene.attributes)


def write_scenes(folder: Path, split: Split, count: int, first: int = 0) -> Path:
    """Render `count` scenes of a split as `000000.png`... and write `truth.json` beside them; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for index in range(first, first + count):
        seed = scene_seed(split, index)
        scene = render_scene(seed)
        name = f"{index:06d}.png"
        Image.fromarray(scene.image_rgb).save(folder / name)
        images.append({"file_name": name, "seed": seed, "objects": _objects(scene)})
    path = folder / "truth.json"
    path.write_text(json.dumps({"kind": KIND, "split": split, "images": images}, indent=1) + "\n", encoding="utf-8")
    return path


def _objects(scene: Scene) -> list[dict[str, Any]]:
    known = []
    for mask, own in zip(scene.masks, scene.attributes, strict=True):
        phrases = [
            {"text": phrase(claim), "unique": sum(claim.holds(other) for other in scene.attributes) == 1}
            for claim in claims(own)
        ]
        known.append({"segmentation": encode_rle(mask).to_coco(), **asdict(own), "phrases": phrases})
    return known


def read_truth(path: Path) -> list[KnownImage]:
    """Read `truth.json` of rendered scenes, or a COCO instances file (masks only; crowd regions are left out).

    A mask may be polygons or run lengths, compressed or not. Raises UsageError when the file is neither, or damaged.
    """
    try:
        data = json.loads(foreign_text.decode(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {getattr(error, 'strerror', None) or error}") from error
    try:
        if isinstance(data, dict) and data.get("kind") == KIND:
            return [_known_scene(image) for image in data["images"]]
        if isinstance(data, dict) and {"images", "annotations"} <= data.keys():
            return _known_coco(data["images"], data["annotations"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is not a usable truth file: {type(error).__name__}: {error}") from error
    raise UsageError(f"{path} is neither a demo truth file nor COCO instances (`images` and `annotations`)")


def _known_scene(image: dict[str, Any]) -> KnownImage:
    masks, attributes = [], []
    for known in image["objects"]:
        height, width = known["segmentation"]["size"]
        masks.append(read_mask(known["segmentation"], height, width))
        attributes.append(Attributes(known["shape"], known["colour"], known["texture"], known["size"]))
    return KnownImage(image["file_name"], tuple(masks), tuple(attributes))


def _known_coco(images: Iterable[dict[str, Any]], annotations: Iterable[dict[str, Any]]) -> list[KnownImage]:
    by_image = defaultdict(list)
    for annotation in annotations:
        if not annotation.get("iscrowd"):
            by_image[annotation["image_id"]].append(annotation["segmentation"])
    return [
        KnownImage(
            image["file_name"],
            tuple(read_mask(segmentation, image["height"], image["width"]) for segmentation in by_image[image["id"]]),
        )
        for image in images
    ]
