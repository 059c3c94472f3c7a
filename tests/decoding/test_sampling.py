"""Random numbers belong to a caption; tokens are drawn by inversion in token-id order."""

from __future__ import annotations

import numpy as np
import pytest

from pseudoris_cli.decoding.distribution import KeptTokens
from pseudoris_cli.decoding.sampling import draw, uniforms

GOLDEN = [0.09847432004286427, 0.29471030575287493, 0.5759267705232356]


def test_the_numbers_of_a_caption_never_change() -> None:
    """Captions of finished work would no longer be reproducible if these values moved."""
    found = uniforms(0, "train2014/COCO_train2014_000000000009.jpg", 3, "crop_1.1", "top_p=0.5", 3)
    assert found.tolist() == GOLDEN


def test_numbers_depend_on_everything_that_names_a_caption() -> None:
    base = (0, "a.jpg", 1, "masked", "top_k=5")
    changed = [(1, *base[1:]), (0, "b.jpg", *base[2:]), (0, "a.jpg", 2, *base[3:]), (*base[:3], "crop_1.0", "top_k=5")]
    changed += [(*base[:4], "top_k=7"), (0, 'a.jpg", 1', 1, "masked", "top_k=5")]
    firsts = {uniforms(*what, 1)[0] for what in [base, *changed]}
    assert len(firsts) == 7


def test_numbers_are_uniform_and_a_longer_caption_extends_a_shorter_one() -> None:
    many = uniforms(7, "x", 0, "masked", "top_k=5", 20000)
    assert np.array_equal(many[:30], uniforms(7, "x", 0, "masked", "top_k=5", 30))
    assert many.min() >= 0
    assert many.max() < 1
    assert np.histogram(many, 10, (0, 1))[0] / 2000 == pytest.approx(1, abs=0.1)


def kept(*rows: list[float]) -> KeptTokens:
    start = np.cumsum([0, *map(len, rows)])
    weight = np.concatenate([np.array(row, float) for row in rows])
    return KeptTokens(start, np.arange(len(weight)), weight, np.zeros(len(weight)))


def test_draw_inverts_the_unnormalised_cumulative_sum() -> None:
    table = kept([0.5, 1.0, 0.5], [0.2])
    for number, chosen in ((0.0, 0), (0.2499, 0), (0.25, 1), (0.7499, 1), (0.75, 2), (1 - 2**-53, 2)):
        assert draw(table, np.array([number, number])).tolist() == [chosen, 3]


def test_draw_skips_tokens_of_no_weight() -> None:
    table = kept([0.0, 1.0, 0.0])
    assert draw(table, np.array([0.0])).tolist() == [1]
    assert draw(table, np.array([1 - 2**-53])).tolist() == [1]
