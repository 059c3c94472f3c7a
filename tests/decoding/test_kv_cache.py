"""Prefix states: hidden states equal those without a cache when prefixes are forked, dropped and reordered."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_captions import plain_logits
from small_coca import crops, network

from pseudoris_cli.decoding.kv_cache import PrefixStates, choose_slots


@given(st.lists(st.integers(0, 12), min_size=1, max_size=12))
def test_slots_are_a_permutation_and_stay_where_they_can(parents: list[int]) -> None:
    slots = choose_slots(np.array(parents))
    assert sorted(slots) == list(range(len(parents)))
    for parent in {p for p in parents if p < len(parents)}:
        assert slots[parents.index(parent)] == parent


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_states_equal_uncached_ones(data: st.DataObject) -> None:
    net, images = network(), crops(3)
    with torch.inference_mode():
        tokens = net.encode(images, 8)[1]
        states = PrefixStates(net, net.precompute_cross_kv(tokens), 8, 16, 6)
        prefixes = [[int(token)] for token in data.draw(st.lists(st.integers(0, 96), min_size=1, max_size=4))]
        beside = [[0, 1, 2] for _ in prefixes]
        parents = np.zeros(len(prefixes), np.int64)
        for _ in range(4):
            pairs = [(n, crop) for n, crops_of in enumerate(beside) for crop in crops_of]
            node, crop = np.array(pairs).T
            slots, hidden = states.advance(parents, np.array([prefix[-1] for prefix in prefixes]), node, crop)
            expected = plain_logits(net.coca, tokens[torch.from_numpy(crop)], torch.tensor(prefixes)[node])[:, -1]
            torch.testing.assert_close(net.logits(hidden), expected, atol=2e-4, rtol=1e-4)
            picks = data.draw(st.lists(st.integers(0, len(prefixes) - 1), min_size=1, max_size=5))
            new = [data.draw(st.integers(0, 96)) for _ in picks]
            parents = slots[picks]
            beside = [[c for c in beside[p] if c == 0 or data.draw(st.booleans())] for p in picks]
            prefixes = [[*prefixes[p], token] for p, token in zip(picks, new, strict=True)]
