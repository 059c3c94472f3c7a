"""Precision at equal coverage, and calibration, on cases that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pseudoris_cli.demo.grammar import Attributes
from pseudoris_cli.evaluation import curves
from pseudoris_cli.evaluation.curves import Candidates
from pseudoris_cli.evaluation.metrics import CaptionRun, evaluate, label
from pseudoris_cli.evaluation.resampling import resamples
from pseudoris_cli.evaluation.scenes import known_scene_of
from pseudoris_cli.evaluation.truth import KnownImage
from pseudoris_cli.rle import encode_rle

NAN = float("nan")
GIVEN = Candidates(
    image=np.array([0, 0, 0, 1, 1]),
    mask=np.array([0, 0, 1, 2, 2]),
    referring=np.array([True, True, False, True, False]),
    matched=np.array([2, 2]),
)


def drawn(score: list[float]) -> curves.Curve | None:
    return curves.curve("plain", "DoC", GIVEN, np.array(score), resamples(2, 0))


def test_a_curve_counts_masks_once_and_texts_each() -> None:
    made = drawn([5, 4, 3, 2, 1])
    assert made is not None
    assert made.points == ((0.25, 1.0), (0.5, 0.75)), (
        "two of four masks have a referring text among all five candidates"
    )
    assert {name: figure.value for name, figure in made.at.items()} == {
        "0.95": None,
        "0.9": None,
        "0.8": None,
        "0.6": None,
    }


def test_precision_is_read_at_the_highest_threshold_that_reaches_the_coverage() -> None:
    given = Candidates(GIVEN.image, GIVEN.mask, GIVEN.referring, np.array([1, 1]))
    made = curves.curve("plain", "DoC", given, np.array([5, 1, 4, 3, 2.0]), resamples(2, 0))
    assert made is not None
    assert made.at["0.6"].value == pytest.approx(2 / 3), "true, false, true: the second mask is reached by the third"
    assert made.at["0.95"].value == made.at["0.6"].value


def test_equal_scores_are_taken_together() -> None:
    first, second = drawn([1, 1, 1, 1, 1]), drawn([NAN, 1, 1, 1, 1])
    assert first is not None
    assert first.points == ((0.5, 0.6),)
    assert second is not None
    assert second.points == ((0.5, 0.5),), "what has no score is never selected"
    assert drawn([NAN] * 5) is None


def test_calibration_compares_each_bin_with_its_frequency() -> None:
    probability = np.array([0.05, 0.05, 0.95, 0.95, 0.95, 0.95, 1.0, NAN])
    referring = np.array([False, True, True, True, True, False, True, True])
    made = curves.calibration("plain", probability, referring)
    assert made is not None
    assert [(one.texts, one.referring) for one in made.bins] == [(2, 0.5), (5, 0.8)]
    assert made.ece == pytest.approx((2 * 0.45 + 5 * abs(0.96 - 0.8)) / 7)
    assert curves.calibration("plain", np.array([NAN]), np.array([True])) is None


def box(x: int, size: int = 4) -> np.ndarray:
    mask = np.zeros((20, 40), bool)
    mask[8 : 8 + size, x : x + size] = True
    return mask


RINGS = tuple(Attributes("ring", "red", "plain", "small") for _ in range(2))
TRUTH = KnownImage("a", (encode_rle(box(2)), encode_rle(box(30, 6))), RINGS)


def row(mask_id: int, caption: str, **more: object) -> dict[str, object]:
    return {"image_key": "a", "mask_id": mask_id, "caption": caption, "sampler": "vlm", **more}


def test_places_comparisons_and_relations_are_judged_by_what_they_mean() -> None:
    scene = known_scene_of(TRUTH, np.eye(2), [0, 7])
    said = {
        (0, "the ring on the left"): ("position", True, True),
        (7, "the ring on the left"): ("position", False, True),
        (7, "the largest ring"): ("comparison", True, True),
        (0, "a ring"): ("attribute", True, False),
        (0, "the second ring from the right"): ("position", True, True),
        (0, "ring left the"): ("other", False, False),
        (5, "the ring on the left"): ("position", False, True),
    }
    for (mask_id, text), expected in said.items():
        verdict = scene.judge(mask_id, text)
        assert (verdict.kind, verdict.truthful, verdict.unique) == expected, text


def test_selections_kinds_curves_and_calibration_of_a_run() -> None:
    masks = [
        {"image_key": "a", "mask_id": k, "rle_size": [20, 40], "rle_counts": rle.counts}
        for k, rle in enumerate(TRUTH.masks)
    ]
    said = [row(0, "a ring"), row(0, "the ring on the left"), row(1, "a star"), row(1, "the largest ring")]
    scored = [
        said[0] | {"doc": 1.1, "listener": 0.2},
        said[1] | {"doc": 1.5, "listener": 0.9},
        said[2] | {"doc": 1.4, "listener": None},
        said[3] | {"doc": 0.9, "listener": 0.8},
    ]
    run = CaptionRun("vlm", said, said[:3], {"both": [said[1]], "listener": [said[1], said[3]]}, scored, min_doc=1.0)
    got = evaluate([TRUTH], masks, [run])
    shares = {(one.selection, one.texts): one.figures["referring"].value for one in got.captions}
    assert shares == {("none", 4): 0.5, ("DoC", 3): pytest.approx(1 / 3), ("listener", 2): 1, ("both", 1): 1}
    assert got.captions[0].kinds == {"attribute": (2, 0), "comparison": (1, 1), "position": (1, 1)}
    assert [label(one.method, one.selection) for one in got.captions] == [
        "vlm",
        "vlm + DoC",
        "vlm + listener",
        "vlm + DoC + listener",
    ]
    at = {one.selector: one.at["0.95"].value for one in got.curves}
    assert at == {"DoC": 0.5, "listener": 1.0, "both": None}
    assert got.calibration[0].ece == pytest.approx((0.2 + 0.1 + 0.2) / 3)
    assert got.to_json()["calibration"][0]["bins"]
