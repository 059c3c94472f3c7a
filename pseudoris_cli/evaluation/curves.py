"""What a score is worth as a selector: precision at every coverage; and how far the listener's probabilities are frequencies.

The candidates of the masks are taken by falling score. At each threshold, *precision* is the share of referring texts among those
above it, *coverage* the share of the masks that stand for an object which have a referring text among them. So the selectors
are compared at equal coverage, whatever their thresholds are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pseudoris_cli.evaluation.resampling import Figure, Ratio

COVERAGES = (0.95, 0.9, 0.8, 0.6)
BINS = 10
_POINTS = 100


@dataclass(frozen=True, slots=True)
class Candidates:
    """Distinct texts of masks with what is true of them: image and mask numbers int [N], referring bool [N], scores float [N].

    `matched` [images] counts the masks that stand for an object. A score of NaN is never selected.
    """

    image: np.ndarray
    mask: np.ndarray
    referring: np.ndarray
    matched: np.ndarray


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision against coverage of one selector. `at` holds the precision at each of COVERAGES, null where it is not reached."""

    method: str
    selector: str
    points: tuple[tuple[float, float], ...]
    at: dict[str, Figure]


@dataclass(frozen=True, slots=True)
class Bin:
    """Texts with about one probability: its mean, the share of them that are referring, and how many they are."""

    probability: float
    referring: float
    texts: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the listener's probability of the mask compares with the share of referring texts. `ece`: expected calibration error."""

    method: str
    ece: float
    bins: tuple[Bin, ...]


def curve(method: str, selector: str, given: Candidates, score: np.ndarray, weights: np.ndarray) -> Curve | None:
    """The curve of a selector; None where it scores nothing. `weights` are bootstrap weights [RESAMPLES, images]."""
    scored = np.flatnonzero(~np.isnan(score))
    if not len(scored) or not given.matched.sum():
        return None
    order = scored[np.argsort(-score[scored], kind="stable")]
    referring = given.referring[order]
    first_of_mask = np.zeros(len(order), bool)
    hits = np.flatnonzero(referring)
    first_of_mask[hits[np.unique(given.mask[order][hits], return_index=True)[1]]] = True
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # equal scores are taken together
    coverage = (np.cumsum(first_of_mask) / given.matched.sum())[ends]
    precision = (np.cumsum(referring) / np.arange(1, len(order) + 1))[ends]
    shown = np.unique(np.searchsorted(coverage, np.linspace(0, coverage[-1], _POINTS)))
    at = {}
    for wanted in COVERAGES:
        reached = np.flatnonzero(coverage >= wanted)
        chosen = order[: ends[reached[0]] + 1] if len(reached) else order[:0]
        at[f"{wanted:g}"] = _precision(given, chosen).figure(weights)
    points = tuple((round(float(coverage[k]), 4), round(float(precision[k]), 4)) for k in shown)
    return Curve(method, selector, points, at)


def _precision(given: Candidates, chosen: np.ndarray) -> Ratio:
    images, count = given.image[chosen], len(given.matched)
    return Ratio(
        np.bincount(images, given.referring[chosen], count).astype(float),
        np.bincount(images, minlength=count).astype(float),
    )


def calibration(method: str, probability: np.ndarray, referring: np.ndarray) -> Calibration | None:
    """Bins of equal width of the probability; None where nothing was asked (NaN)."""
    asked = ~np.isnan(probability)
    probability, referring = probability[asked], referring[asked]
    if not len(probability):
        return None
    number = np.minimum((probability * BINS).astype(int), BINS - 1)
    bins = []
    for index in np.unique(number).tolist():
        inside = number == index
        bins.append(Bin(float(probability[inside].mean()), float(referring[inside].mean()), int(inside.sum())))
    error = sum(one.texts * abs(one.probability - one.referring) for one in bins) / len(probability)
    return Calibration(method, float(error), tuple(bins))


def both(doc: Sequence[float] | np.ndarray, listener: np.ndarray, least_doc: float) -> np.ndarray:
    """The listener's score where DoC is above its threshold, NaN elsewhere."""
    return np.where(np.asarray(doc) > least_doc, listener, np.nan)
