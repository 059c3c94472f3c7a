"""Fractions over images with 95 % percentile bootstrap intervals; differences resample the same images on both sides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured fraction or mean with its 95 % interval; None where there is nothing to divide by."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure as a sum over images divided by a sum over images; both [images]."""

    above: np.ndarray
    below: np.ndarray

    def value(self) -> float | None:
        """The fraction over all images."""
        below = self.below.sum()
        return float(self.above.sum() / below) if below else None

    def samples(self, weights: np.ndarray) -> np.ndarray:
        """The fraction in each bootstrap sample, [RESAMPLES]; NaN where it has nothing to divide by."""
        below = weights @ self.below
        return np.divide(weights @ self.above, below, out=np.full(len(weights), np.nan), where=below > 0)

    def figure(self, weights: np.ndarray) -> Figure:
        """The fraction with its interval."""
        value = self.value()
        return Figure(None, None, None) if value is None else interval(value, self.samples(weights))


def resamples(images: int, seed: int) -> np.ndarray:
    """How often each image is drawn in each bootstrap sample, float [RESAMPLES, images]."""
    rng = np.random.default_rng(seed)
    if not images:
        return np.zeros((RESAMPLES, 0))
    return rng.multinomial(images, np.full(images, 1 / images), size=RESAMPLES).astype(float)


def interval(value: float, samples: np.ndarray) -> Figure:
    """A value with the middle 95 % of its samples."""
    known = samples[~np.isnan(samples)]
    if not len(known):
        return Figure(value, None, None)
    low, high = np.percentile(known, (2.5, 97.5))
    return Figure(value, float(low), float(high))
