"""Statistics of the filter: those that the Pseudo-RIS release prints, and how many texts were kept by sampler, crop and mask.

The counts of parts add up: `count` each part, `add` the counts, and take the `figures` of the sum. Medians come from counts in
cells (`_CELLS`), and are right to about two per cent of the value, mostly to far less.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from pseudoris_cli.method.selection import as_floats, factorize, flagged, mask_groups

Counts = dict[str, Any]
"""Nested plain dicts of numbers, fit for JSON."""

_SCORES = ("correctness", "uniqueness", "doc")
_CELLS, _NEAR_ZERO = 50, 0.05
"""A score is in the cell `floor(_CELLS * asinh(score / _NEAR_ZERO))`: cells are 2 % of the score wide, and .001 near zero."""


def count(columns: dict[str, Any]) -> Counts:
    """Counts and sums over columns of the filter stage (those of `storage.schema` by name), with all rows of each image."""
    return count_and_mark(columns)[0]


def count_and_mark(columns: dict[str, Any]) -> tuple[Counts, np.ndarray]:
    """The result of `count`, and bool [N]: whether the mask of a row keeps the row's text, in this row or in another."""
    kept = np.asarray(columns["kept"], bool)
    group = mask_groups(columns)
    per_mask = np.bincount(group, weights=kept).astype(int)
    scores = {name: as_floats(columns[name]).astype(np.float64) for name in _SCORES}
    text, texts = factorize([caption.strip() for caption in columns["caption"]])
    mask_text = group * max(len(texts), 1) + text  # the same text of another mask counts as another
    surviving = np.isin(mask_text, mask_text[kept])
    alone = flagged(columns["flags"], "one_mask")
    counts = {
        "images": len(set(columns["image_key"])),
        "one_mask_images": len(set(np.asarray(columns["image_key"], object)[alone])),
        "candidates": len(kept),
        "kept": int(kept.sum()),
        "doc_above_1": int((scores["doc"] > 1).sum()),
        "sums": {name: float(np.nansum(values)) for name, values in scores.items()},
        "scored": {name: int(np.isfinite(values).sum()) for name, values in scores.items()},
        "spread": {name: _spread(values) for name, values in scores.items()},
        "masks_by_kept": {str(n): int(masks) for n, masks in enumerate(np.bincount(per_mask)) if masks},
        "reasons": dict(Counter(reason for reason, stays in zip(columns["reason"], kept, strict=True) if not stays)),
        "by_sampler": _survival(columns["sampler"], mask_text, surviving),
        "by_crop": _survival(columns["crop"], mask_text, surviving),
    }
    if "listener" in columns:
        counts["listener"] = _heard(columns, scores["doc"])
    return counts, surviving


def _heard(columns: dict[str, Any], doc: np.ndarray) -> Counts:
    """What the listener said of the candidates that it was asked about and answered: its choice, and whether DoC says the same."""
    choice = as_floats(columns["listener_choice"])
    picked, asked = choice == np.asarray(columns["mask_id"]), np.isfinite(choice)
    both = asked & np.isfinite(doc)
    return {
        "asked": int(asked.sum()),
        "picked": int((asked & picked).sum()),
        "none": int((choice == -1).sum()),
        "with_doc": int(both.sum()),
        "agree": int((both & (picked == (doc > 1))).sum()),
    }


def add(left: Counts, right: Counts) -> Counts:
    """The sum of the counts of two disjoint sets of images; `{}` is the count of none."""
    total = dict(left)
    for name, value in right.items():
        total[name] = add(total.get(name, {}), value) if isinstance(value, dict) else total.get(name, 0) + value
    return total


