"""Conversions between records and the columns of parts: one reader for the stages, the data set and the report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any, NamedTuple

from pseudoris_cli.records import Caption, CaptionCandidate, ImageRef, Mask, Rle
from pseudoris_cli.storage.schema import Columns


def mask_row(ref: ImageRef, mask: Mask) -> dict[str, Any]:
    """A row of the masks artifact."""
    return {
        "image_key": ref.key,
        "image_id": ref.image_id,
        "file_name": ref.file_name,
        "width": mask.rle.width,
        "height": mask.rle.height,
        "mask_id": mask.mask_id,
        "rle_size": [mask.rle.height, mask.rle.width],
        "rle_counts": mask.rle.counts,
        "bbox": list(mask.bbox),
        "area": mask.area,
        "predicted_iou": mask.predicted_iou,
        "stability_score": mask.stability_score,
        "detector_score": mask.detector_score,
        "match_iou": mask.match_iou,
        "category_id": mask.category and mask.category[0],
        "category": mask.category and mask.category[1],
    }


def caption_row(ref: ImageRef, caption: Caption) -> dict[str, Any]:
    """A row of the captions artifact; `kind` only where the captioner gives one."""
    row = {
        "image_key": ref.key,
        "image_id": ref.image_id,
        "mask_id": caption.mask_id,
        "candidate_id": caption.candidate_id,
        "caption": caption.caption,
        "crop": caption.crop,
        "sampler": caption.sampler,
        "logprob": caption.logprob,
        "tokens": caption.tokens,
    }
    return row if caption.kind is None else row | {"kind": caption.kind}


def captions_by_image(columns: Columns, keys: Collection[str] | None = None) -> dict[str, dict[int, list[Caption]]]:
    """The candidates of each image of a captions part by mask, in order; with `keys`, of these images only."""
    found: dict[str, dict[int, list[Caption]]] = defaultdict(lambda: defaultdict(list))
    for row in rows_of_images(columns, keys):
        caption = Caption(
            mask_id=int(row["mask_id"]),
            candidate_id=int(row["candidate_id"]),
            caption=row["caption"],
            crop=row["crop"],
            sampler=row["sampler"],
            logprob=float(row["logprob"]),
            tokens=int(row["tokens"]),
            kind=row.get("kind"),
        )
        found[row["image_key"]][caption.mask_id].append(caption)
    return {key: dict(masks) for key, masks in found.items()}


def masks_by_image(columns: Columns, keys: Collection[str] | None = None) -> dict[str, tuple[Mask, ...]]:
    """The masks of each image of a masks part, in order of mask_id; with `keys`, of these images only.

    Columns without rows, and no columns at all ({}), give {}. `category` is None where the part has no category columns
    (schema version 1).
    """
    found: dict[str, list[Mask]] = defaultdict(list)
    for row in rows_of_images(columns, keys):
        height, width = row["rle_size"]
        x, y, box_width, box_height = row["bbox"]
        category = row.get("category")
        found[row["image_key"]].append(
            Mask(
                mask_id=int(row["mask_id"]),
                rle=Rle(height, width, row["rle_counts"]),
                bbox=(x, y, box_width, box_height),
                area=int(row["area"]),
                predicted_iou=float(row["predicted_iou"]),
                stability_score=float(row["stability_score"]),
                detector_score=optional_float(row.get("detector_score")),
                match_iou=optional_float(row.get("match_iou")),
                category=None if category is None else (int(row["category_id"]), category),
            )
        )
    return {key: tuple(sorted(masks, key=lambda mask: mask.mask_id)) for key, masks in found.items()}


def candidates_by_image(columns: Columns) -> dict[str, list[CaptionCandidate]]:
    """The candidates of each image of a captions part."""
    found: dict[str, list[CaptionCandidate]] = defaultdict(list)
    for key, mask_id, candidate_id, caption in zip(
        columns["image_key"], columns["mask_id"], columns["candidate_id"], columns["caption"], strict=True
    ):
        found[key].append(CaptionCandidate(int(mask_id), int(candidate_id), caption))
    return dict(found)


def join(captions: Columns, scores: Columns) -> Columns:
    """Captions with their scores. Both parts hold the same candidates in the same order, images that failed in between
    excepted."""
    wanted = list(zip(*(scores[name] for name in ("image_key", "mask_id", "candidate_id")), strict=True))
    keys = list(zip(*(captions[name] for name in ("image_key", "mask_id", "candidate_id")), strict=True))
    if keys != wanted:
        present = set(wanted)
        rows = [number for number, key in enumerate(keys) if key in present]
        captions = {
            name: values[rows] if hasattr(values, "dtype") else [values[row] for row in rows]
            for name, values in captions.items()
        }
    return captions | scores


class KeptCaption(NamedTuple):
    """A kept row of a filter part. `order` is the negated score that ranks it within its mask: smaller is better."""

    image_key: str
    mask_id: int
    order: float
    candidate_id: int
    caption: str


def kept_rows(columns: Columns) -> list[KeptCaption]:
    """The kept rows of a filter part: images in the order of the part, masks by id, and the best caption of a mask first.

    DoC ranks them; an image with one mask has no DoC, and correctness ranks its captions instead.
    """
    position = {key: number for number, key in enumerate(dict.fromkeys(columns["image_key"]))}
    names = ("image_key", "mask_id", "doc", "correctness", "candidate_id", "caption", "kept")
    rows = []
    for key, mask_id, doc, correctness, candidate_id, caption, kept in zip(*(columns[n] for n in names), strict=True):
        if kept:
            score = next((value for value in map(optional_float, (doc, correctness)) if value is not None), 0.0)
            rows.append(KeptCaption(key, int(mask_id), -score, int(candidate_id), caption))
    rows.sort(key=lambda row: (position[row.image_key], row.mask_id, row.order, row.candidate_id))
    return rows


def rows_of_images(columns: Columns, keys: Collection[str] | None = None) -> list[dict[str, Any]]:
    """The rows of any part as dictionaries by column name; with `keys`, those of these images only. {} gives []."""
    if not columns:
        return []
    chosen = [number for number, key in enumerate(columns["image_key"]) if keys is None or key in keys]
    return [{name: values[number] for name, values in columns.items()} for number in chosen]


def optional_float(value: float | None) -> float | None:
    """A nullable number of a column: None for null, which columns also hold as NaN."""
    return None if value is None or value != value else float(value)
