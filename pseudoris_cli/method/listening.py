"""Ask a listener which object an expression means, and read its answers.

An expression is distinctive if a listener who is shown all objects picks the right one. Every expression of an image is asked
about the whole image at once. Listeners favour some numbers and positions, so each is asked under several numberings of the
objects; the answers are joined by their geometric mean, and normalised again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pseudoris_cli.method import selection
from pseudoris_cli.method.protocols import Lineup, Listener
from pseudoris_cli.records import CaptionCandidate, MaskedImage
from pseudoris_cli.settings.models import FilterSettings, JudgeSettings

FITS = 0.5
"""The probability above which an object counts as one that an expression means."""
Likeness = Callable[[MaskedImage], np.ndarray]
"""How alike the masks of an image are, [M, M]; only asked for images with more masks than are shown."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the listener said of one candidate. `choice` is a mask id, or -1 for none or several."""

    listener: float | None = None
    best_other: float | None = None
    none: float | None = None
    choice: int | None = None
    targets: tuple[int, ...] | None = None
    shown: tuple[int, ...] | None = None

    def row(self) -> dict[str, Any]:
        """The columns of the judge artifact."""
        return {
            "listener": self.listener,
            "listener_best_other": self.best_other,
            "listener_none": self.none,
            "listener_choice": self.choice,
            "listener_targets": None if self.targets is None else list(self.targets),
            "listener_shown": None if self.shown is None else list(self.shown),
        }


def asked(columns: dict[str, Any], settings: FilterSettings, judge: JudgeSettings) -> np.ndarray:
    """Which candidates are asked, bool [N]: the distinct texts of a mask that pass the other rules of the selection.

    DoC must be above `judge.min_doc`, and the best `judge.ask_per_mask` of a mask are taken; of an image's only mask, where
    there is no DoC, the best by correctness.
    """
    cheap = settings.model_copy(
        update={
            "min_doc": settings.min_doc if judge.min_doc is None else judge.min_doc,
            "top_k_per_mask": judge.ask_per_mask,
            "fallback": "drop",
        }
    )
    return selection.select(columns, cheap, one_mask_rule=False)["kept"]


