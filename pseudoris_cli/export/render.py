"""The second half of the export: from the index to the files of each format. The folder is written atomically."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pseudoris_cli.codecs.image_upright import is_portable, portable
from pseudoris_cli.errors import UsageError
from pseudoris_cli.export import base, destination, splits
from pseudoris_cli.export.base import (
    ExportCandidate,
    ExportContext,
    ExportImage,
    ExportObject,
    ExportSentence,
    ImageMode,
    ScoredMask,
)
from pseudoris_cli.records import ImageRef, Mask
from pseudoris_cli.settings import plugins
from pseudoris_cli.settings.models import SegmentationStyle
from pseudoris_cli.sources.base import FileReader, Source
from pseudoris_cli.storage import files
from pseudoris_cli.storage.manifest import Manifest
from pseudoris_cli.storage.parts import read_part
from pseudoris_cli.storage.plan import Plan
from pseudoris_cli.storage.rows import masks_by_image
from pseudoris_cli.storage.schema import Columns

REVISION = 2
"""Increase it when the same artifacts give other files than before, so that existing exports are made again."""
_SCORES = ("correctness", "uniqueness", "doc")


@dataclass(frozen=True)
class ExportJob:
    """What to export: which parts, in which formats, under which names.

    `manifests` are those of the stages `masks`, `filter` and `export`; `split` is the text of `--split`.
    """

    plan: Plan
    manifests: dict[str, Manifest]
    source: Source
    formats: tuple[str, ...]
    dataset: str
    split_by: str
    split: str
    images: ImageMode
    provenance: dict[str, Any]
    segmentation: SegmentationStyle = "polygon"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the files: equal identities give equal bytes."""
        digest = hashlib.sha256()
        for stage in ("masks", "filter", "export"):
            for _, entry in sorted(self.manifests[stage].entries.items()):
                digest.update(entry.file.sha256.encode())
        plug_ins = {name: owner for name in self.formats if (owner := plugins.identity(plugins.FORMATS, name))}
        more: dict[str, Any] = {"plug_ins": plug_ins} if plug_ins else {}
        if self.segmentation != "rle" and base.follows_segmentation([base.load_format(name) for name in self.formats]):
            more["segmentation"] = self.segmentation  # what older exports have is not named, so that they stay
        return more | {
            "formats": list(self.formats),
            "dataset": self.dataset,
            "split_by": self.split_by,
            "images": self.images,
            "revision": REVISION,
            "artifacts": digest.hexdigest(),
        }


