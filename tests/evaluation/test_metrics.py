"""The evaluator on hand-made cases where the right answer is known by counting."""

from __future__ import annotations

import numpy as np
import pytest

from pseudoris_cli.demo.grammar import Attributes
from pseudoris_cli.errors import UsageError
from pseudoris_cli.evaluation.metrics import CaptionRun, evaluate
from pseudoris_cli.evaluation.resampling import Figure
from pseudoris_cli.evaluation.truth import KnownImage
from pseudoris_cli.rle import encode_rle

RED_RING = Attributes("ring", "red", "plain", "small")
BIG_RED_RING = Attributes("ring", "red", "plain", "large")
BLUE_STAR = Attributes("star", "blue", "striped", "large")


def box(x, y, w, h, height=20, width=30):
    mask = np.zeros((height, width), bool)
    mask[y : y + h, x : x + w] = True
    return encode_rle(mask)


def mask_row(key, mask_id, rle):
    return {"image_key": key, "mask_id": mask_id, "rle_size": [rle.height, rle.width], "rle_counts": rle.counts}


def said(mask_id, caption, sampler="top_k=5", key="a"):
    return {"image_key": key, "mask_id": mask_id, "caption": caption, "sampler": sampler}


SCENE = KnownImage("a", (box(0, 0, 4, 4), box(10, 0, 4, 4), box(20, 0, 4, 4)), (RED_RING, BIG_RED_RING, BLUE_STAR))
# mask 0 is the first object, mask 5 half of the second (IoU .5), mask 7 nothing
MASKS = [mask_row("a", 0, SCENE.masks[0]), mask_row("a", 5, box(10, 0, 4, 2)), mask_row("a", 7, box(0, 10, 4, 4))]


def values(figures):
    return {name: figure.value for name, figure in figures.items()}


def test_mask_figures():
    got = evaluate([SCENE], MASKS)
    assert (got.images, got.objects, got.masks, got.captions) == (1, 3, 3, ())
    assert values(got.mask_figures) == {
        "recall@.5": pytest.approx(2 / 3),
        "recall@.75": pytest.approx(1 / 3),
        "mean_best_iou": pytest.approx((1 + 0.5 + 0) / 3),
        "precision@.5": pytest.approx(2 / 3),
    }


def test_a_second_mask_on_an_object_costs_precision_not_recall():
    twice = [*MASKS[:1], mask_row("a", 1, SCENE.masks[0])]
    got = values(evaluate([SCENE], twice).mask_figures)
    assert (got["recall@.5"], got["precision@.5"]) == (pytest.approx(1 / 3), 0.5)


def test_images_without_masks_count_against_recall():
    missed = KnownImage("b", (box(0, 0, 3, 3),), (BLUE_STAR,))
    got = evaluate([SCENE, missed], MASKS)
    assert (got.images, got.objects) == (2, 4)
    assert got.mask_figures["recall@.5"].value == 0.5


def test_caption_figures():
    captions = [
        said(0, "a ring"),  # true, but of two objects
        said(0, "a small ring"),  # true of this one alone
        said(0, "a small ring", "top_p=0.4"),  # the same text again: counts once
        said(0, "a star"),  # true of exactly one object, not this one
        said(0, "ring small"),  # not in the grammar
        said(5, "a red ring"),  # true of two
        said(5, "a green ring"),  # true of none
        said(7, "a small ring"),  # mask 7 is no object: unique, yet never truthful
        said(0, "a blue star", "beam"),
        said(0, "a ring", key="elsewhere"),  # an image outside the truth
    ]
    beam, plain = evaluate([SCENE], MASKS, [CaptionRun("plain", captions)]).captions
    assert (beam.method, beam.filtered, beam.texts) == ("beam", False, 1)
    assert values(beam.figures) == {
        "well_formed": 1, "truthful": 0, "unique": 1, "referring": 0, "per_mask": pytest.approx(1 / 3), "coverage": 0.5,
        "referring_coverage": 0,
    }  # fmt: skip
    assert (plain.method, plain.texts) == ("plain", 7)
    assert values(plain.figures) == {
        "well_formed": pytest.approx(6 / 7),
        "truthful": pytest.approx(3 / 7),
        "unique": pytest.approx(3 / 7),
        "referring": pytest.approx(1 / 7),
        "per_mask": pytest.approx(7 / 3),
        "coverage": 1,
        "referring_coverage": 0.5,
    }


