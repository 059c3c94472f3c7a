"""What the filter did, in figures: the release's own, and what survived by sampler, by crop and by mask.

Counts of parts add up, so nothing has to be read twice: `count` one part, `add` the counts, `figures` of the sum.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from pseudoris_cli.method.selection import as_floats, factorize, flagged, mask_groups

Counts = dict[str, Any]
"""Nested plain dicts of numbers, fit for JSON."""

_SCORES = ("correctness", "uniqueness", "doc")


def count(columns: dict[str, Any]) -> Counts:
    """Counts and sums over the columns of the filter artifact (DESIGN.md §2); whole images."""
    return count_and_mark(columns)[0]


def count_and_mark(columns: dict[str, Any]) -> tuple[Counts, np.ndarray]:
    """What `count` gives, and where the text of a candidate is one that its mask keeps, here or in another row: bool [N]."""
    kept = np.asarray(columns["kept"], bool)
    group = mask_groups(columns)
    per_mask = np.bincount(group, weights=kept).astype(int)
    scores = {name: as_floats(columns[name]).astype(np.float64) for name in _SCORES}
    text, texts = factorize([caption.strip() for caption in columns["caption"]])
    said = group * max(len(texts), 1) + text  # the same text of another mask is another
    surviving = np.isin(said, said[kept])
    alone = flagged(columns["flags"], "one_mask")
    counts = {
        "images": len(set(columns["image_key"])),
        "one_mask_images": len(set(np.asarray(columns["image_key"], object)[alone])),
        "candidates": len(kept),
        "kept": int(kept.sum()),
        "doc_above_1": int((scores["doc"] > 1).sum()),
        "sums": {name: float(np.nansum(values)) for name, values in scores.items()},
        "scored": {name: int(np.isfinite(values).sum()) for name, values in scores.items()},
        "masks_by_kept": {str(n): int(masks) for n, masks in enumerate(np.bincount(per_mask)) if masks},
        "reasons": dict(Counter(reason for reason in columns["reason"] if reason)),
        "by_sampler": _survival(columns["sampler"], said, surviving),
        "by_crop": _survival(columns["crop"], said, surviving),
    }
    return counts, surviving


def add(left: Counts, right: Counts) -> Counts:
    """The counts of two disjoint sets of images together; `{}` is nothing."""
    total = dict(left)
    for name, value in right.items():
        total[name] = add(total.get(name, {}), value) if isinstance(value, dict) else total.get(name, 0) + value
    return total


def figures(counts: Counts) -> dict[str, Any]:
    """Means and shares for people and for `status --json`; a mean over nothing is None.

    Means are over every candidate that has the score. Images with one mask have no DoC and are counted apart; the
    release puts 100 times the correctness in place of their DoC, which lifts its mean.
    """
    scored = counts["scored"]
    masks = {int(n): number for n, number in counts["masks_by_kept"].items()}
    return {
        "images": counts["images"],
        "one_mask_images": counts["one_mask_images"],
        "masks": sum(masks.values()),
        "masks_kept": sum(number for n, number in masks.items() if n),
        "candidates": counts["candidates"],
        "kept": counts["kept"],
        **{f"mean_{name}": _ratio(counts["sums"][name], scored[name]) for name in _SCORES},
        "doc_above_1": counts["doc_above_1"],
        "share_doc_above_1": _ratio(counts["doc_above_1"], scored["doc"]),
        "kept_per_mask": _ratio(counts["kept"], sum(masks.values())),
        "masks_by_kept": dict(sorted(masks.items())),
        "reasons": dict(sorted(counts["reasons"].items())),
        "by_sampler": _with_shares(counts["by_sampler"]),
        "by_crop": _with_shares(counts["by_crop"]),
    }


def _survival(by: Any, said: np.ndarray, surviving: np.ndarray) -> dict[str, dict[str, int]]:
    """For each sampler or crop: `candidates`; `kept`, those whose text their mask keeps; and of both the `repeats`, texts
    that the same sampler or crop has said of the mask before.

    A duplicate shares the fate of its text, and each name is counted for itself, so that the order of the candidates
    favours none: the first to say a text is not better than the second.
    """
    name, names = factorize(by)
    repeats = np.ones(len(said), bool)
    repeats[np.unique(said * max(len(names), 1) + name, return_index=True)[1]] = False
    chosen = {
        "candidates": np.ones(len(said), bool),
        "kept": surviving,
        "repeats": repeats,
        "kept_repeats": surviving & repeats,
    }
    counts = {what: np.bincount(name[rows], minlength=len(names)).tolist() for what, rows in chosen.items()}
    return {own: {what: counts[what][number] for what in chosen} for number, own in enumerate(names)}


def _with_shares(survival: dict[str, dict[str, int]]) -> dict[str, dict[str, Any]]:
    return {name: row | {"share": _ratio(row["kept"], row["candidates"])} for name, row in survival.items()}


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None