def render_export(job: ExportJob, out: Path, overwrite: bool) -> bool:
    """Write all formats below `out`; returns False, and writes nothing, if `out` holds exactly this export already.

    The folder is written beside `out` and renamed, so a crash leaves the old state. UsageError (exit 2) if `out` holds
    something that no export made, unless `overwrite`.
    """
    formats = [base.load_format(name) for name in job.formats]
    _finish_publishing(out)
    if destination.export_identity(out) == job.identity:
        return False
    destination.check(out, overwrite)
    staging = out.with_name(f".{out.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        context = ExportContext(
            dataset=job.dataset,
            split_by=job.split_by,
            images=job.images,
            read_image=lambda key: portable(job.source.read(key)),
            locate_image=lambda key: _locate(job.source, key),
            provenance=job.provenance,
            segmentation=job.segmentation,
        )
        base.write_formats(formats, stream(job, base.wants_candidates(formats)), context, staging)
        figures = context.polygons.figures()
        made = {"export": job.identity, **job.provenance} | ({"polygons": figures} if figures else {})
        (staging / destination.MARKER).write_text(json.dumps(made, indent=2), encoding="utf-8")
        _publish(staging, out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return True


def polygon_figures(out: Path) -> dict[str, Any] | None:
    """How exactly the polygons of the export in `out` give back their masks (`Polygons.figures`); None where it has none."""
    made: dict[str, Any] = json.loads((out / destination.MARKER).read_text(encoding="utf-8"))
    return made.get("polygons")


def stream(job: ExportJob, candidates: bool) -> Iterator[ExportImage]:
    """Every image with a referred mask (or, with `candidates`, any scored mask) in plan order, read part by part."""
    fractions = splits.parse(job.split)
    ids = splits.ImageIds()
    for part in job.plan.parts:
        columns = {stage: _read(job.manifests[stage], part.part) for stage in ("masks", "filter", "export")}
        masks = masks_by_image(columns["masks"]) if columns["masks"] else {}
        scored = _by_mask(columns["filter"])
        kept = _kept(columns["export"])
        for ref in job.plan.images(part.part):
            image_id = ids.take(ref.key, ref.image_id)
            found = masks.get(ref.key, ())
            objects = tuple(o for mask in found if (o := _object(ref, mask, kept, scored)))
            all_scored = tuple(_scored(ref, mask, scored) for mask in found) if candidates else ()
            if objects or all_scored:
                yield ExportImage(
                    image_key=ref.key,
                    image_id=image_id,
                    file_name=base.export_name(ref.file_name),
                    width=found[0].rle.width,
                    height=found[0].rle.height,
                    split=splits.assign(ref.key, fractions),
                    objects=objects,
                    candidates=all_scored,
                )


@dataclass(frozen=True, slots=True)
class KeptMask:
    """The ids of a referred mask in the export, and its (sent_id, candidate_id) pairs, best first."""

    ref_id: int
    ann_id: int
    sentences: list[tuple[int, int]]


Scored = dict[tuple[str, int], dict[int, ExportCandidate]]
Kept = dict[tuple[str, int], KeptMask]


def _by_mask(columns: Columns) -> Scored:
    found: Scored = defaultdict(dict)
    if not columns:
        return found
    names = ("image_key", "mask_id", "candidate_id", "caption", "crop", "sampler", *_SCORES)
    for key, mask_id, candidate_id, caption, crop, sampler, *scores in zip(*(columns[n] for n in names), strict=True):
        numbers = {name: None if value != value else float(value) for name, value in zip(_SCORES, scores, strict=True)}
        found[key, int(mask_id)][int(candidate_id)] = ExportCandidate(
            candidate_id=int(candidate_id), caption=caption, crop=crop, sampler=sampler, **numbers
        )
    return found


def _kept(columns: Columns) -> Kept:
    """Every referred mask by (image key, mask id); the rows of a mask are best first already."""
    found: Kept = {}
    if not columns:
        return found
    names = ("image_key", "mask_id", "ref_id", "ann_id", "sent_id", "candidate_id")
    for key, mask_id, ref_id, ann_id, sent_id, candidate_id in zip(*(columns[n] for n in names), strict=True):
        mask = found.setdefault((key, int(mask_id)), KeptMask(int(ref_id), int(ann_id), []))
        mask.sentences.append((int(sent_id), int(candidate_id)))
    return found


def _object(ref: ImageRef, mask: Mask, kept: Kept, scored: Scored) -> ExportObject | None:
    found, candidates = kept.get((ref.key, mask.mask_id)), scored.get((ref.key, mask.mask_id), {})
    if found is None:
        return None
    sentences = tuple(
        ExportSentence(sent_id=sent_id, **asdict(candidates[candidate_id])) for sent_id, candidate_id in found.sentences
    )
    category = mask.category or base.OBJECT_CATEGORY
    return ExportObject(ref_id=found.ref_id, ann_id=found.ann_id, mask=mask, sentences=sentences, category=category)


def _scored(ref: ImageRef, mask: Mask, scored: Scored) -> ScoredMask:
    candidates = scored.get((ref.key, mask.mask_id), {})
    return ScoredMask(mask=mask, candidates=tuple(candidates[number] for number in sorted(candidates)))


def _read(manifest: Manifest, part: int) -> Columns:
    entry = manifest.entries.get(part)
    return read_part(manifest.path_of(entry)) if entry else {}


def _locate(source: Source, key: str) -> Path | None:
    """The file of an image, if it can be linked to as it is; None if it must be rotated first."""
    if not isinstance(source, FileReader):
        raise UsageError(
            "this source stores its images inside another file, so they cannot be linked. Use --images copy or none"
        )
    path = source.path(key)
    with path.open("rb") as file:
        return path if is_portable(file) else None


def _publish(staging: Path, out: Path) -> None:
    """Replace `out` by the finished folder."""
    files.sync_tree(staging)
    if out.exists() or out.is_symlink():
        files.publish(out, _backup_of(out))
    files.publish(staging, out)
    files.sync_folder(out.parent)
    _remove(_backup_of(out))


def _finish_publishing(out: Path) -> None:
    """Recover from a crash within `_publish`: restore the old folder where the new one was not published yet."""
    old = _backup_of(out)
    if not out.exists() and not out.is_symlink() and (old.exists() or old.is_symlink()):
        files.publish(old, out)
    _remove(old)


def _backup_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.replaced")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
