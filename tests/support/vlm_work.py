"""Work directories with masks, ready for captions by a vision-language model, and the command that asks for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from invoking import Outcome, invoke
from locations import REPOSITORY
from PIL import Image

from pseudoris_cli.records import Mask, Rle
from pseudoris_cli.rle import encode_rle, rle_area, rle_bbox
from pseudoris_cli.sources import registry as sources
from pseudoris_cli.storage.manifest import ImageOutcome, ManifestWriter
from pseudoris_cli.storage.parts import digest_of
from pseudoris_cli.storage.rows import mask_row
from pseudoris_cli.storage.schema import COLUMNS, SCHEMA_VERSION
from pseudoris_cli.storage.workspace import Workspace

RANDOM = {
    "masks": {
        "sam": {
            "backend": "sam",
            "model": "tiny",
            "checkpoint": "random:0",
            "points_per_side": 4,
            "pred_iou_thresh": 0,
        },
        "proposals": {"backend": "coco_masks", "path": ""},
    },
    "filter": {
        "scorer": {"backend": "clip", "model": "tiny", "checkpoint": "random:0"},
        "nouns": {"backend": "nouns", "pipeline": "blank"},
        "min_doc": -100,
    },
}


def write_config(path: Path, endpoint: str, **captions: Any) -> Path:
    """Settings with tiny random networks, masks from `instances.json` beside the images, and captions by an endpoint."""
    own = {
        "backend": "vlm",
        "endpoint": endpoint,
        "candidates": 2,
        "temperature": 0.0,
        "max_tokens": 60,
        "max_side": 256,
    }
    masks = {**RANDOM["masks"], "proposals": {"backend": "coco_masks", "path": str(path.parent / "instances.json")}}
    path.write_text(yaml.safe_dump({**RANDOM, "masks": masks, "captions": own | captions}))
    return path


def draw_work(folder: Path, images: int, endpoint: str, part_size: int = 4, masks: int = 3, **captions: Any) -> None:
    """Images with coloured boxes, their masks as the masks stage writes them (`make_masks`), and the file of settings."""
    draw_images(folder, images, masks)
    write_config(folder / "settings.yaml", endpoint, **captions)
    make_masks(folder, part_size)


def draw_images(folder: Path, images: int, masks: int) -> None:
    """Images with coloured boxes, and a COCO file of them."""
    (folder / "images").mkdir(parents=True)
    records, annotations = [], []
    for number in range(images):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 60, (96, 128, 3), np.uint8)
        for place in range(masks):
            mask = np.zeros((96, 128), bool)
            mask[10 + 25 * place : 32 + 25 * place, 10 + 20 * (number % 4) : 40 + 20 * (number % 4)] = True
            pixels[mask] = rng.integers(100, 256, 3)
            segmentation = {"size": [96, 128], "counts": encode_rle(mask).counts}
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": segmentation,
                    "iscrowd": 0,
                }
            )
        Image.fromarray(pixels).save(folder / "images" / f"{number:03d}.png")
        records.append({"id": number, "file_name": f"{number:03d}.png", "height": 96, "width": 128})
    content = {"images": records, "annotations": annotations, "categories": [{"id": 1, "name": "box"}]}
    (folder / "instances.json").write_text(json.dumps(content))


def make_masks(folder: Path, part_size: int) -> None:
    """The masks of the COCO file, written without running the stage, whose networks need torch: most tests need none here."""
    workspace = Workspace(folder / "work")
    workspace.create()
    description = sources.describe(folder / "images", {}, None)
    workspace.set_source(description)
    source = sources.open_source(description)
    plan = workspace.plan()
    plan.extend(source.images(), part_size)
    annotations = json.loads((folder / "instances.json").read_text())["annotations"]
    content = {
        "schema": SCHEMA_VERSION,
        "upstream": None,
        "plan": plan.path.name,
        "revision": 1,
        "settings": {"max_pixels": 10**8},
    }
    artifact = workspace.open_version("masks", content, {"created": "2026-01-01T00:00:00+00:00", "checkpoints": {}})
    with ManifestWriter(artifact.folder, "masks", "main", {}) as writer:
        for part in range(len(plan)):
            rows, outcomes = [], []
            for ref in plan.images(part):
                rles = [
                    Rle(96, 128, one["segmentation"]["counts"])
                    for one in annotations
                    if one["image_id"] == int(Path(ref.key).stem)
                ]
                rows += [
                    mask_row(ref, Mask(number, rle, rle_bbox(rle), rle_area(rle), 0.9, 0.9))
                    for number, rle in enumerate(rles)
                ]
                stamp, digest = source.stamp(ref.key), digest_of(folder / "images" / ref.key)
                assert stamp is not None
                outcomes.append(ImageOutcome(ref.key, "done", len(rles), None, stamp.size, stamp.mtime_ns, digest))
            names = [column.name for column in COLUMNS["masks"]]
            writer.commit(part, {name: [row[name] for row in rows] for name in names}, outcomes, None, {}, 1.0)
    workspace.settle(artifact)


def common(folder: Path) -> tuple[str | Path, ...]:
    """The flags that every command has here."""
    return ("--work", folder / "work", "--config", folder / "settings.yaml", "--device", "cpu")


def caption(folder: Path, *more: str | Path) -> Outcome:
    """`pseudoris captions` in the folder."""
    return invoke("captions", *common(folder), *more)


def notes_of(folder: Path) -> list[dict[str, Any]]:
    """The notes of every captions part in the manifest."""
    entries = Workspace(folder / "work").latest("captions").manifest().entries
    return [entries[part].notes for part in sorted(entries)]


def journal(folder: Path) -> list[Path]:
    """The journals that there are."""
    return list((folder / "work").rglob("requests-*.jsonl"))


def start(command: str, folder: Path) -> subprocess.Popen[str]:
    """The real command on the work directory, in a process of its own."""
    call = [sys.executable, "-m", "pseudoris_cli", command, *map(str, common(folder))]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        call, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for what another process does."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.01)
