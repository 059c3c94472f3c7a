"""A decision made by hand wins over every rule, either way, and touches nothing else."""

from __future__ import annotations

import numpy as np

from pseudoris_cli.method import by_hand
from pseudoris_cli.method.selection import select
from pseudoris_cli.settings.models import FilterSettings


def columns() -> dict:
    """Two masks of one image and one of another; of the first mask `dog` twice."""
    rows = [
        ("a", 0, "dog", 1.5), ("a", 0, "cat", 0.5), ("a", 0, "dog ", 1.5),
        ("a", 1, "dog", 1.2), ("a", 1, "cow", 0.4), ("b", 0, "dog", 1.1), ("b", 1, "cow", 1.4),
    ]  # fmt: skip
    names = ("image_key", "mask_id", "caption", "doc")
    table = {name: [row[at] for row in rows] for at, name in enumerate(names)}
    return table | {"correctness": [0.2] * len(rows), "flags": [""] * len(rows)}


def test_a_hand_wins_either_way() -> None:
    table = columns()
    chosen, before = select(table, FilterSettings()), select(table, FilterSettings())
    decided = {
        ("a", 0, "dog"): False,  # the rules keep it
        ("a", 0, "cat"): True,  # the rules drop it
        ("b", 0, "dog"): True,  # as the rules say
        ("a", 1, "zebra"): True,  # nobody said so
        ("c", 0, "dog"): False,  # no such image
    }
    assert by_hand.apply(table, chosen, decided) == {"kept": 2, "dropped": 1, "changed": 2}
    assert chosen["kept"].tolist() == [False, True, False, True, False, True, True]
    assert chosen["reason"].tolist() == ["by hand", "by hand", "duplicate", "", "doc<=1", "by hand", ""]
    untouched = [2, 3, 4, 6]
    assert (before["kept"][untouched] == chosen["kept"][untouched]).all()
    assert (before["duplicates"] == chosen["duplicates"]).all()


def test_parts_that_hold_nothing_of_it_stay() -> None:
    table = columns()
    chosen, before = select(table, FilterSettings()), select(table, FilterSettings())
    assert by_hand.apply(table, chosen, {("z", 0, "dog"): False}) == {"kept": 0, "dropped": 0, "changed": 0}
    assert np.array_equal(chosen["reason"], before["reason"])
