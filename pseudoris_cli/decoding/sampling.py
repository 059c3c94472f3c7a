"""Randomness that depends on what is captioned and on nothing else."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from pseudoris_cli.decoding.distribution import Kept


def uniforms(seed: int, image_key: str, mask_id: int, crop: str, sampler: str, count: int) -> np.ndarray:
    """Numbers in [0, 1), float64 [count], one for each token of one caption: Philox, keyed by what the caption is of."""
    what = json.dumps([seed, image_key, mask_id, crop, sampler]).encode("ascii")
    key = int.from_bytes(hashlib.blake2b(what, digest_size=16).digest(), "little")
    return (np.random.Philox(key=key).random_raw(count) >> np.uint64(11)) * 2.0**-53


def draw(kept: Kept, uniform: np.ndarray) -> np.ndarray:
    """An entry of `kept` for each row, by inversion of the cumulative weights in token-id order, in float64."""
    chosen = np.empty(len(uniform), np.int64)
    for row, number in enumerate(uniform):
        first, end = kept.start[row], kept.start[row + 1]
        cumulative = np.cumsum(kept.weight[first:end])
        chosen[row] = first + min(np.searchsorted(cumulative, number * cumulative[-1], side="right"), end - first - 1)
    return chosen
