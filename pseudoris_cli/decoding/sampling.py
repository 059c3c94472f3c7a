"""Random numbers that depend only on the identity of a caption, never on the batch or the order of work."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from pseudoris_cli.decoding.distribution import KeptTokens


def uniforms(seed: int, image_key: str, mask_id: int, crop: str, sampler: str, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1), float64 [count], one per token of a caption: Philox, keyed by the other arguments."""
    identity = json.dumps([seed, image_key, mask_id, crop, sampler]).encode("ascii")
    key = int.from_bytes(hashlib.blake2b(identity, digest_size=16).digest(), "little")
    return (np.random.Philox(key=key).random_raw(count) >> np.uint64(11)) * 2.0**-53


def draw(kept: KeptTokens, uniform: np.ndarray) -> np.ndarray:
    """Sample an entry of `kept` for each row: inverse transform sampling over token ids, float64 (weights need no norm)."""
    chosen = np.empty(len(uniform), np.int64)
    for row, number in enumerate(uniform):
        first, end = kept.start[row], kept.start[row + 1]
        cumulative = np.cumsum(kept.weight[first:end])
        chosen[row] = first + min(np.searchsorted(cumulative, number * cumulative[-1], side="right"), end - first - 1)
    return chosen
