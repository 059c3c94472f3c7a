"""Which export a folder is, and the referred masks of those that are JSON or tars: grefcoco, coco, sa-co, sa2va, webdataset.

A reference to several objects gives the union of their masks, one to none an empty mask.
"""

from __future__ import annotations

import csv
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from pycocotools import mask as coco_mask

from pseudoris_cli.codecs.coco_segmentation import read_mask
from pseudoris_cli.errors import UsageError
from pseudoris_cli.export import read_tables
from pseudoris_cli.export.read_back import Referred
from pseudoris_cli.records import Rle
from pseudoris_cli.rle import rle_from_counts

Reader = Callable[[Path, str, Callable[[str], Path]], Iterator[Referred]]
ORIENTATION, FIRST_SIDEWAYS = 0x0112, 5


class TarMembers:
    """Pictures inside tar files, read by one seek; a key is `<tar>:<offset>:<bytes>`. Nothing stays open between workers."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, key: str) -> bytes:
        """The bytes of a member. FileNotFoundError if the tar is gone."""
        name, offset, size = key.rsplit(":", 2)
        with (self.root / name).open("rb") as file:
            file.seek(int(offset))
            return file.read(int(size))


def find(root: Path, split: str) -> tuple[str, Reader] | None:
    """The format below `root` that has this split, and its reader; None where there is none of these."""
    if not root.is_dir():
        return None
    if any(root.glob("grefcoco/grefs(*).json")) or any(root.glob("grefs(*).json")):
        return "grefcoco", _grefcoco
    if (root / "annotations" / f"instances_{split}.json").is_file():
        return "coco", _coco
    if (root / "annotations" / f"{split}.json").is_file():
        return "sa-co", _sa_co
    if any(root.glob(f"{split}-[0-9]*.tar")):
        return "webdataset", _webdataset
    if read_tables.hf_files(root, split):
        return "hf", read_tables.hf
    if read_tables.etris_file(root, split):
        return "etris", read_tables.etris
    if read_tables.reference_csv_file(root, split).is_file():
        return "reference-csv", read_tables.reference_csv
    if _sa2va_file(root, split):
        return "sa2va", _sa2va
    return None


def read(root: Path, split: str, find_image: Callable[[str], Path]) -> Iterator[Referred]:
    """The references of a split; `find_image` gives the file of an image name. UsageError names damaged files."""
    found = find(root, split)
    assert found is not None, "asked for by `find`"
    name, reader = found
    with _named_damage(root, name):
        yield from reader(root, split, find_image)


@contextmanager
def _named_damage(root: Path, name: str) -> Iterator[None]:
    """UsageError instead of whatever a damaged file raises."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, IndexError, SyntaxError, tarfile.TarError, csv.Error) as error:
        raise UsageError(f"{root} is not a whole {name} export: {error!r}") from error


def _grefcoco(root: Path, split: str, find_image: Callable[[str], Path]) -> Iterator[Referred]:
    folder = root / "grefcoco" if (root / "grefcoco").is_dir() else root
    refs_file = sorted(folder.glob("grefs(*).json"))
    if len(refs_file) > 1:
        raise ValueError(f"it is split in several ways ({', '.join(path.name for path in refs_file)}); keep one")
    instances = json.loads((folder / "instances.json").read_bytes())
    images, annotations = _by_id(instances["images"]), _by_id(instances["annotations"])
    for ref in json.loads(refs_file[0].read_bytes()):
        if ref["split"] == split:
            image = images[ref["image_id"]]
            wanted = [annotations[number] for number in ref["ann_id"] if number != -1]
            captions = tuple(sentence["raw"] for sentence in ref["sentences"])
            yield Referred(image["file_name"], image["id"], ref["ref_id"], _union(wanted, image), captions)


