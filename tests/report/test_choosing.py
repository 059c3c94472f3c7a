"""Which images a report shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
from work_maker import WorkMaker

from pseudoris_cli.errors import UsageError
from pseudoris_cli.report.choosing import ImageChoice, choose
from pseudoris_cli.report.versions import Parts, chain_of


def chosen(made: WorkMaker, choice: ImageChoice) -> list[str]:
    return [image.ref.key for image in choose(Parts(made.workspace, chain_of(made.workspace)), choice)]


def numbers(made: WorkMaker, choice: ImageChoice) -> list[int]:
    return [int(key[:6]) for key in chosen(made, choice)]


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [0]), (2, [0, 3]), (3, [0, 2, 4]), (6, [0, 1, 2, 3, 4, 5]), (9, [0, 1, 2, 3, 4, 5])]
)
def test_a_sample_is_spread_over_the_parts(maker: Callable[..., WorkMaker], count: int, expected: list[int]) -> None:
    made = maker(6, part_size=4)
    made.masks()
    assert numbers(made, ImageChoice(count)) == expected


def test_a_sample_is_of_what_the_last_stage_has_answered(maker: Callable[..., WorkMaker]) -> None:
    made = maker(6, part_size=2)
    made.captions(made.masks(), parts=2)
    assert numbers(made, ImageChoice(4)) == [0, 1, 2, 3]


def test_worst_and_best_go_by_the_median_doc_of_what_was_kept(maker: Callable[..., WorkMaker]) -> None:
    made = maker(5, part_size=2)
    made.all()
    parts = Parts(made.workspace, chain_of(made.workspace))
    docs: dict[str, list[float]] = defaultdict(list)
    for part in parts.covered("filter"):
        columns = parts.columns("filter", part)
        for key, doc, kept in zip(columns["image_key"], columns["doc"], columns["kept"], strict=True):
            docs[key] += [float(doc)] if kept else []
    ranked = sorted(docs, key=lambda key: float(np.median(docs[key])))
    assert chosen(made, ImageChoice(2, "worst")) == ranked[:2]
    assert chosen(made, ImageChoice(2, "best")) == ranked[:-3:-1]


def test_an_image_that_lost_everything_is_the_worst(maker: Callable[..., WorkMaker]) -> None:
    made = maker(3)
    made.filter(made.scores(made.captions(made.masks())), min_doc=50)
    assert len(chosen(made, ImageChoice(9, "worst"))) == 3


def test_search_finds_images_by_caption_whatever_the_case(maker: Callable[..., WorkMaker]) -> None:
    made = maker(5, part_size=2)
    made.captions(made.masks(), texts=("Ein KLEINER Hund",))
    assert numbers(made, ImageChoice(search="kleiner hund")) == [0]
    everything = numbers(made, ImageChoice(search="a "))
    assert everything == [0, 1, 2, 3, 4]
    assert numbers(made, ImageChoice(2, search="a ")) == [0, 1]
    with pytest.raises(UsageError, match="no caption contains"):
        chosen(made, ImageChoice(search="zeppelin"))


def test_named_images_come_in_the_order_of_their_names(maker: Callable[..., WorkMaker]) -> None:
    made = maker(3)
    made.masks()
    assert numbers(made, ImageChoice(2, keys=("000002.png", "000000.png", "000002.png"))) == [2, 0]
    with pytest.raises(UsageError, match=r"did you mean 000002\.png"):
        chosen(made, ImageChoice(1, keys=("00002.png",)))


@pytest.mark.parametrize("choice", [ImageChoice(3, "worst"), ImageChoice(3, "best"), ImageChoice(search="a")])
def test_what_needs_a_later_stage_says_which(maker: Callable[..., WorkMaker], choice: ImageChoice) -> None:
    made = maker(2)
    made.masks()
    with pytest.raises(UsageError, match=r"run `pseudoris (filter|captions)` first"):
        chosen(made, choice)
