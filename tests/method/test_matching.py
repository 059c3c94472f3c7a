"""Which automatic mask becomes a pseudo-mask: every setting in which the profiles differ on masks, and cases by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from pseudoris_cli.method.matching import choose
from pseudoris_cli.method.protocols import Proposal, Segment
from pseudoris_cli.records import Mask, Rle
from pseudoris_cli.rle import encode_rle, rle_area, rle_bbox
from pseudoris_cli.settings.models import MaskSettings
from pseudoris_cli.settings.resolve import resolve

FRAME = (40, 50)
Box = tuple[int, int, int, int]


def rle(*boxes: Box) -> Rle:
    """The union of boxes y0, x0, y1, x1 in the frame."""
    mask = np.zeros(FRAME, bool)
    for y0, x0, y1, x1 in boxes:
        mask[y0:y1, x0:x1] = True
    return encode_rle(mask)


def segment(*boxes: Box, quality: float = 0.9) -> Segment:
    mask = rle(*boxes)
    return Segment(mask, rle_area(mask), rle_bbox(mask), quality, 0.97)


def settings(**values: Any) -> MaskSettings:
    return MaskSettings(**values)


def pick(
    segments: list[Segment] | None, proposals: list[Proposal] | None, settings: MaskSettings
) -> tuple[list[Mask], Counter[str]]:
    """The chosen masks and the counts of dropped ones."""
    chosen = choose(segments, proposals, settings)
    return chosen.masks, chosen.dropped


OBJECT: Box = (10, 10, 20, 20)
WHOLE: Box = (0, 0, 40, 50)
NEARLY_WHOLE: Box = (0, 0, 40, 49)


def test_iou_takes_the_tight_mask_and_overlap_the_one_that_covers_most() -> None:
    segments = [segment(WHOLE), segment((11, 10, 20, 20))]
    for match, expected, iou in (("iou", 1, 0.9), ("overlap", 0, 100 / 2000)):
        [mask], dropped = pick(segments, [Proposal(rle(OBJECT), 0.8)], settings(match=match))
        assert mask.rle == segments[expected].rle
        assert mask.bbox == segments[expected].bbox
        assert (mask.mask_id, mask.detector_score, mask.predicted_iou) == (0, 0.8, 0.9)
        assert mask.match_iou == pytest.approx(iou)
        assert not dropped


def test_of_equal_overlaps_the_first_wins() -> None:
    segments = [segment((0, 0, 4, 4)), segment(OBJECT, (0, 40, 4, 44)), segment(OBJECT, (0, 45, 4, 49))]
    for match in ("iou", "overlap"):
        [mask], _ = pick(segments, [Proposal(rle(OBJECT), 0.8)], settings(match=match))
        assert mask.rle == segments[1].rle


def test_a_detection_without_any_overlap_gets_mask_0_by_overlap_and_none_by_iou() -> None:
    segments, proposals = [segment((0, 0, 4, 4)), segment((0, 10, 4, 14))], [Proposal(rle(OBJECT), 0.8)]
    [mask], dropped = pick(segments, proposals, settings(match="overlap"))
    assert mask.rle == segments[0].rle
    assert mask.match_iou == 0
    assert not dropped
    masks, dropped = pick(segments, proposals, settings(match="iou"))
    assert masks == []
    assert dropped == {"unmatched": 1}


@pytest.mark.parametrize(("least", "count"), [(0.0, 1), (0.5, 1), (0.51, 0)])
def test_matches_below_the_least_iou_are_dropped(least: float, count: int) -> None:
    masks, dropped = pick([segment((10, 10, 20, 15))], [Proposal(rle(OBJECT), 0.8)], settings(match_min_iou=least))
    assert len(masks) == count
    assert dropped["unmatched"] == 1 - count


def test_two_detections_on_one_mask() -> None:
    proposals = [Proposal(rle((10, 10, 20, 19)), 0.7), Proposal(rle(OBJECT), 0.9)]
    segments = [segment(OBJECT)]
    masks, dropped = pick(segments, proposals, settings(deduplicate=True))
    assert [(mask.mask_id, mask.detector_score) for mask in masks] == [(0, 0.9)]
    assert dropped == {"duplicate": 1}
    masks, dropped = pick(segments, proposals, settings(deduplicate=False))
    assert [(mask.mask_id, mask.detector_score) for mask in masks] == [(0, 0.9), (1, 0.7)]
    assert not dropped


def test_order_is_detector_score_then_predicted_iou_then_the_segmenters() -> None:
    boxes: list[Box] = [(0, 10 * k, 8, 10 * k + 8) for k in range(5)]
    segments = [segment(box, quality=quality) for box, quality in zip(boxes, (0.5, 0.9, 0.5, 0.7, 0.9), strict=True)]
    scores = (0.6, 0.6, 0.6, 0.8, 0.6)
    proposals = [Proposal(rle(box), score) for box, score in zip(boxes, scores, strict=True)]
    with_detector, _ = pick(segments, proposals[::-1], settings())
    without, _ = pick(segments, None, settings(rules={"min_area": 1}))
    assert [boxes.index(_box(mask.bbox)) for mask in with_detector] == [3, 1, 4, 0, 2]
    assert [boxes.index(_box(mask.bbox)) for mask in without] == [1, 4, 3, 0, 2]
    assert [mask.mask_id for mask in with_detector] == [0, 1, 2, 3, 4]
    assert [mask.detector_score for mask in without] == [None] * 5
    assert [mask.match_iou for mask in without] == [None] * 5


def _box(bbox: tuple[float, float, float, float]) -> Box:
    x, y, w, h = (int(value) for value in bbox)
    return y, x, y + h, x + w


def test_caps_keep_the_best_and_are_counted() -> None:
    boxes: list[Box] = [(0, 10 * k, 8, 10 * k + 8) for k in range(4)]
    proposals = [Proposal(rle(box), 0.6 + k / 10) for k, box in enumerate(boxes)]
    masks, dropped = pick([segment(box) for box in boxes], proposals, settings(max_per_image=2))
    assert [mask.detector_score for mask in masks] == pytest.approx([0.9, 0.8])
    assert dropped == {"over_max_per_image": 2}


def test_nothing_detected_or_nothing_segmented_is_empty() -> None:
    assert pick([segment(OBJECT)], [], settings()) == ([], {})
    assert pick([], [Proposal(rle(OBJECT), 0.8)], settings(match="overlap")) == ([], {"unmatched": 1})
    assert pick([], None, settings()) == ([], {})
    assert pick([], [], settings()) == ([], {})
    assert pick(None, [], settings()) == ([], {})


def test_empty_masks_are_dropped() -> None:
    masks, dropped = pick([segment()], [Proposal(rle(OBJECT), 0.8)], settings(match="overlap"))
    assert masks == []
    assert dropped == {"empty": 1}
    masks, dropped = pick(None, [Proposal(rle(), 1.0), Proposal(rle(OBJECT), 0.5)], settings())
    assert [(mask.mask_id, mask.area) for mask in masks] == [(0, 100)]
    assert dropped == {"empty": 1}


def test_own_masks_stand_as_they_are() -> None:
    proposals = [Proposal(rle(OBJECT), 0.5), Proposal(rle(WHOLE), 1.0), Proposal(rle(WHOLE), 0.7)]
    masks, dropped = pick(None, proposals, settings())
    assert [mask.rle for mask in masks] == [proposals[k].rle for k in (1, 2, 0)]
    assert [mask.detector_score for mask in masks] == [1.0, 0.7, 0.5]
    assert masks[2].bbox == (10, 10, 10, 10)
    assert masks[2].area == 100
    assert masks[2].match_iou is None
    assert {(mask.predicted_iou, mask.stability_score) for mask in masks} == {(1.0, 1.0)}, "no segmenter rated them"
    assert not dropped


@pytest.mark.parametrize(
    ("segments", "kept", "reason"),
    [
        ([((0, 0, 9, 11), 0.9), ((10, 0, 20, 10), 0.9)], [1], "small"),  # 99 and 100 pixels
        ([((0, 0, 24, 50), 0.9), ((0, 0, 25, 49), 0.8)], [0], "large"),  # 1200 and 1225 of 2000
        ([((0, 0, 20, 20), 0.8), ((0, 0, 20, 24), 0.9)], [1], "overlapping"),  # IoU .833
        ([((0, 0, 20, 20), 0.8), ((0, 0, 10, 10), 0.9)], [1], "contained"),  # a part, judged better
        ([((0, 0, 20, 20), 0.9), ((0, 0, 10, 10), 0.8)], [0], "contained"),
        ([((0, 0, 20, 20), 0.9), ((0, 0, 20, 25), 0.8)], [0], "contained"),  # IoU just .8 does not suppress
        ([((0, 0, 20, 20), 0.9), ((1, 0, 21, 20), 0.8)], [0], "overlapping"),
        ([((0, 0, 20, 20), 0.9), ((10, 10, 30, 30), 0.8)], [0, 1], None),
        ([((0, 0, 20, 20), 0.9), ((19, 0, 39, 20), 0.9)], [0, 1], None),
        ([((0, 0, 20, 20), 0.9), ((1, 1, 11, 21), 0.8)], [0, 1], None),  # just .95 inside
        ([((0, 0, 20, 20), 0.9), ((1, 0, 11, 21), 0.8)], [0], "contained"),  # .952
    ],
)
def test_rules_without_a_detector(segments: list[tuple[Box, float]], kept: list[int], reason: str | None) -> None:
    made = [segment(box, quality=quality) for box, quality in segments]
    masks, dropped = pick(made, None, settings())
    assert sorted(made.index(_segment(mask, made)) for mask in masks) == kept
    assert dropped == ({reason: 1} if reason else {})


def _segment(mask: Any, segments: list[Segment]) -> Segment:
    return next(segment for segment in segments if segment.rle == mask.rle)


def test_every_dropped_mask_is_counted() -> None:
    """The notes of a part say how many masks went for which reason."""
    small, large = [(0, 0, 9, 11), (20, 0, 29, 11), (0, 20, 9, 31)], [(0, 0, 40, 45), (0, 0, 39, 50)]
    same, inside = [(10, 20, 30, 40), (10, 20, 30, 41), (10, 20, 30, 39)], [(12, 22, 26, 36), (14, 24, 28, 38)]
    made = [segment(box, quality=0.95 - 0.01 * n) for n, box in enumerate([*small, *large, *same, *inside])]
    masks, dropped = pick(made, None, settings())
    assert [mask.rle for mask in masks] == [made[5].rle]
    assert dropped == {"small": 3, "large": 2, "overlapping": 2, "contained": 2}
    found = [Proposal(rle(OBJECT), 0.9 - 0.1 * n) for n in range(4)] + [Proposal(rle((30, 40, 40, 50)), 0.3)] * 2
    masks, dropped = pick([segment(OBJECT)], found, settings(match="iou", deduplicate=True))
    assert [mask.detector_score for mask in masks] == [0.9]
    assert dropped == {"duplicate": 3, "unmatched": 2}


def test_a_mask_that_was_dropped_drops_no_other() -> None:
    chain = [segment((0, 0, 20, 20), quality=0.9), segment((0, 2, 20, 22), quality=0.8)]
    chain.append(segment((0, 4, 20, 24), quality=0.7))  # IoU with the second .82, with the first .67
    masks, dropped = pick(chain, None, settings())
    assert [mask.rle for mask in masks] == [chain[0].rle, chain[2].rle]
    assert dropped == {"overlapping": 1}


def test_a_mask_that_fills_the_frame_goes_where_the_release_drops_it() -> None:
    """The release skips a mask image that holds one value only, which is an empty one or one without background."""
    segments = [segment(WHOLE), segment(NEARLY_WHOLE), segment(OBJECT)]
    proposals = [Proposal(rle(box), 0.9) for box in (WHOLE, NEARLY_WHOLE, OBJECT)]
    kept, dropped = pick(segments, proposals, settings())
    assert ([mask.rle for mask in kept], dropped) == ([one.rle for one in segments], {})
    kept, dropped = pick(segments, proposals, settings(drop_full_frame=True))
    assert ([mask.rle for mask in kept], dropped) == ([one.rle for one in segments[1:]], {"full_frame": 1})
    assert [mask.mask_id for mask in kept] == [0, 1], "numbers are given afterwards"


def test_rules_can_be_set() -> None:
    segments = [segment((0, 0, 20, 20), quality=0.9), segment((0, 0, 3, 3), quality=0.8)]
    dot = [segments[0], segment((5, 5, 6, 6), quality=0.8)]
    assert pick(dot, None, settings(rules={"min_area": 0}))[1] == {"contained": 1}
    loose = {"containment": 1.0, "min_area": 0, "nms_iou": 1.0, "max_area": 1.0}
    assert len(pick(segments, None, settings(rules=loose))[0]) == 2


@pytest.mark.parametrize(
    ("profile", "match", "deduplicate", "channels"),
    [("paper", "iou", True, "rgb"), ("reference", "overlap", False, "bgr")],
)
def test_profiles_choose_as_the_table_says(profile: str, match: str, deduplicate: bool, channels: str) -> None:
    masks = resolve(profile).settings.masks
    assert (masks.match, masks.match_min_iou, masks.deduplicate) == (match, 0, deduplicate)
    assert (masks.sam.channels, masks.proposals.channels) == (channels, channels)  # type: ignore[attr-defined]
    segments = [segment(NEARLY_WHOLE), segment(OBJECT)]
    proposals = [Proposal(rle(OBJECT), 0.9), Proposal(rle((10, 10, 20, 19)), 0.8)]
    chosen, _ = pick(segments, proposals, masks)
    expected = [segments[1]] if profile == "paper" else [segments[0]] * 2
    assert [mask.rle for mask in chosen] == [one.rle for one in expected]


boxes = st.tuples(st.integers(0, 30), st.integers(0, 40), st.integers(0, 40), st.integers(0, 50))
qualities = st.sampled_from([0.5, 0.6, 0.6, 0.9])


@limits(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(boxes, qualities), max_size=6),
    st.none() | st.lists(st.tuples(boxes, qualities), max_size=6),
    st.sampled_from(["iou", "overlap"]),
    st.booleans(),
    st.none() | st.integers(1, 3),
)
def test_any_choice_accounts_for_every_candidate(
    segments: list[tuple[Box, float]],
    proposals: list[tuple[Box, float]] | None,
    match: str,
    deduplicate: bool,
    cap: int | None,
) -> None:
    made = [segment(box, quality=quality) for box, quality in segments]
    found = None if proposals is None else [Proposal(rle(box), score) for box, score in proposals]
    masks, dropped = pick(made, found, settings(match=match, deduplicate=deduplicate, max_per_image=cap))
    candidates = made if found is None else found
    assert len(masks) + sum(dropped.values()) == len(candidates)
    assert [mask.mask_id for mask in masks] == list(range(len(masks)))
    assert all(mask.area > 0 for mask in masks)
    assert cap is None or len(masks) <= cap
    ranks = [(-(mask.detector_score or 0), -mask.predicted_iou) for mask in masks]
    assert ranks == sorted(ranks)
    if deduplicate and found is not None:
        chosen = [id(mask.rle) for mask in masks]
        assert len(set(chosen)) == len(chosen)
