"""Our beam search beside the plain one, on tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import pytest
from known_beams import ANY, KNOWN, listed
from plain_beams import outcomes
from table_network import STYLES, BeamCase, TableNetwork, beam_rules, random_case, scorer

from pseudoris_cli.decoding.beam import search_captions

MOST = 20000
"""Orders of equal sums that are tried; a caption that none of them gives is wrong."""


def random_cases(count: int) -> list[BeamCase]:
    """`count` cases of each style."""
    return [random_case(style, seed) for style in STYLES for seed in range(count)]


def judge_beams(cases: Iterable[BeamCase], search: Any = search_captions) -> Counter[str]:
    """Assert that every caption is one that the plain search finds, with its log-probability; what happened in the plain search."""
    happened: Counter[str] = Counter()
    for case in cases:
        network = TableNetwork(case.table)
        asked = range(1, 1 + case.crops)  # crop 0 belongs to another call
        found = search(network, network.cross_kv(1 + case.crops), asked, case.width, case.rules)
        for crop, caption in zip(asked, found, strict=True):
            notes: Counter[str] = Counter()
            score = scorer(case.table, crop)
            first = next(outcomes(score, case.width, 1, case.rules, notes))
            happened += notes
            allowed = outcomes(score, case.width, 1, case.rules) if notes["sums are tied"] else iter([first])
            assert any(list(caption.tokens) == one for one in islice(allowed, MOST)), f"{case.name}, crop {crop}"
            happened["compared"] += 1
            expected = logprob(case, crop, caption.tokens)
            assert caption.logprob == pytest.approx(expected, abs=1e-5), f"{case.name}, crop {crop}"
    return happened


def judge_known(name: str, search: Any = search_captions) -> None:
    """Assert that both searches give the known result; of a last token that the case leaves open nothing is asked."""
    width, shortest, longest, rows, expected = KNOWN[name]
    case = BeamCase(name, listed(rows), width, 1, beam_rules(shortest, longest))
    plain = next(outcomes(scorer(case.table, 0), width, 1, case.rules))
    network = TableNetwork(case.table)
    [ours] = search(network, network.cross_kv(1), range(1), width, case.rules)
    assert len(plain) == len(ours.tokens) == len(expected)
    told = [place for place, token in enumerate(expected) if token != ANY]
    assert [plain[place] for place in told] == [expected[place] for place in told]
    assert [ours.tokens[place] for place in told] == [expected[place] for place in told]


def logprob(case: BeamCase, crop: int, tokens: tuple[int, ...]) -> float:
    """Sum of the log-softmax of the raw logits, the end included."""
    total, prefix = 0.0, (case.rules.start,)
    for token in tokens:
        row = np.array(case.table(crop, prefix), np.float32).astype(float).tolist()
        top = max(row)
        total += row[token] - top - math.log(sum(math.exp(value - top) for value in row))
        prefix = (*prefix, token)
    return total