@dataclass(frozen=True, slots=True)
class _Panel:
    """The masks that are shown for some candidates of an image: indices into its masks, and the candidates' rows."""

    shown: tuple[int, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Judge:
    """A listener with its rules."""

    listener: Listener
    settings: JudgeSettings
    likeness: Likeness

    def answers(
        self, images: Sequence[MaskedImage], wanted: Sequence[Sequence[CaptionCandidate]]
    ) -> list[list[Answer]]:
        """An answer for each wanted candidate of each image."""
        panels = [self._panels(image, candidates) for image, candidates in zip(images, wanted, strict=True)]
        lineups = [
            _lineup(image, panel, [candidates[row].caption for row in panel.rows])
            for image, candidates, of_image in zip(images, wanted, panels, strict=True)
            for panel in of_image
        ]
        chosen = iter(self._choices(lineups))
        fitting = iter(self.listener.fits(lineups) if self.settings.multi else [None] * len(lineups))
        found = []
        for image, candidates, of_image in zip(images, wanted, panels, strict=True):
            answers = [Answer()] * len(candidates)
            for panel in of_image:
                probabilities, fits = next(chosen), next(fitting)
                ids = tuple(image.masks[index].mask_id for index in panel.shown)
                for line, row in enumerate(panel.rows):
                    heard = None if fits is None else fits[line]
                    answers[row] = _answer(probabilities[line], heard, ids, candidates[row].mask_id)
            found.append(answers)
        return found

    def fits_nothing(self, images: Sequence[MaskedImage], texts: Sequence[Sequence[str]]) -> list[list[bool]]:
        """Whether each text fits no object of its image, by the listener. Images may have no masks.

        A text of which a question has no answer is not said to fit none.
        """
        lineups = [
            _lineup(image, _Panel(tuple(range(len(image.masks))), tuple(range(len(said)))), said)
            for image, said in zip(images, texts, strict=True)
        ]
        seen = [lineup for lineup in lineups if lineup.masks and lineup.expressions]
        fits = dict(zip((lineup.key for lineup in seen), self.listener.fits(seen), strict=True))
        return [
            [
                bool((fits[lineup.key][row] <= FITS).all()) if lineup.masks else True
                for row in range(len(lineup.expressions))
            ]
            for lineup in lineups
        ]

    def _panels(self, image: MaskedImage, candidates: Sequence[CaptionCandidate]) -> list[_Panel]:
        """All masks for all candidates; in a crowded image, for each mask's candidates that mask and those most like it."""
        count, most = len(image.masks), self.settings.max_marks
        if not candidates:
            return []
        if count <= most:
            return [_Panel(tuple(range(count)), tuple(range(len(candidates))))]
        alike = self.likeness(image)
        panels = []
        for index, mask in enumerate(image.masks):
            rows = tuple(row for row, candidate in enumerate(candidates) if candidate.mask_id == mask.mask_id)
            if rows:
                order = np.lexsort((np.arange(count), -alike[index]))
                rivals = [int(other) for other in order if other != index][: most - 1]
                panels.append(_Panel(tuple(sorted([index, *rivals])), rows))
        return panels

    def _choices(self, lineups: Sequence[Lineup]) -> list[np.ndarray]:
        """Probabilities [E, M + 1] of each lineup, joined over its numberings."""
        wanted = self.settings.permutations if self.listener.numbered else 1
        orders = [numberings(one, self.settings.seed, wanted) for one in lineups]
        turned = [
            replace(one, masks=tuple(one.masks[index] for index in order))
            for one, of_one in zip(lineups, orders, strict=True)
            for order in of_one
        ]
        heard = iter(self.listener.listen(turned))
        joined = []
        for one, of_one in zip(lineups, orders, strict=True):
            logs = []
            for order in of_one:
                back = np.argsort(order)
                logs.append(np.log(np.maximum(next(heard)[:, [*back, len(one.masks)]], 1e-9)))
            mean = np.exp(np.mean(logs, axis=0))
            joined.append(mean / mean.sum(1, keepdims=True))
        return joined


def _lineup(image: MaskedImage, panel: _Panel, texts: Sequence[str]) -> Lineup:
    return Lineup(image.key, image.image_rgb, tuple(image.masks[index] for index in panel.shown), tuple(texts))


def numberings(lineup: Lineup, seed: int, wanted: int) -> list[np.ndarray]:
    """Different orders of a lineup's masks, as many as wanted or as there are: by area, the largest first; then at random, from
    the image's key."""
    count = len(lineup.masks)
    orders = [sorted(range(count), key=lambda index: -lineup.masks[index].area)]
    digest = hashlib.sha256(f"{seed}:{lineup.key}".encode(errors="surrogateescape")).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    while len(orders) < min(wanted, math.factorial(min(count, 10))):
        drawn = rng.permutation(count).tolist()
        if drawn not in orders:
            orders.append(drawn)
    return [np.array(order, int) for order in orders]


def _answer(probabilities: np.ndarray, fits: np.ndarray | None, ids: Sequence[int], target: int) -> Answer:
    if not np.isfinite(probabilities).all():
        return Answer(shown=tuple(ids))
    own = ids.index(target)
    others = np.delete(probabilities[:-1], own)
    first = int(probabilities.argmax())
    targets = None
    if fits is not None and np.isfinite(fits).all():
        targets = tuple(mask_id for mask_id, fit in zip(ids, fits, strict=True) if fit > FITS)
    return Answer(
        listener=float(probabilities[own]),
        best_other=float(others.max()) if len(others) else None,
        none=float(probabilities[-1]),
        choice=ids[first] if first < len(ids) else -1,
        targets=targets,
        shown=tuple(ids),
    )
