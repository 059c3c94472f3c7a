"""Which scored candidates are kept, and why the others are not: vectorised over the columns of many images.

Rules, in this order; the first that a candidate fails is its reason:

    empty       no text
    duplicate   an earlier row of the mask has the same text
    words       fewer than `min_words` or more than `max_words` words
    unscored    the score that decides is null (a ratio that is not finite; see the column `flags`)
    doc<=X      DoC is not above `min_doc`
    one-mask    the image has one mask, so there is no DoC: the better half by correctness stays, of its distinct texts, or
                (`one_mask_half: candidates`) of all its candidates, repeats included; with a judge the listener decides instead
    not asked   there is a judge, and the listener was not asked or gave no answer
    listener none, listener other, listener
                the listener's probability of the mask is not above `min_listener`: it picks none or several, or another mask,
                or this one without being sure
    rank        below the best `top_k_per_mask` by DoC (one mask: by correctness)

A text that several masks of an image share has a DoC above 1 for at most one of them, so it is kept for the mask that it
fits best. With `fallback: best` a mask without any kept text keeps its best scored one. Decisions made by hand come after all
this (`by_hand.py`), with the reason `by hand` for kept and dropped ones.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from pseudoris_cli.settings.models import FilterSettings


def select(columns: dict[str, Any], settings: FilterSettings, one_mask_rule: bool = True) -> dict[str, np.ndarray]:
    """Apply the rules to every candidate.

    `columns` must hold image_key, mask_id, caption, correctness, doc and flags, and with a judge listener and
    listener_choice: lists or arrays of one length with all rows of an image, in any order; null floats are NaN or None.
    Without `one_mask_rule` an image's only mask keeps both halves. Returns, row by row, `duplicates` int32 (rows of the mask
    with this text, the row itself included), `kept` bool and `reason` str (empty where kept).
    """
    group = mask_groups(columns)
    text, texts = factorize([caption.strip() for caption in columns["caption"]])
    _, first_rows, inverse, counts = np.unique(
        group * (len(texts) + 1) + text, return_index=True, return_inverse=True, return_counts=True
    )
    first = np.zeros(len(group), bool)
    first[first_rows] = True
    words = np.array([len(t.split()) for t in texts], int)[text]
    one_mask = flagged(columns["flags"], "one_mask")
    score = np.where(one_mask, as_floats(columns["correctness"]), as_floats(columns["doc"]))

    selection = _Selection(len(group))
    selection.reject(words == 0, "empty")
    selection.reject(~first, "duplicate")
    selection.reject((words < settings.min_words) | (words > (settings.max_words or np.inf)), "words")
    selection.reject(~np.isfinite(score), "unscored")
    eligible = selection.kept
    selection.reject(~one_mask & ~(score > settings.min_doc), f"doc<={settings.min_doc:g}")
    rank, size = _rank_within(group, score, eligible)
    if "listener" in columns:
        _reject_unheard(selection, columns, settings.min_listener)
    elif one_mask_rule:
        selection.reject(one_mask & _worse_half(group, score, rank, size, settings), "one-mask")
    if settings.top_k_per_mask is not None:
        selection.reject(_rank_within(group, score, selection.kept)[0] >= settings.top_k_per_mask, "rank")
    if settings.fallback == "best":
        has_text = np.zeros(group.max(initial=-1) + 1, bool)
        has_text[group[selection.kept]] = True
        selection.restore(eligible & (rank == 0) & ~has_text[group])
    return {"duplicates": counts[inverse].astype(np.int32), "kept": selection.kept, "reason": selection.reasons()}


def _worse_half(
    group: np.ndarray, score: np.ndarray, rank: np.ndarray, size: np.ndarray, settings: FilterSettings
) -> np.ndarray:
    """The rows that are not among the better half of their mask by score: bool [N]."""
    if settings.one_mask_half == "texts":
        return rank >= (size + 1) // 2
    # the first row of a text has the rank of its best candidate, as equal texts have equal scores
    everyone = np.ones(len(group), bool)
    rank_of_all, candidates = _rank_within(group, np.where(np.isfinite(score), score, -np.inf), everyone)
    return rank_of_all >= candidates // 2


def _reject_unheard(selection: _Selection, columns: dict[str, Any], least: float) -> None:
    """Reject what the listener does not take for the mask."""
    listener, choice = as_floats(columns["listener"]), as_floats(columns["listener_choice"])
    selection.reject(~np.isfinite(listener), "not asked")
    unsure = ~(listener > least)
    selection.reject(unsure & (choice == -1), "listener none")
    selection.reject(unsure & (choice != np.asarray(columns["mask_id"])), "listener other")
    selection.reject(unsure, "listener")


def mask_groups(columns: dict[str, Any]) -> np.ndarray:
    """A number for the mask of each row: int64 [N], 0..masks-1."""
    image, _ = factorize(columns["image_key"])
    mask_id = np.asarray(columns["mask_id"], np.int64)
    return np.unique(image * (mask_id.max(initial=0) + 1) + mask_id, return_inverse=True)[1]


def flagged(flags: Sequence[str], name: str) -> np.ndarray:
    """Where the comma-separated flags hold `name`: bool [N]."""
    code, distinct = factorize(flags)
    return np.array([name in value.split(",") for value in distinct], bool)[code]


def as_floats(values: Any) -> np.ndarray:
    """A column as floats with NaN for null."""
    return values if isinstance(values, np.ndarray) else np.array(values, np.float32)


class _Selection:
    """For each row the first reason that it was rejected for."""

    def __init__(self, rows: int) -> None:
        self._code = np.zeros(rows, np.int8)
        self._names = [""]

    @property
    def kept(self) -> np.ndarray:
        return self._code == 0

    def reject(self, rows: np.ndarray, reason: str) -> None:
        self._code[rows & self.kept] = len(self._names)
        self._names.append(reason)

    def restore(self, rows: np.ndarray) -> None:
        self._code[rows] = 0

    def reasons(self) -> np.ndarray:
        return np.array(self._names, object)[self._code]


def factorize(values: Sequence[Hashable]) -> tuple[np.ndarray, list[Any]]:
    """Numbers in order of first appearance, int64 [N], and the distinct values."""
    known: dict[Hashable, int] = {}
    codes = np.fromiter((known.setdefault(value, len(known)) for value in values), np.int64, len(values))
    return codes, list(known)


def _rank_within(group: np.ndarray, score: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rank of each row of `among` by descending score in its group (0 is best, ties in row order), and group sizes.

    Other rows have rank -1 and are not counted.
    """
    rows = np.flatnonzero(among)
    order = rows[np.lexsort((-score[rows], group[rows]))]
    size = np.bincount(group[rows], minlength=group.max(initial=-1) + 1)
    starts = np.cumsum(size) - size
    rank = np.full(len(group), -1, np.int64)
    rank[order] = np.arange(len(order)) - starts[group[order]]
    return rank, size[group]
