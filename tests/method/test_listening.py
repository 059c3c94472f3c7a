"""Who is asked what, under which numberings, and how the answers are read."""

from __future__ import annotations

import numpy as np
import pytest
from lineups import ByArea, image
from test_selection import NULL, mask, table

from pseudoris_cli.backends.listener_demo import Settings as ListenerSettings
from pseudoris_cli.method.listening import Answer, Judge, asked
from pseudoris_cli.method.protocols import Listener
from pseudoris_cli.method.selection import select
from pseudoris_cli.records import CaptionCandidate, MaskedImage
from pseudoris_cli.settings.models import FilterSettings, JudgeSettings


def settings(**more: object) -> JudgeSettings:
    return ListenerSettings(checkpoint="random:0", **more)


def judge(listener: Listener, likeness=None, **more: object) -> Judge:
    def unexpected(of: MaskedImage) -> np.ndarray:
        raise AssertionError("nobody asked for it")

    return Judge(listener, settings(**more), likeness or unexpected)


def test_the_target_is_found_by_id_whatever_its_place() -> None:
    one = image(4)
    wanted = [CaptionCandidate(m.mask_id, n, str(m.area)) for n, m in enumerate(one.masks)]
    wanted.append(CaptionCandidate(0, 1, str(one.masks[0].area)))  # mask 0 is the last; the text is of mask 3
    [answers] = judge(ByArea()).answers([one], [wanted])
    for candidate, answer in zip(wanted[:-1], answers, strict=False):
        assert answer.choice == candidate.mask_id
        assert answer.listener > 0.9
        assert answer.best_other == pytest.approx(answer.none)
        assert set(answer.shown) == {0, 1, 2, 3}
    assert answers[-1].choice == 3
    assert answers[-1].listener == pytest.approx(answers[-1].none)
    assert answers[-1].best_other > 0.9


def test_numberings_differ_and_are_joined_by_the_geometric_mean() -> None:
    one = image(5)
    listener = ByArea(bias=0.3)
    [[answer]] = judge(listener, permutations=3).answers([one], [[CaptionCandidate(0, 0, "9")]])
    orders = [tuple(m.area for m in lineup.masks) for lineup in listener.lineups]
    assert orders[0] == (9, 8, 7, 6, 5), "by area first"
    assert len(set(orders)) == 3
    expected = np.zeros(6)
    for lineup in listener.lineups:
        p = listener._hear(lineup)[0]
        expected += np.log([*(p[[m.area for m in lineup.masks].index(area)] for area in (9, 8, 7, 6, 5)), p[-1]])
    expected = np.exp(expected / 3) / np.exp(expected / 3).sum()
    assert (answer.listener, answer.none) == (pytest.approx(expected[0]), pytest.approx(expected[-1]))
    again = ByArea(bias=0.3)
    judge(again, permutations=3).answers([one], [[CaptionCandidate(0, 0, "9")]])
    assert [tuple(m.area for m in lineup.masks) for lineup in again.lineups] == orders, "from the key alone"


def test_no_numbering_is_asked_twice() -> None:
    for masks, wanted, turns in ((1, 3, 1), (2, 2, 2), (2, 5, 2), (3, 4, 4)):
        listener = ByArea()
        text = str(image(masks).masks[0].area)
        judge(listener, permutations=wanted).answers([image(masks)], [[CaptionCandidate(masks - 1, 0, text)]])
        orders = {tuple(m.area for m in lineup.masks) for lineup in listener.lineups}
        assert len(orders) == len(listener.lineups) == turns


def test_a_listener_without_numbers_is_asked_once() -> None:
    listener = ByArea()
    listener.numbered = False
    judge(listener, permutations=3).answers([image(3)], [[CaptionCandidate(0, 0, "7")]])
    assert len(listener.lineups) == 1


def test_an_unanswered_question_is_null() -> None:
    [answers] = judge(ByArea()).answers([image(3)], [[CaptionCandidate(0, 0, "?"), CaptionCandidate(0, 1, "7")]])
    assert (answers[0].listener, answers[0].choice, answers[1].choice) == (None, None, 0)


def test_none_or_several_is_minus_one_and_one_mask_has_no_other() -> None:
    [answers] = judge(ByArea()).answers([image(1)], [[CaptionCandidate(0, 0, "nothing"), CaptionCandidate(0, 1, "5")]])
    assert [(a.choice, a.best_other) for a in answers] == [(-1, None), (0, None)]


