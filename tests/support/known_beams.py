"""Beam searches whose result follows from the rules by hand."""

from __future__ import annotations

from table_network import END, Table

A, B, C, D = 3, 4, 5, 6
VOCABULARY = 7
ANY = -1
"""A last token of low logits, equal for all."""


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
        # (end) and (A, end) fill it with 4 each, (A, C, end) has 12 / 3
        2,
        1,
        4,
        {(): {A: 6, END: 4}, (A,): {C: 3, END: 2}, (A, C): {A: 4, END: 3}},
        [A, END],
    ),
    "the minimum length bars the end": (2, 3, 4, {(): {END: 20, A: 9}, (A,): {END: 20, C: 1}}, [A, C, ANY]),
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