def test_a_text_is_kept_for_every_method_that_said_it():
    captions = [said(0, "a small ring", "beam"), said(0, "a small ring"), said(0, "a ring"), said(5, "a ring", "beam")]
    kept = [captions[0]]  # the filter marks the sampled row a duplicate
    got = {
        (one.method, one.filtered): one
        for one in evaluate([SCENE], MASKS, [CaptionRun("distinctive", captions, kept)]).captions
    }
    assert {which: one.texts for which, one in got.items()} == {
        ("beam", False): 2,
        ("beam", True): 1,
        ("distinctive", False): 2,
        ("distinctive", True): 1,
    }
    filtered = values(got["distinctive", True].figures)
    assert (filtered["referring"], filtered["coverage"], filtered["referring_coverage"]) == (1, 0.5, 0.5)


def test_differences_compare_plain_with_the_others_and_each_with_its_filter():
    plain = CaptionRun("plain", [said(0, "a ring"), said(0, "a small ring")])
    distinctive = CaptionRun("distinctive", [said(0, "a small ring"), said(5, "a big ring")], [said(5, "a big ring")])
    got = evaluate([SCENE], MASKS, [plain, distinctive])
    rises = {(d.figure, d.lower, d.upper): d.rise.value for d in got.differences}
    assert rises[("referring", "plain", "distinctive")] == 0.5
    assert rises[("unique", "distinctive", "distinctive + DoC")] == 0
    assert len(rises) == 4


def test_truth_without_attributes_gives_mask_figures_only():
    bare = KnownImage("a", SCENE.masks)
    got = evaluate([bare], MASKS, [CaptionRun("plain", [said(0, "a ring")])])
    assert got.captions == ()
    assert got.mask_figures["recall@.5"].value == pytest.approx(2 / 3)


def test_nothing_to_measure_is_none_not_a_number():
    got = evaluate([], [])
    assert got.mask_figures["recall@.5"] == Figure(None, None, None)
    empty = evaluate([SCENE], [], [CaptionRun("plain", [])])
    assert empty.mask_figures["precision@.5"].value is None
    assert empty.captions == ()


def test_intervals_are_seeded_cover_the_value_and_shrink_with_images():
    def measured(images, seed=0):
        rng = np.random.default_rng(1)
        truth = [KnownImage(str(k), SCENE.masks, SCENE.attributes) for k in range(images)]
        rows = [mask_row(str(k), i, SCENE.masks[i]) for k in range(images) for i in range(3) if rng.random() < 0.7]
        return evaluate(truth, rows, seed=seed).mask_figures["recall@.5"]

    few, many = measured(20), measured(320)
    assert few == measured(20)
    assert many != measured(320, seed=1)
    for one in (few, many):
        assert one.low < one.value < one.high
    assert (many.high - many.low) < 0.4 * (few.high - few.low)
    # a share of 960 trials: the half width is about 1.96 sqrt(p (1 - p) / n)
    expected = 1.96 * np.sqrt(many.value * (1 - many.value) / 960)
    assert (many.high - many.low) / 2 == pytest.approx(expected, rel=0.15)


def test_masks_of_another_size_are_refused():
    with pytest.raises(UsageError, match="differ in size"):
        evaluate([SCENE], [mask_row("a", 0, box(0, 0, 4, 4, height=10))])


def test_rows_and_json_carry_every_figure():
    got = evaluate([SCENE], MASKS, [CaptionRun("plain", [said(0, "a ring")])])
    (row,) = got.rows()
    assert (row["method"], row["texts"], row["truthful"]) == ("plain", 1, 1)
    assert {"unique_low", "referring_high", "coverage"} <= row.keys()
    assert got.to_json()["captions"][0]["figures"]["well_formed"]["value"] == 1
