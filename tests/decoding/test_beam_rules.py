"""Beam search on tables of logits: cases with a result that is known, and random ones beside the plain search."""

from __future__ import annotations

import pytest
from beam_judge import judge_beams, judge_known, random_cases
from known_beams import KNOWN
from plain_beams import outcomes
from table_network import STYLES, random_case, scorer


@pytest.mark.parametrize("name", KNOWN)
def test_known_results(name: str) -> None:
    judge_known(name)


@pytest.mark.parametrize("style", STYLES)
def test_random_tables(style: str) -> None:
    judge_beams(random_case(style, seed) for seed in range(150))


def test_the_random_tables_hold_every_event() -> None:
    happened = judge_beams(random_cases(100))
    assert happened["compared"] >= 600
    for rank in range(8):
        assert happened[f"end at rank {rank}"] >= 5, rank
    for event in EVENTS:
        assert happened[event] >= 5, event


EVENTS = (
    "end barred",
    "cut open",
    "full and done",
    "full and not done",
    "replaced the worst",
    "worse than the worst",
    "tied with the worst",
    "the best are tied",
    "sums are tied",
)


def test_six_beams_in_three_groups_are_two_in_one() -> None:
    """By the plain search alone: what lets ours do a third of the work. Sums that tie may be ordered otherwise in each group."""
    for seed in range(120):
        for style in ("spread", "end at a rank", "late"):
            case = random_case(style, seed)
            score = scorer(case.table, 0)
            grouped = next(outcomes(score, 3 * case.width, 3, case.rules))
            assert grouped == next(outcomes(score, case.width, 1, case.rules)), case.name
