"""Beam search on tables of logits: cases with a result that is known, and random ones beside the plain search."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from beam_judge import judge_beams, random_cases
from plain_beams import outcomes
from table_network import END, START, STYLES, BeamCase, Table, TableNetwork, beam_rules, random_case, scorer

from pseudoris_cli.decoding.beam import search_captions

A, B, C, D = 3, 4, 5, 6
VOCABULARY = 7


def listed(rows: dict[tuple[int, ...], dict[int, float]]) -> Table:
    """A table of the tokens that matter; every other one is far below."""

    def table(_crop: int, prefix: tuple[int, ...]) -> list[float]:
        row = [-50.0 - token for token in range(VOCABULARY)]
        for token, value in rows.get(prefix[1:], {}).items():
            row[token] = value
        return row

    return table


# name: width, minimum and maximum length, the logits after prefixes, the result.
KNOWN: dict[str, tuple[int, int, int, dict[tuple[int, ...], dict[int, float]], list[int]]] = {
    "an end in the first ranks closes": (2, 1, 3, {(): {A: 9, END: 8, B: 7}, (A,): {C: 1}, (B,): {C: 1}}, [END]),
    "an end below them does not": (
        # after (A) and (B): A-end 10, A-C 9, B-end 8. Were B-end closed, the list would be full and the search done one step
        # later: its 8 / 2 is better than 11 / 3
        2,
        2,
        6,
        {
            (): {A: 6, B: 5.5},
            (A,): {END: 4, C: 3},
            (B,): {END: 2.5, D: 1},
            (A, C): {A: 2},
            (A, C, A): {END: 19},
        },
        [A, C, A, END],
    ),
    "a closed score counts the start but not the end": (
        # 12 / 2 = 6 for (A, end); 17 / 3 for the open ones; by 12 / 3 the open one would win
        1,
        2,
        3,
        {(): {A: 6, B: 1}, (A,): {C: 6.5, END: 6}, (A, C): {C: 5}},
        [A, C],
    ),
    "with two beams the end is among the first": (
        2,
        2,
        3,
        {(): {A: 6, B: 1}, (A,): {C: 6.5, END: 6}, (A, C): {C: 5}},
        [A, END],
    ),
    "an open sequence counts all its tokens": (
        # 6.1 at length 1 is closed; open: (6 + 12.6) / 3 = 6.2
        2,
        1,
        3,
        {(): {END: 6.1, A: 6, B: 1}, (A,): {C: 12.6}},
        [A, C],
    ),
    "of equal scores the last closed wins": (
        # (end) scores 4 / 1, (A, end) 8 / 2
        2,
        1,
        3,
        {(): {END: 4, A: 3, B: -9}, (A,): {END: 5, C: -9}},
        [A, END],
    ),
    "a full list refuses an equal score": (
        # one beam: (end) with 4; then (A, end) with 8 / 2 is refused. The search went on as (A) was better
        1,
        1,
        4,
        {(): {END: 4, A: 3.9}},
        [END],
    ),
    "the minimum length bars the end": (2, 3, 4, {(): {END: 20, A: 9}, (A,): {END: 20, C: 1}}, [A, C, D]),
    "an end at the minimum length closes": (2, 2, 4, {(): {END: 20, A: 9}, (A,): {END: 9, C: 1}}, [A, END]),
    "the maximum length cuts open beams": (1, 1, 4, {(): {A: 1}, (A,): {B: 1}, (A, B): {C: 1, END: 0.5}}, [A, B, C]),
    "the search goes on while a candidate is better per token": (
        # (end) scores 4 and fills the list of one beam; its candidate A + 5 = 9.5 / 2 is better than that
        2,
        1,
        4,
        {(): {A: 4.5, END: 4, B: 3}, (A,): {C: 5, END: 4}, (A, C): {END: 9, D: 1}},
        [A, C, END],
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_results(name: str) -> None:
    width, shortest, longest, rows, expected = KNOWN[name]
    case = BeamCase(name, listed(rows), width, 1, beam_rules(shortest, longest))
    plain = next(outcomes(scorer(case.table, 0), width, 1, case.rules))
    network = TableNetwork(case.table)
    [ours] = search_captions(network, network.cross_kv(1), range(1), width, case.rules)
    if expected[-1] == D:  # any token of equal, low logits
        plain, expected = plain[:-1], expected[:-1]
        assert list(ours.tokens[:-1]) == expected
    else:
        assert list(ours.tokens) == expected
    assert plain == expected


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
        for style in ("spread", "end at a rank"):
            case = random_case(style, seed)
            score: Callable = scorer(case.table, 0)
            grouped = next(outcomes(score, 3 * case.width, 3, case.rules))
            assert grouped == next(outcomes(score, case.width, 1, case.rules)), case.name


def test_a_search_of_some_crops_reads_those_crops() -> None:
    case = random_case("spread", 3)
    network = TableNetwork(case.table)
    found = search_captions(network, network.cross_kv(5), range(2, 5), case.width, case.rules)
    plain = [next(outcomes(scorer(case.table, crop), case.width, 1, case.rules)) for crop in range(2, 5)]
    assert [list(caption.tokens) for caption in found] == plain
    assert START not in found[0].tokens