def figures(counts: Counts) -> dict[str, Any]:
    """Medians, means and fractions, as printed and as in `status --json`; a mean over nothing is None.

    They are over all candidates that have the score, `scored` many. Images with one mask have no DoC and are counted
    separately; the release uses 100 times the correctness as their DoC, which raises its mean. The mean of DoC says little: few
    values at the cap of 100 decide it. A median is None where a part was made before its cells were counted.
    """
    scored = counts["scored"]
    spread = counts.get("spread", {})
    masks = {int(n): number for n, number in counts["masks_by_kept"].items()}
    return {
        "images": counts["images"],
        "one_mask_images": counts["one_mask_images"],
        "masks": sum(masks.values()),
        "masks_kept": sum(number for n, number in masks.items() if n),
        "candidates": counts["candidates"],
        "kept": counts["kept"],
        "scored": dict(scored),
        **{f"median_{name}": _median(spread.get(name, {}), scored[name]) for name in _SCORES},
        **{f"mean_{name}": _ratio(counts["sums"][name], scored[name]) for name in _SCORES},
        "doc_above_1": counts["doc_above_1"],
        "share_doc_above_1": _ratio(counts["doc_above_1"], scored["doc"]),
        "kept_per_mask": _ratio(counts["kept"], sum(masks.values())),
        "masks_by_kept": dict(sorted(masks.items())),
        "reasons": dict(sorted(counts["reasons"].items())),
        **({"by_hand": counts["by_hand"]} if "by_hand" in counts else {}),
        **({"listener": _listener_figures(counts["listener"])} if "listener" in counts else {}),
        "by_sampler": _with_fractions(counts["by_sampler"]),
        "by_crop": _with_fractions(counts["by_crop"]),
    }


def _listener_figures(counts: Counts) -> dict[str, Any]:
    """Of the candidates that were asked: how often the listener picks the mask, another, none or several; how often DoC agrees
    (above 1, and the mask is picked, or neither), of those that have one."""
    asked = counts["asked"]
    return {
        "asked": asked,
        "accuracy": _ratio(counts["picked"], asked),
        "share_other": _ratio(asked - counts["picked"] - counts["none"], asked),
        "share_none": _ratio(counts["none"], asked),
        "with_doc": counts["with_doc"],
        "agreement_with_doc": _ratio(counts["agree"], counts["with_doc"]),
    }


def _spread(values: np.ndarray) -> dict[str, int]:
    """How many of the finite values are in each cell."""
    cells = np.floor(_CELLS * np.arcsinh(values[np.isfinite(values)] / _NEAR_ZERO)).astype(int)
    return {str(cell): int(number) for cell, number in zip(*np.unique(cells, return_counts=True), strict=True)}


def _median(spread: dict[str, int], scored: int) -> float | None:
    """The median of values of which each cell's number is known, taken as even within a cell."""
    if not scored or sum(spread.values()) != scored:
        return None
    below = 0
    for cell, number in sorted((int(name), number) for name, number in spread.items()):
        if 2 * (below + number) >= scored:
            inside = cell + (scored / 2 - below) / number
            return _NEAR_ZERO * float(np.sinh(inside / _CELLS))
        below += number
    raise AssertionError("half of the values are in some cell")


def _survival(by: Any, mask_text: np.ndarray, surviving: np.ndarray) -> dict[str, dict[str, int]]:
    """For each sampler or crop kind: `candidates`; `kept`, those whose text their mask keeps; and, of both, `repeats`:
    texts that the same sampler or crop kind had already given for the mask.

    A duplicate counts as kept where its text is kept, and each sampler or crop kind is counted on its own, so the result
    does not depend on the order of the candidates.
    """
    name, names = factorize(by)
    repeats = np.ones(len(mask_text), bool)
    repeats[np.unique(mask_text * max(len(names), 1) + name, return_index=True)[1]] = False
    chosen = {
        "candidates": np.ones(len(mask_text), bool),
        "kept": surviving,
        "repeats": repeats,
        "kept_repeats": surviving & repeats,
    }
    counts = {what: np.bincount(name[rows], minlength=len(names)).tolist() for what, rows in chosen.items()}
    return {own: {what: counts[what][number] for what in chosen} for number, own in enumerate(names)}


def _with_fractions(survival: dict[str, dict[str, int]]) -> dict[str, dict[str, Any]]:
    return {name: row | {"share": _ratio(row["kept"], row["candidates"])} for name, row in survival.items()}


def _ratio(part: float, total: int) -> float | None:
    return part / total if total else None
