"""From the parts of a work directory to the images of an export: masks, kept sentences, candidates and references, joined."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count

from pseudoris_cli.export import base, splits
from pseudoris_cli.export.base import (
    ExportCandidate,
    ExportImage,
    ExportObject,
    ExportReference,
    ExportSentence,
    ScoredMask,
)
from pseudoris_cli.export.choice import Choice
from pseudoris_cli.records import ImageRef, Mask
from pseudoris_cli.storage.copies import copies
from pseudoris_cli.storage.manifest import Manifest
from pseudoris_cli.storage.parts import read_part
from pseudoris_cli.storage.plan import Plan
from pseudoris_cli.storage.rows import masks_by_image, optional_float
from pseudoris_cli.storage.schema import Columns

FIRST_EXTRA_ID = 10**12
"""Ids of references to several objects or none begin here, of their sentences, and of objects that nothing else refers to: the
index counts referred masks and sentences from 1 and never comes so far, so neither changes when the other grows."""
NO_TARGET = -1
"""`mask_id` of the judge's expressions that mean nothing in the image."""
_SCORES = ("correctness", "uniqueness", "doc")


@dataclass(frozen=True)
class Artifacts:
    """What an export is read from, and what of it is wanted: every scored candidate, references other than to one object."""

    plan: Plan
    manifests: dict[str, Manifest]
    candidates: bool
    references: bool

    def columns(self, part: int) -> dict[str, Columns]:
        """The rows of a part by stage; {} for a stage without it."""
        stages = ["masks", "filter", "export", *(["judge"] if self.references else [])]
        return {name: _read(self.manifests[name], part) if name in self.manifests else {} for name in stages}


def stream_images(artifacts: Artifacts, chosen_splits: splits.Splits, choice: Choice) -> Iterator[ExportImage]:
    """Every chosen image with a referred mask (or any scored mask, or a reference to none) in plan order, part by part.

    UsageError for a split's list that names none of the images.
    """
    choice.check(artifacts.plan)
    if chosen_splits.several:
        chosen_splits.keep_together(copies(artifacts.manifests["masks"]))
    ids, extra = splits.ImageIds(), count(FIRST_EXTRA_ID)
    for part in artifacts.plan.parts:
        columns = artifacts.columns(part.part)
        masks = masks_by_image(columns["masks"]) if columns["masks"] else {}
        scored, kept = _by_mask(columns["filter"]), _kept(columns["export"])
        judged = _judged(columns.get("judge", {}))
        for ref in artifacts.plan.images(part.part):
            image_id, split = ids.take(ref.key, ref.image_id), chosen_splits.of(ref.key)
            every = masks.get(ref.key, ())
            found = tuple(mask for mask in every if choice.is_large(mask))
            objects = tuple(o for mask in found if (o := _object(ref, mask, kept, scored)))
            more = _references(judged.get(ref.key, {}), every, objects, extra)
            more = tuple(one for one in more if all(choice.is_large(o.mask) for o in one.objects))
            all_scored = tuple(_scored(ref, mask, scored) for mask in found) if artifacts.candidates else ()
            if split is None or not choice.takes(ref.key) or not (objects or all_scored or more):
                continue
            yield ExportImage(
                image_key=ref.key,
                image_id=image_id,
                file_name=base.export_name(ref.file_name),
                width=every[0].rle.width,
                height=every[0].rle.height,
                split=split,
                objects=objects,
                candidates=all_scored,
                more_references=more,
            )
    chosen_splits.check_used()


Judged = dict[str, dict[tuple[str, tuple[int, ...]], int]]
"""By image key: (expression, ids of the masks that it means) -> a candidate id, in the order of the part."""


def _judged(columns: Columns) -> Judged:
    """Expressions that the listener takes for several masks, their own among them, or for none of the image."""
    found: Judged = defaultdict(dict)
    if not columns or "listener_targets" not in columns:
        return found
    names = ("image_key", "mask_id", "candidate_id", "caption", "listener_targets")
    for key, mask_id, candidate_id, caption, targets in zip(*(columns[n] for n in names), strict=True):
        if int(mask_id) == NO_TARGET:
            found[key].setdefault((caption, ()), int(candidate_id))
        elif targets is not None and len(targets) > 1 and mask_id in targets:
            found[key].setdefault((caption, tuple(sorted(map(int, targets)))), int(candidate_id))
    return found


def _references(
    judged: dict[tuple[str, tuple[int, ...]], int],
    masks: tuple[Mask, ...],
    objects: tuple[ExportObject, ...],
    extra: Iterator[int],
) -> tuple[ExportReference, ...]:
    """One reference for each set of masks, with its expressions; a mask without kept captions of its own becomes an object."""
    by_targets: dict[tuple[int, ...], list[ExportSentence]] = {}
    for (caption, targets), candidate_id in judged.items():
        sentence = ExportSentence(sent_id=next(extra), candidate_id=candidate_id, caption=caption)
        by_targets.setdefault(targets, []).append(sentence)
    known = {obj.mask.mask_id: obj for obj in objects}
    by_id = {mask.mask_id: mask for mask in masks}
    made = []
    for targets, sentences in by_targets.items():
        ref_id = next(extra)
        for mask_id in targets:
            if mask_id not in known:
                mask = by_id[mask_id]
                category = mask.category or base.OBJECT_CATEGORY
                known[mask_id] = ExportObject(
                    ref_id=ref_id, ann_id=next(extra), mask=mask, sentences=(), category=category
                )
        made.append(
            ExportReference(ref_id=ref_id, objects=tuple(known[m] for m in targets), sentences=tuple(sentences))
        )
    return tuple(made)


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
    scores_of = [*_SCORES, *(["listener"] if "listener" in columns else [])]
    names = ("image_key", "mask_id", "candidate_id", "caption", "crop", "sampler", *scores_of)
    for key, mask_id, candidate_id, caption, crop, sampler, *scores in zip(*(columns[n] for n in names), strict=True):
        numbers = {name: optional_float(value) for name, value in zip(scores_of, scores, strict=True)}
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
