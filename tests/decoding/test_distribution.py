"""Keep sets and probabilities of one step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plain_captions import plain_keep
from small_coca import network, rules

from pseudoris_cli.decoding.distribution import Views, keep_thresholds, next_tokens, peak_and_mass
from pseudoris_cli.errors import UsageError


@pytest.mark.parametrize("spread", [0.01, 1.0, 5.0])
@pytest.mark.parametrize("vocabulary", [50, 3000])
def test_keep_sets_equal_the_release(vocabulary: int, spread: float) -> None:
    """Small and large vocabularies; flat and peaked, so that top-p ends within the first ranks and far beyond."""
    given = rules(top_k=(1, 5, 200), top_p=(0.05, 0.4, 0.8, 0.999))
    own = spread * torch.randn(4, vocabulary, generator=torch.Generator().manual_seed(vocabulary))
    view, sampler = np.divmod(np.arange(4 * given.samplers), given.samplers)
    thresholds = keep_thresholds(own, peak_and_mass(own)[1], (view, sampler), given)
    for u, s, threshold in zip(view, sampler, thresholds, strict=True):
        difference = int((own[u] >= threshold).sum()) - int(plain_keep(own[u], s, given).sum())
        assert abs(difference) <= (1 if s == 6 and vocabulary == 3000 else 0)  # its float32 sum decides at p = .999


def test_ties_with_the_last_token_are_kept() -> None:
    own = torch.tensor([[3.0, 1.0, 2.0, 1.0, 1.0, 0.0]])
    given = rules(top_k=(3,), top_p=(0.85,))
    thresholds = keep_thresholds(own, peak_and_mass(own)[1], (np.array([0, 0]), np.array([0, 1])), given)
    assert thresholds.tolist() == [1.0, 1.0]


def step(given, hidden: torch.Tensor, length: int = 9):
    views = Views(np.array([0]), np.zeros((1, 0), np.int64), np.zeros((1, 0), np.float32), np.ones(1))
    return next_tokens(network(), given, hidden, views, np.array([[0, 0], [0, 2]]), length)


def test_the_end_is_barred_below_the_minimum_length() -> None:
    hidden = torch.from_numpy(network().coca.text_decoder.text_projection[:, 96].detach().numpy().copy())[None]
    assert 96 in step(rules(), hidden).token
    assert 96 not in step(rules(), hidden, length=3).token


def test_logits_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(UsageError, match="not finite"):
        step(rules(), torch.full((1, 32), torch.nan))
