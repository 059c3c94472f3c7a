"""Beam search keeps transformers 4.30's rules; 2 beams in 1 group are the release's 6 beams in 3 groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plain_captions import plain_beams, plain_logits
from small_coca import crops, decode, group, network, rules

from pseudoris_cli.decoding.beam import Beam, Search, _Continuation
from pseudoris_cli.decoding.rules import Generated


@pytest.mark.parametrize("seed", range(6))
def test_equals_grouped_search_of_the_release(seed: int) -> None:
    given, net, images = rules(top_k=(), top_p=(), max_length=16), network(seed), crops(4, seed)
    [found] = decode(net, [group(net, images, 0)], given, beams=2)
    ours = [list(captions[0].tokens) for captions in found]
    assert ours == plain_beams(net.coca, images, 6, 3, given)
    assert ours == plain_beams(net.coca, images, 2, 1, given)


@pytest.mark.parametrize("width", [1, 3, 5])
def test_other_widths(width: int) -> None:
    given, net, images = rules(top_k=(), top_p=()), network(1), crops(3, 7)
    [found] = decode(net, [group(net, images, 0)], given, beams=width)
    assert [list(captions[0].tokens) for captions in found] == plain_beams(net.coca, images, width, 1, given)


def test_logprob_is_of_the_own_logits_before_any_rule() -> None:
    given, net, images = rules(top_k=(), top_p=()), network(), crops(1)
    [[[caption]]] = decode(net, [group(net, images, 0)], given, beams=2)
    with torch.inference_mode():
        tokens = torch.tensor([[given.start, *caption.tokens]])
        logits = plain_logits(net.coca, net.coca.visual(images)[1], tokens[:, :-1]).double().log_softmax(-1)
    expected = logits[0].gather(1, tokens[0, 1:, None]).sum().item()
    assert caption.logprob == pytest.approx(expected, abs=1e-4)


def test_end_below_the_first_ranks_is_dropped() -> None:
    """An end at rank 0 closes a sequence; then one beam is still wanted, so rank 2 is looked at: its end closes nothing."""
    search = Search(2, [Beam((7,), np.float32(0), 0.0, 0), Beam((8,), np.float32(0), 0.0, 1)])
    ranks = [(0, 99, 9.0), (0, 1, 8.0), (1, 99, 7.0), (1, 3, 6.0)]
    going = search.grow([_Continuation(b, t, np.float32(s), 0.0) for b, t, s in ranks], 4, end=99)
    assert [beam.tokens for beam in going] == [(7, 1), (8, 3)]
    assert search.finished == [(9.0 / 4, Generated((7, 99), 0.0))]


def test_search_ends_when_the_worst_finished_beats_the_best_open() -> None:
    search = Search(2, [Beam((5,), np.float32(8), 0.0, 0), Beam((6,), np.float32(8), 0.0, 1)])
    ranks = [(0, 99, 12.0), (1, 99, 12.0), (0, 1, 1.0), (1, 1, 0.5)]
    search.grow([_Continuation(b, t, np.float32(s), -1.0) for b, t, s in ranks], 2, end=99)
    assert search.done
    assert search.result(3) == Generated((6, 99), -1.0)  # of equal scores the last closed wins


def test_a_better_sequence_replaces_the_worst() -> None:
    search = Search(1, [Beam((5,), np.float32(8), 0.0, 0)], [(1.0, Generated((4, 99), -3.0))])
    search.grow([_Continuation(0, 99, np.float32(6), -2.0), _Continuation(0, 7, np.float32(5), -2.0)], 2, end=99)
    assert search.finished == [(3.0, Generated((5, 99), -2.0))]
