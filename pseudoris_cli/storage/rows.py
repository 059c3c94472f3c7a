"""Between records and the columns of parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from pseudoris_cli.records import Caption, ImageRef, Mask, Rle
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
    """A row of the captions artifact."""
    return {
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


def masks_by_image(columns: Columns) -> dict[str, tuple[Mask, ...]]:
    """The masks of each image of a part, in order of mask_id."""
    found: dict[str, list[Mask]] = defaultdict(list)
    names = ("image_key", "mask_id", "rle_size", "rle_counts", "bbox", "area", "predicted_iou", "stability_score")
    optional = ("detector_score", "match_iou", "category_id", "category")  # the last two are new in schema version 2
    nothing = [None] * len(columns["image_key"])
    values = (*(columns[name] for name in names), *(columns.get(name, nothing) for name in optional))
    for row in zip(*values, strict=True):
        key, mask_id, (height, width), counts, bbox, area, predicted_iou, stability, *known = row
        score, match_iou, category_id, category = known
        found[key].append(
            Mask(
                int(mask_id),
                Rle(height, width, counts),
                (bbox[0], bbox[1], bbox[2], bbox[3]),
                int(area),
                float(predicted_iou),
                float(stability),
                _present(score),
                _present(match_iou),
                None if category is None else (int(category_id), category),
            )
        )
    return {key: tuple(sorted(masks, key=lambda mask: mask.mask_id)) for key, masks in found.items()}


def candidates_by_image(columns: Columns) -> dict[str, list[tuple[int, int, str]]]:
    """(mask_id, candidate_id, caption) of each image of a captions part."""
    found: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for key, mask_id, candidate_id, caption in zip(
        columns["image_key"], columns["mask_id"], columns["candidate_id"], columns["caption"], strict=True
    ):
        found[key].append((int(mask_id), int(candidate_id), caption))
    return dict(found)


def kept_rows(columns: Columns) -> Iterator[tuple[str, int, float, int, str]]:
    """(image_key, mask_id, -doc, candidate_id, caption) of the kept rows: images in part order, masks in order, best first.

    With one mask there is no DoC; correctness ranks instead.
    """
    place = {key: number for number, key in enumerate(dict.fromkeys(columns["image_key"]))}
    names = ("image_key", "mask_id", "doc", "correctness", "candidate_id", "caption", "kept")
    rows = []
    for key, mask_id, doc, correctness, candidate_id, caption, kept in zip(*(columns[n] for n in names), strict=True):
        if kept:
            merit = doc if doc == doc else correctness if correctness == correctness else 0.0
            rows.append((key, int(mask_id), -float(merit), int(candidate_id), caption))
    rows.sort(key=lambda row: (place[row[0]], *row[1:4]))
    return iter(rows)


def _present(value: float | None) -> float | None:
    return None if value is None or value != value else float(value)  # NaN stands for null
