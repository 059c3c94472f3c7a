"""Work directories to report on: rendered scenes with their true masks, and made-up captions and scores for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from pseudoris_cli.demo import grammar
from pseudoris_cli.demo.world import Scene, render_scene, scene_seed
from pseudoris_cli.method import filter_summary, selection
from pseudoris_cli.records import CROP_KINDS, Category
from pseudoris_cli.rle import encode_rle, rle_area, rle_bbox
from pseudoris_cli.settings.models import FilterSettings
from pseudoris_cli.sources import registry as sources
from pseudoris_cli.storage.manifest import ImageOutcome, ManifestWriter
from pseudoris_cli.storage.parts import digest_of
from pseudoris_cli.storage.plan import pilot_plan
from pseudoris_cli.storage.schema import COLUMNS, SCHEMA_VERSION
from pseudoris_cli.storage.workspace import Artifact, Workspace

SAMPLERS = ("beam", *(f"top_k={k}" for k in (5, 7, 9, 11, 13)), *(f"top_p={p}" for p in (0.4, 0.5, 0.6, 0.7, 0.8)))
SCRIPT = "the <script>alert('caption')</script> & \"square\""
Rows = list[dict[str, Any]]


class WorkMaker:
    """Makes a work directory stage by stage, as the stages would, with a `seed` for its captions and scores."""

    def __init__(self, folder: Path, scenes: int, part_size: int = 4, seed: int = 0) -> None:
        self.images = folder / "images"
        self.workspace = Workspace(folder / "work")
        self.workspace.create()
        self.rng = np.random.default_rng(seed)
        self.images.mkdir(parents=True)
        self.scenes: dict[str, Scene] = {}
        self._known: dict[tuple[str, str], tuple[str, set[int]]] = {}
        for number in range(scenes):
            name = f"{number:06d}.png"
            self.scenes[name] = render_scene(scene_seed("demo", number))
            Image.fromarray(self.scenes[name].image_rgb).save(self.images / name)
        description = sources.describe(self.images, {}, None)
        self.workspace.set_source(description)
        self.plan = self.workspace.plan()
        self.plan.extend(sources.open_source(description).images(), part_size)

    def begin_pilot(self, images: int) -> None:
        """From now on versions are those of a pilot."""
        self.plan = self.workspace.plan(pilot_plan(images))
        self.plan.extend(sources.open_source(self.workspace.source() or {}).images(), 4, images)

    def masks(
        self,
        checkpoint: str = "sam_vit_h",
        broken: str | None = None,
        categories: Mapping[int, Category] = MappingProxyType({}),
    ) -> Artifact:
        """True masks of every scene; `broken` is an image that is recorded as failed, `categories` go by mask id."""
        weights = {"sam": {"name": checkpoint, "digest": "0" * 64}, "proposals": {}}
        proposals = {"backend": "cascade_rcnn", "model": "r50_fpn", "checkpoint": "cutler_cascade"}
        settings = {"max_pixels": 10**8, "sam": {"model": "vit_h"}, "proposals": proposals}
        artifact = self._open("masks", None, {"settings": settings, "checkpoints": weights})

        def rows(part: int) -> Iterator[tuple[str, Rows]]:
            for ref in self.plan.images(part):
                found = [] if ref.key == broken else [encode_rle(m) for m in self.scenes[ref.key].masks]
                made = [self._mask_row(ref, number, rle) for number, rle in enumerate(found)]
                for row in made:
                    row["category_id"], row["category"] = categories.get(row["mask_id"], (None, None))
                yield ref.key, made

        self._commit(artifact, rows, failed=broken)
        return artifact

    def captions(self, masks: Artifact, parts: int | None = None, texts: tuple[str, ...] = ()) -> Artifact:
        """44 candidates a mask from the grammar, some untrue; `texts` are the first candidates of the very first mask."""
        settings = {"backend": "coca", "contrast": 1.0, "contrast_form": "literal"}
        weights = {"captions": {"name": "coca_cc3m", "digest": "1" * 64}}
        artifact = self._open("captions", masks, {"settings": settings, "checkpoints": weights})

        def rows(part: int) -> Iterator[tuple[str, Rows]]:
            for ref in self.plan.images(part):
                things = self.scenes[ref.key].attributes
                made = [row for number in range(len(things)) for row in self._caption_rows(ref, number, things)]
                for row, text in zip(made if ref == self.plan.images(0)[0] else [], texts, strict=False):
                    row["caption"] = text
                yield ref.key, made

        self._commit(artifact, rows, parts)
        return artifact

    def scores(self, captions: Artifact) -> Artifact:
        """Scores that know how many objects a caption holds for."""
        weights = {"scorer": {"name": "clip_rn50", "digest": "2" * 64}, "nouns": {"name": "nouns", "digest": "3" * 64}}
        artifact = self._open("scores", captions, {"settings": {"clamp": True}, "checkpoints": weights})

        def rows(part: int) -> Iterator[tuple[str, Rows]]:
            from pseudoris_cli.storage.parts import read_part

            manifest = captions.manifest()
            columns = read_part(manifest.path_of(manifest.entries[part]))
            made = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
            for ref in self.plan.images(part):
                yield ref.key, [self._score_row(row) for row in made if row["image_key"] == ref.key]

        self._commit(artifact, rows, len(captions.manifest().entries))
        return artifact

    def filter(self, scores: Artifact, min_doc: float = 1.0) -> Artifact:
        """The real selection."""
        from pseudoris_cli.storage.parts import read_part

        settings = FilterSettings(min_doc=min_doc)
        content = settings.model_dump(mode="json", exclude={*FilterSettings.SCORES})
        artifact = self._open("filter", scores, {"settings": content})
        captions = self.workspace.chain(scores)["captions"].manifest()
        manifest = scores.manifest()

        def rows(part: int) -> Iterator[tuple[str, Rows]]:
            columns = read_part(captions.path_of(captions.entries[part]))
            columns |= read_part(manifest.path_of(manifest.entries[part]))
            columns |= selection.select(columns, settings)
            wanted = [c.name for c in COLUMNS["filter"] if c.name in columns]
            made = [
                dict(zip(wanted, values, strict=True)) for values in zip(*(columns[n] for n in wanted), strict=True)
            ]
            for ref in self.plan.images(part):
                yield ref.key, [row for row in made if row["image_key"] == ref.key]

        self._commit(artifact, rows, len(manifest.entries))
        return artifact

    def all(self, texts: tuple[str, ...] = ()) -> Workspace:
        """Every stage up to the filter."""
        self.filter(self.scores(self.captions(self.masks(), texts=texts)))
        return self.workspace

    # --- rows -------------------------------------------------------------------------------------------------------

    def _mask_row(self, ref: Any, number: int, rle: Any) -> dict[str, Any]:
        return {
            "image_key": ref.key,
            "image_id": ref.image_id,
            "file_name": ref.file_name,
            "width": rle.width,
            "height": rle.height,
            "mask_id": number,
            "rle_size": [rle.height, rle.width],
            "rle_counts": rle.counts,
            "bbox": list(rle_bbox(rle)),
            "area": rle_area(rle),
            "predicted_iou": 0.95 - 0.02 * number,
            "stability_score": 0.97,
            "detector_score": None if number else 0.99,
            "match_iou": None if number else 0.91,
            "category_id": None,
            "category": None,
        }

    def _caption_rows(self, ref: Any, number: int, things: tuple[grammar.Attributes, ...]) -> Rows:
        own = list(grammar.claims(things[number]))
        rows = []
        for candidate, (crop, sampler) in enumerate((c, s) for c in CROP_KINDS for s in SAMPLERS):
            untrue = self.rng.random() < 0.25
            said = list(grammar.claims(things[self.rng.integers(len(things))])) if untrue else own
            rows.append(
                {
                    "image_key": ref.key,
                    "image_id": ref.image_id,
                    "mask_id": number,
                    "candidate_id": candidate,
                    "caption": grammar.phrase(said[self.rng.integers(len(said))]),
                    "crop": crop,
                    "sampler": sampler,
                    "logprob": -float(self.rng.gamma(4, 1.5)),
                    "tokens": int(self.rng.integers(4, 12)),
                }
            )
        return rows

    def _score_row(self, row: dict[str, Any]) -> dict[str, Any]:
        shape, holders = self._holders(row["image_key"], row["caption"])
        true = row["mask_id"] in holders
        correctness = self.rng.normal(0.27 if true else 0.18, 0.03)
        uniqueness = self.rng.normal(1.12 if true and len(holders) == 1 else 0.99 if true else 0.85, 0.07)
        return {
            "image_key": row["image_key"],
            "mask_id": row["mask_id"],
            "candidate_id": row["candidate_id"],
            "noun": shape,
            "correctness": correctness,
            "uniqueness": uniqueness,
            "doc": uniqueness * self.rng.normal(1, 0.04),
            "flags": "",
        }

    def _holders(self, key: str, caption: str) -> tuple[str, set[int]]:
        """The shape that a caption names, and the masks for which it holds."""
        if (key, caption) not in self._known:
            claim = grammar.parse(caption)
            things = self.scenes[key].attributes
            holders = {number for number, thing in enumerate(things) if claim and claim.holds(thing)}
            self._known[key, caption] = (claim.shape if claim else "", holders)
        return self._known[key, caption]

    # --- storage ----------------------------------------------------------------------------------------------------

    def _open(self, stage: str, upstream: Artifact | None, content: dict[str, Any]) -> Artifact:
        origin = {"schema": SCHEMA_VERSION, "upstream": upstream and upstream.version, "plan": self.plan.path.name}
        record = {"created": "2026-01-01T00:00:00+00:00", "packages": {"numpy": np.__version__}}
        return self.workspace.open_version(stage, {**origin, "revision": 1, **content}, record)

    def _commit(
        self,
        artifact: Artifact,
        rows: Callable[[int], Iterator[tuple[str, Rows]]],
        parts: int | None = None,
        failed: str | None = None,
    ) -> None:
        before = self.workspace.chain(artifact)
        upstream = before[list(before)[1]].manifest() if artifact.upstream else None
        names = [c.name for c in COLUMNS[artifact.stage]]
        with ManifestWriter(artifact.folder, artifact.stage, "main", {}) as writer:
            for part in range(len(self.plan) if parts is None else parts):
                answers = dict(rows(part))
                flat = [row for made in answers.values() for row in made]
                outcomes = [self._outcome(key, made, key == failed) for key, made in answers.items()]
                digest = upstream.entries[part].file.sha256 if upstream else None
                columns = {n: [row[n] for row in flat] for n in names}
                notes = _filter_notes(columns) if artifact.stage == "filter" else {}
                writer.commit(part, columns, outcomes, digest, notes, 1.0)
        self.workspace.settle(artifact)

    def _outcome(self, key: str, rows: Rows, failed: bool) -> ImageOutcome:
        digest = digest_of(self.images / key)
        if failed:
            return ImageOutcome(key, "failed", 0, "not an image of a known format", sha256=digest)
        return ImageOutcome(key, "done" if rows else "empty", len(rows), sha256=digest)


def _filter_notes(columns: dict[str, list[Any]]) -> dict[str, Any]:
    """What the filter stage notes of a part."""
    kept = [key for key in zip(columns["image_key"], columns["mask_id"], columns["kept"], strict=True) if key[2]]
    return {"summary": filter_summary.count(columns), "kept": len(kept), "kept_masks": len(set(kept))}