def test_a_crowd_is_shown_in_part_with_the_target_and_its_likes() -> None:
    one = image(6)
    alike = np.eye(6)
    alike[0, 4] = alike[0, 2] = 0.9
    alike[5, 1] = alike[5, 3] = 0.8
    listener = ByArea()
    ids = [m.mask_id for m in one.masks]
    wanted = [CaptionCandidate(ids[0], 0, "5"), CaptionCandidate(ids[5], 0, "10"), CaptionCandidate(ids[0], 1, "9")]
    [answers] = judge(listener, lambda of: alike, max_marks=3, permutations=1).answers([one], [wanted])
    assert set(answers[0].shown) == {ids[0], ids[2], ids[4]}
    assert set(answers[1].shown) == {ids[5], ids[1], ids[3]}
    assert [a.choice for a in answers] == [ids[0], ids[5], ids[4]]
    assert len(listener.lineups) == 2


def test_images_are_kept_apart() -> None:
    first, second, bare = image(3), image(2, "b.png"), image(0, "c.png")
    answers = judge(ByArea()).answers(
        [first, bare, second],
        [[CaptionCandidate(0, 0, "7")], [], [CaptionCandidate(1, 0, "5"), CaptionCandidate(0, 0, "x")]],
    )
    assert [[a.choice for a in of] for of in answers] == [[0], [], [1, -1]]


def test_several_targets_are_those_that_fit() -> None:
    one = image(3)
    wanted = [CaptionCandidate(0, 0, "7"), CaptionCandidate(0, 1, "5 6")]
    [answers] = judge(ByArea(), multi=True).answers([one], [wanted])
    assert [sorted(a.targets) for a in answers] == [[0], [1, 2]]
    [[alone]] = judge(ByArea()).answers([one], [wanted[:1]])
    assert alone.targets is None


def test_texts_that_fit_nothing() -> None:
    told = judge(ByArea()).fits_nothing([image(3), image(0, "b.png"), image(2, "c.png")], [["5", "9"], ["5"], []])
    assert told == [[False, True], [True], []]


def test_who_is_asked_passes_the_cheap_rules() -> None:
    rows = mask(("dog", 1.5), ("dog", 1.5), ("cat", 0.9), ("cow", 1.4), ("a b c", 1.3), ("", 1.6), ("pig", NULL))
    columns = table(*rows, *(("b.jpg", 0, text, score, NULL, "one_mask") for text, score in (("x", 0.1), ("y", 0.3))))
    base = FilterSettings()
    names = [caption for _, _, caption, *_ in (*rows, ("b", 0, "x"), ("b", 0, "y"))]

    def texts(filter_settings: FilterSettings, judge_settings: JudgeSettings) -> list[str]:
        return [name for name, ask in zip(names, asked(columns, filter_settings, judge_settings), strict=True) if ask]

    assert texts(base, settings()) == ["dog", "cow", "a b c", "x", "y"], "both texts of an only mask"
    assert texts(base, settings(ask_per_mask=1)) == ["dog", "y"]
    assert texts(base, settings(min_doc=-1.0)) == ["dog", "cat", "cow", "a b c", "x", "y"]
    assert texts(base.model_copy(update={"min_doc": 1.35}), settings()) == ["dog", "cow", "x", "y"]
    assert texts(base.model_copy(update={"max_words": 1, "fallback": "best"}), settings()) == ["dog", "cow", "x", "y"]


def test_the_selection_hears_the_listener() -> None:
    rows = mask(("own", 1.5), ("unsure", 1.5), ("other", 1.5), ("none", 1.5), ("silent", 1.5), ("low", 0.5))
    columns = table(*rows, *(("b.jpg", 0, text, 0.1, NULL, "one_mask") for text in ("right", "wrong")))
    columns |= {
        "listener": [0.9, 0.4, 0.1, 0.2, None, 0.9, 0.8, 0.2],
        "listener_choice": [0, 0, 3, -1, None, 0, 0, -1],
    }
    chosen = select(columns, FilterSettings())["reason"].tolist()
    assert chosen == ["", "listener", "listener other", "listener none", "not asked", "doc<=1", "", "listener none"]
    sure = select(columns, FilterSettings(min_listener=0.85))["reason"].tolist()
    assert (sure[0], sure[6]) == ("", "listener")
    least = select(columns, FilterSettings(min_listener=0.0))["reason"].tolist()
    assert least[:5] == ["", "", "", "", "not asked"]


def test_an_answer_as_a_row() -> None:
    assert set(Answer().row().values()) == {None}
    assert Answer(choice=-1, targets=()).row()["listener_targets"] == []