def _coco(root: Path, split: str, find_image: Callable[[str], Path]) -> Iterator[Referred]:
    data = json.loads((root / "annotations" / f"instances_{split}.json").read_bytes())
    images = _by_id(data["images"])
    for one in data["annotations"]:
        image = images[one["image_id"]]
        number = one.get("ref_id", one["id"])
        yield Referred(image["file_name"], image["id"], number, _union([one], image), tuple(one["captions"]))


def _sa_co(root: Path, split: str, find_image: Callable[[str], Path]) -> Iterator[Referred]:
    data = json.loads((root / "annotations" / f"{split}.json").read_bytes())
    wanted: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in data["images"]}
    for one in data["annotations"]:
        wanted[one["image_id"]].append(one)
    for image in data["images"]:
        rle, text = _union(wanted[image["id"]], image), image["text_input"]
        yield Referred(image["file_name"], image.get("image_id", image["id"]), image["id"], rle, (text,))


def _sa2va(root: Path, split: str, find_image: Callable[[str], Path]) -> Iterator[Referred]:
    path = _sa2va_file(root, split)
    assert path is not None
    number = 0
    for image_id, item in enumerate(json.loads(path.read_bytes())):
        with Image.open(find_image(item["image"])) as picture:
            width, height = picture.size
            if picture.getexif().get(ORIENTATION, 1) >= FIRST_SIDEWAYS:
                width, height = height, width
        texts: dict[str, list[str]] = {}  # --sentences all repeats the object for each of its sentences
        for polygons, text in zip(item["mask"], item["text"], strict=True):
            texts.setdefault(json.dumps(polygons), []).append(text)
        for polygons_text, captions in texts.items():
            number += 1
            rle = read_mask(json.loads(polygons_text), height, width)
            yield Referred(item["image"], image_id, number, rle, tuple(captions))


def _webdataset(root: Path, split: str, find_image: Callable[[str], Path]) -> Iterator[Referred]:
    for path in sorted(root.glob(f"{split}-[0-9]*.tar")):
        with tarfile.open(path) as tar:
            pictures: dict[str, str] = {}
            for member in tar:
                key, _, suffix = member.name.partition(".")
                if suffix == "jpg":
                    pictures = {key: f"{path.name}:{member.offset_data}:{member.size}"}
                    continue
                file = tar.extractfile(member)
                row = json.load(file) if file else {}
                for obj in row["objects"]:
                    rle = read_mask(obj["segmentation"], row["height"], row["width"])
                    name = pictures.get(key, row["file_name"])
                    yield Referred(name, row["image_id"], obj["ref_id"], rle, tuple(obj["sentences"]))


def pictures_inside(root: Path, split: str) -> TarMembers | read_tables.TableRows | None:
    """The reader of the pictures that a webdataset or hf export holds itself; None where it holds none."""
    if read_tables.hf_files(root, split):
        with _named_damage(root, "hf"):
            return read_tables.TableRows(root) if read_tables.hf_has_pictures(root, split) else None
    for path in sorted(root.glob(f"{split}-[0-9]*.tar"))[:1]:
        with _named_damage(root, "webdataset"), tarfile.open(path) as tar:
            first = tar.next()
            return TarMembers(root) if first is not None and first.name.endswith(".jpg") else None
    return None


def _sa2va_file(root: Path, split: str) -> Path | None:
    name = "annotations.json" if split == "train" else f"annotations_{split}.json"
    found = [path for path in (root / name, *sorted(root.glob(f"*/{name}"))) if path.is_file()]
    return found[0] if found else None


def _by_id(rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {row["id"]: row for row in rows}


def _union(annotations: list[dict[str, Any]], image: Mapping[str, Any]) -> Rle:
    """The union of the masks of annotations; an empty mask where there are none."""
    height, width = image["height"], image["width"]
    masks = [read_mask(one["segmentation"], height, width) for one in annotations]
    if not masks:
        return rle_from_counts([height * width], height, width)
    if len(masks) == 1:
        return masks[0]
    merged = coco_mask.merge([mask.to_coco() for mask in masks])
    return Rle(height, width, merged["counts"].decode("ascii"))
