"""Stage 4, second half: from the index to files of other people's formats; a folder appears whole or not at all."""

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
from pseudoris_cli.sources.base import FileReader, Source
from pseudoris_cli.storage import files
from pseudoris_cli.storage.manifest import Manifest
from pseudoris_cli.storage.parts import read_part
from pseudoris_cli.storage.plan import Plan
from pseudoris_cli.storage.rows import masks_by_image
from pseudoris_cli.storage.schema import Columns

REVISION = 2
"""Raised where the same artifacts give other files than before, so that a folder made before is made anew."""
_SCORES = ("correctness", "uniqueness", "doc")


@dataclass(frozen=True)
class Rendering:
    """What to render: which parts, in which formats, under which names."""

    plan: Plan
    manifests: dict[str, Manifest]
    source: Source
    formats: tuple[str, ...]
    dataset: str
    split_by: str
    split: str
    images: ImageMode
    provenance: dict[str, Any]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides the files: equal identities give equal bytes."""
        digest = hashlib.sha256()
        for stage in ("masks", "filter", "export"):
            for _, entry in sorted(self.manifests[stage].entries.items()):
                digest.update(entry.file.sha256.encode())
        return {
            "formats": list(self.formats),
            "dataset": self.dataset,
            "split_by": self.split_by,
            "images": self.images,
            "revision": REVISION,
            "artifacts": digest.hexdigest(),
        }


def render(job: Rendering, out: Path, overwrite: bool) -> bool:
    """Write all formats below `out`; False if it holds exactly this export already.

    The folder is written beside `out` and renamed, so a crash leaves the old state. UsageError (exit 2) if `out` holds
    something that no export made, unless `overwrite`.
    """
    formats = [base.load_format(name) for name in job.formats]
    _finish_publishing(out)
    if destination.made_by_us(out) == job.identity:
        return False
    destination.check(out, overwrite, [])
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
        )
        base.render(formats, stream(job, base.wants_candidates(formats)), context, staging)
        (staging / destination.MARKER).write_text(
            json.dumps({"export": job.identity, **job.provenance}, indent=2), encoding="utf-8"
        )
        _publish(staging, out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return True


def stream(job: Rendering, candidates: bool) -> Iterator[ExportImage]:
    """Every image with a referred mask (or, with `candidates`, any scored mask) in plan order, read part by part."""
    shares = splits.parse(job.split)
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
                    split=splits.assign(ref.key, shares),
                    objects=objects,
                    candidates=all_scored,
                )


Scored = dict[tuple[str, int], dict[int, ExportCandidate]]
Kept = dict[tuple[str, int], tuple[int, int, list[tuple[int, int]]]]


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
    """ref_id, ann_id and (sent_id, candidate_id) of every referred mask; rows are best first already."""
    found: Kept = {}
    if not columns:
        return found
    names = ("image_key", "mask_id", "ref_id", "ann_id", "sent_id", "candidate_id")
    for key, mask_id, ref_id, ann_id, sent_id, candidate_id in zip(*(columns[n] for n in names), strict=True):
        entry = found.setdefault((key, int(mask_id)), (int(ref_id), int(ann_id), []))
        entry[2].append((int(sent_id), int(candidate_id)))
    return found


def _object(ref: ImageRef, mask: Mask, kept: Kept, scored: Scored) -> ExportObject | None:
    place = (ref.key, mask.mask_id)
    if place not in kept:
        return None
    ref_id, ann_id, rows = kept[place]
    sentences = tuple(ExportSentence(sent_id=sent_id, **asdict(scored[place][number])) for sent_id, number in rows)
    category = mask.category or base.OBJECT_CATEGORY
    return ExportObject(ref_id=ref_id, ann_id=ann_id, mask=mask, sentences=sentences, category=category)


def _scored(ref: ImageRef, mask: Mask, scored: Scored) -> ScoredMask:
    candidates = scored.get((ref.key, mask.mask_id), {})
    return ScoredMask(mask=mask, candidates=tuple(candidates[number] for number in sorted(candidates)))


def _read(manifest: Manifest, part: int) -> Columns:
    entry = manifest.entries.get(part)
    return read_part(manifest.path_of(entry)) if entry else {}


def _locate(source: Source, key: str) -> Path | None:
    """The file of a picture that can be handed on as it is."""
    if not isinstance(source, FileReader):
        raise UsageError("the pictures of this source lie inside another file; use --images copy or none, not link")
    path = source.path(key)
    with path.open("rb") as file:
        return path if is_portable(file) else None


def _publish(staging: Path, out: Path) -> None:
    """Replace `out` by the finished folder."""
    files.sync_tree(staging)
    if out.exists() or out.is_symlink():
        files.publish(out, _replaced(out))
    files.publish(staging, out)
    files.sync_folder(out.parent)
    _remove(_replaced(out))


def _finish_publishing(out: Path) -> None:
    """Mend what a crash within `_publish` left: the state before it where the new one has no name yet."""
    old = _replaced(out)
    if not out.exists() and not out.is_symlink() and (old.exists() or old.is_symlink()):
        files.publish(old, out)
    _remove(old)


def _replaced(out: Path) -> Path:
    return out.with_name(f".{out.name}.replaced")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
