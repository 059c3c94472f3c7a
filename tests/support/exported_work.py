"""A work directory of three pictures up to the index of an export, made row by row: what rendering starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pseudoris_cli.export.render import ExportJob
from pseudoris_cli.records import ImageRef, Mask
from pseudoris_cli.rle import encode_rle, rle_area, rle_bbox
from pseudoris_cli.sources.folder import Folder
from pseudoris_cli.storage.manifest import ImageOutcome, ManifestWriter
from pseudoris_cli.storage.rows import mask_row
from pseudoris_cli.storage.schema import COLUMNS, SCHEMA_VERSION
from pseudoris_cli.storage.workspace import Workspace

NULL = float("nan")


def mask(mask_id: int, category: tuple[int, str] | None = None) -> Mask:
    pixels = np.zeros((6, 8), bool)
    pixels[1 : 3 + mask_id, 2:5] = True
    rle = encode_rle(pixels)
    return Mask(mask_id, rle, rle_bbox(rle), rle_area(rle), 0.5, 0.75, category=category)


REFS = [ImageRef("a.png", 5, "a.png"), ImageRef("b.png", 5, "../b.png"), ImageRef("c.png", 9, "c.png")]
"""The second has the id of the first; the third has masks, but nothing kept."""
MASKS = [(0, mask(0)), (0, mask(1, (18, "dog"))), (1, mask(0)), (2, mask(0)), (2, mask(1))]
FILTERED = [
    (0, 0, 0, "one", 0.25, 1.5, 1.5, True),
    (0, 0, 1, "two", 0.25, 1.5, 2.5, True),
    (0, 1, 0, "three", 0.5, 1.0, 2.0, True),
    (1, 0, 3, "alone", 0.75, NULL, NULL, True),
    (2, 0, 0, "no", 0.125, 0.5, 0.5, False),
]
"""(image, mask, candidate, caption, correctness, uniqueness, doc, kept)"""
INDEX = [(1, 0, 0, 1), (1, 0, 0, 0), (2, 0, 1, 0), (3, 1, 0, 3)]
"""(ref, image, mask, candidate); sentences are numbered 11, 12, ..."""


@dataclass
class Made:
    """A work directory up to the index, one image a part, and its pictures."""

    workspace: Workspace
    pictures: Path

    def commit(self, stage: str, part: int, rows: list[dict[str, Any]]) -> None:
        content = {"schema": SCHEMA_VERSION, "upstream": None, "plan": "plan.jsonl"}
        artifact = self.workspace.open_version(stage, content, {})
        columns = {column.name: [row[column.name] for row in rows] for column in COLUMNS[stage]}
        with ManifestWriter(artifact.folder, stage, "main", {}) as writer:
            writer.commit(part, columns, [ImageOutcome(REFS[part].key, "done", len(rows))], None, {}, 0.0)

    def job(self, **changes: Any) -> ExportJob:
        manifests = {stage: self.workspace.latest(stage).manifest() for stage in ("masks", "filter", "export")}
        given: dict[str, Any] = {
            "formats": ("jsonl",),
            "dataset": "refcoco",
            "split_by": "pseudo",
            "split": "train=1",
            "images": "none",
            "provenance": {"made": "here"},
        }
        return ExportJob(
            plan=self.workspace.plan(), manifests=manifests, source=Folder(self.pictures), **(given | changes)
        )


def make_work(folder: Path) -> Made:
    """Three parts of one image each."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for ref in REFS:
        Image.new("RGB", (8, 6), (ref.image_id, 0, 0)).save(pictures / ref.key)
    workspace = Workspace(folder / "work")
    workspace.create()
    workspace.plan().extend(REFS, 1)
    made = Made(workspace, pictures)
    for part in range(3):
        key = {"image_key": REFS[part].key, "image_id": 0, "split": "train"}
        made.commit("masks", part, [mask_row(REFS[part], m) for image, m in MASKS if image == part])
        names = ("mask_id", "candidate_id", "caption", "correctness", "uniqueness", "doc", "kept")
        plain = {"crop": "masked", "sampler": "beam", "logprob": -1.0, "tokens": 3, "noun": "x", "flags": ""}
        plain |= {"duplicates": 1, "reason": ""}
        filtered = [plain | key | dict(zip(names, row[1:], strict=True)) for row in FILTERED if row[0] == part]
        made.commit("filter", part, filtered)
        index = [
            key
            | {"ref_id": ref, "ann_id": 100 + ref, "sent_id": 11 + n, "mask_id": m, "candidate_id": c, "caption": "?"}
            for n, (ref, image, m, c) in enumerate(INDEX)
            if image == part
        ]
        made.commit("export", part, index)
    return made
