"""DoC: the arithmetic against the formula, and the complete computation against the release's loop."""

from collections.abc import Callable
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from released_filter import released_scores

from pseudoris_cli.backends import clip, nouns
from pseudoris_cli.method.prompts import noun_prompt
from pseudoris_cli.method.scoring import FLAGS, score_images, score_rows
from pseudoris_cli.records import CaptionCandidate, Mask, MaskedImage
from pseudoris_cli.rle import encode_rle, rle_bbox
from pseudoris_cli.settings.models import FilterSettings, Numerics

REFERENCE = FilterSettings(
    scorer=clip.Settings.tiny(),
    nouns=nouns.Settings.tiny(),
    prompt_style="released",
    crop_style="released",
    clamp=False,
    doc_cap=None,
)
NOUNS = nouns.load(nouns.Settings.tiny(), Numerics(), "cpu")
CAPTIONS = [
    "a dog",
    "two dogs on grass",
    "a red bus",
    "the cat",
    "犬と猫",
    "ein roter Bus",
    "a " + "very " * 40 + "long text",
]


def scenes(*counts: int, seed: int = 0) -> list[MaskedImage]:
    """Images of noise with rectangular masks; mask ids start at 3, so that they differ from positions."""
    rng = np.random.default_rng(seed)
    images = []
    for number, count in enumerate(counts):
        height, width = int(rng.integers(60, 90)), int(rng.integers(60, 90))
        pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        masks = []
        for mask_id in range(3, 3 + count):
            y, x = rng.integers(0, height - 25), rng.integers(0, width - 25)
            h, w = rng.integers(8, 25, 2)
            pixels[y : y + h, x : x + w] = rng.integers(0, 256, 3)
            shape = np.zeros((height, width), bool)
            shape[y : y + h, x : x + w] = True
            rle = encode_rle(shape)
            masks.append(Mask(mask_id, rle, rle_bbox(rle), int(shape.sum()), 0.9, 0.95))
        images.append(MaskedImage(f"{number}.jpg", pixels, tuple(masks)))
    return images


def candidates_for(image: MaskedImage, captions: list[str]) -> list[CaptionCandidate]:
    return [
        CaptionCandidate(mask.mask_id, number, text) for mask in image.masks for number, text in enumerate(captions)
    ]


def assert_equal_to_release(image: MaskedImage, rows: list[dict], captions: list[str], scorer: clip.ClipScorer) -> None:
    by_mask = {mask.mask_id: captions for mask in image.masks}
    prompts = {
        mask_id: [noun_prompt(noun, "released") for noun in NOUNS.nouns(texts)] for mask_id, texts in by_mask.items()
    }
    expected = released_scores(image, by_mask, prompts, scorer)
    ours = [(row["correctness"], row["uniqueness"], row["doc"]) for row in rows]
    theirs = [scores for mask in image.masks for scores in expected[mask.mask_id]]
    if len(image.masks) == 1:
        assert all(row[1:] == (None, None) for row in ours)
        ours, theirs = [row[:1] for row in ours], [row[:1] for row in theirs]
    np.testing.assert_allclose(np.array(ours), np.array(theirs), rtol=1e-4)


@pytest.fixture(scope="module")
def tiny() -> clip.ClipScorer:
    return clip.load(clip.Settings.tiny(), Numerics(), "cpu")


def test_equal_to_the_releases_loop_on_tiny_clip(tiny: clip.ClipScorer) -> None:
    images = scenes(1, 2, 7)
    rows = score_images(images, [candidates_for(image, CAPTIONS) for image in images], tiny, NOUNS, REFERENCE)
    for image, own in zip(images, rows, strict=True):
        assert_equal_to_release(image, own, CAPTIONS, tiny)
        assert [(row["mask_id"], row["candidate_id"]) for row in own] == [
            (mask.mask_id, number) for mask in image.masks for number in range(len(CAPTIONS))
        ]
    spread = np.array([row["doc"] for row in rows[2]])
    assert np.ptp(spread) > 0.05  # the scores of random weights differ too


def test_equal_to_the_releases_loop_on_full_size_rn50() -> None:
    # random weights whose cosines are clear of 0, where float32 itself is not good to 1e-4 relative
    scorer = clip.load(clip.Settings(model="RN50", checkpoint="random:4"), Numerics(), "cpu")
    (image,) = scenes(2, seed=3)
    captions = ["a dog", "a man with a red hat on his head"]
    (rows,) = score_images([image], [candidates_for(image, captions)], scorer, NOUNS, REFERENCE)
    assert_equal_to_release(image, rows, captions, scorer)
    assert np.ptp([row["doc"] for row in rows]) > 1e-2  # a hundred times what the comparison allows


class CountingScorer:
    """Counts what goes through the towers."""

    def __init__(self, scorer: clip.ClipScorer) -> None:
        self.scorer = scorer
        self.size, self.mean, self.std, self.device = scorer.size, scorer.mean, scorer.std, scorer.device
        self.interpolation = scorer.interpolation
        self.crops = 0
        self.texts: list[str] = []

    def encode_images(self, crops: torch.Tensor) -> torch.Tensor:
        self.crops += len(crops)
        return self.scorer.encode_images(crops)

    def encode_texts(self, texts: list[str]) -> torch.Tensor:
        self.texts += texts
        return self.scorer.encode_texts(texts)


def test_every_crop_and_distinct_text_is_encoded_once(tiny: clip.ClipScorer) -> None:
    images = scenes(2, 3)
    scorer = CountingScorer(tiny)
    texts = ["a dog", "a dog ", "a cat", ""]
    score_images(images, [candidates_for(image, texts) for image in images], scorer, NOUNS, REFERENCE)
    assert scorer.crops == 2 * (2 + 3)
    assert sorted(scorer.texts) == sorted(["a dog", "a cat", "a photo of a dog", "a photo of a cat"])


def test_empty_captions_have_no_scores(tiny: clip.ClipScorer) -> None:
    images = scenes(2, 1)
    candidates = [[CaptionCandidate(3, 0, " "), CaptionCandidate(4, 0, "a dog")], [CaptionCandidate(3, 0, "")]]
    rows = score_images(images, candidates, tiny, NOUNS, REFERENCE)
    empty = {"noun": "", "correctness": None, "uniqueness": None, "doc": None, "flags": "empty"}
    assert rows[0][0] == {"mask_id": 3, "candidate_id": 0, **empty}
    assert list(FLAGS) == ["empty", "one_mask", "negative", "capped", "non_finite"], (
        "what the docs explain, in this order"
    )
    assert rows[0][1]["doc"] is not None
    assert rows[1] == [{"mask_id": 3, "candidate_id": 0, **empty}]
    scorer = CountingScorer(tiny)
    assert score_images(scenes(1), candidates[1:], scorer, NOUNS, REFERENCE) == [rows[1]]
    assert scorer.crops == 0


def test_identical_masks_share_the_first_rank(tiny: clip.ClipScorer) -> None:
    (image,) = scenes(1)
    twin = Mask(9, *(getattr(image.masks[0], name) for name in Mask.__slots__[1:]))
    image = MaskedImage(image.key, image.image_rgb, (*image.masks, twin))
    (rows,) = score_images([image], [candidates_for(image, ["a dog", "a bus"])], tiny, NOUNS, REFERENCE)
    assert [row["doc"] for row in rows] == pytest.approx([1.0] * 4, abs=1e-5)  # their crops are two rows of one product


def test_arithmetic_equals_the_formula() -> None:
    grid = np.array([-0.5, -0.25, -0.0, 0.0, 0.0, 0.1, 0.25, 0.4, 1.0])  # coarse, so that zeros and ties are common
    for seed in range(300):
        rng = np.random.default_rng(seed)
        count, masks = int(rng.integers(1, 6)), int(rng.integers(2, 6))
        prompts, captions = rng.choice(grid, (2, count, masks))
        target = rng.integers(0, masks, count)
        clamp, cap = bool(seed % 2), (None, 2.0)[seed // 2 % 2]
        scores = score_rows(prompts, captions, target, clamp, cap)
        for r, i in enumerate(target):
            a, b = ([max(v, 0.0) if clamp else v for v in side[r].tolist()] for side in (prompts, captions))
            assert scores.correctness[r] == prompts[r, i]
            for name, values in (("uniqueness", b), ("doc", [x * y for x, y in zip(a, b, strict=True)])):
                expected = ratio(values[i], max(values[k] for k in range(masks) if k != i), cap)
                np.testing.assert_allclose(getattr(scores, name)[r], expected)
                assert scores.flags["non_finite"][r] or not np.isnan(expected)
            assert scores.flags["negative"][r] == ((prompts[r] < 0).any() or (captions[r] < 0).any())


def ratio(own: float, rival: float, cap: float | None) -> float:
    """own / rival; over a rival of 0 a positive value is without bound, so the cap holds, and the rest is undefined."""
    if rival == 0:
        return cap if own > 0 and cap is not None else np.nan
    return own / rival if cap is None else min(own / rival, cap)


def one_row(prompts: list[float], captions: list[float], clamp: bool = True, cap: float | None = 100.0) -> dict:
    scores = score_rows(np.array([prompts]), np.array([captions]), np.array([0]), clamp, cap)
    flags = {name for name in FLAGS if name in scores.flags and scores.flags[name][0]}
    return {"doc": scores.doc[0], "uniqueness": scores.uniqueness[0], "flags": flags}


@pytest.mark.parametrize(
    ("row", "doc", "flags"),
    [
        (lambda: one_row([0.3, 0.2], [0.2, 0.2]), 1.5, set()),
        (lambda: one_row([0.3, -0.2], [0.2, 0.1]), 100.0, {"negative", "capped"}),  # the rival counts as 0
        (lambda: one_row([-0.3, 0.2], [-0.2, 0.2]), 0.0, {"negative"}),  # two negatives make no positive
        (lambda: one_row([-0.3, 0.2], [-0.2, 0.2], clamp=False), 1.5, {"negative"}),  # ... but do in the release
        (lambda: one_row([0.3, 0.0], [0.2, 0.1], clamp=False, cap=None), None, {"non_finite"}),
        (lambda: one_row([0.0, 0.0], [0.2, 0.1]), None, {"non_finite"}),
        (lambda: one_row([np.nan, 0.1], [0.2, 0.1]), None, {"non_finite"}),
        (lambda: one_row([0.3, 0.001], [0.2, 0.2], cap=100.0), 100.0, {"capped"}),
        (lambda: one_row([0.3, 0.001], [0.2, 0.2], cap=None), 300.0, set()),
        (
            lambda: one_row([0.001, 0.3], [0.3, 0.001], cap=100.0),
            1.0,
            {"capped"},
        ),  # the uniqueness was, 300, and the doc was not
    ],
)
def test_edges_are_defined_and_flagged(row: Callable[[], dict], doc: float | None, flags: set[str]) -> None:
    found = row()
    assert found["flags"] == flags
    assert np.isnan(found["doc"]) if doc is None else found["doc"] == pytest.approx(doc)


def test_a_text_is_distinctive_for_one_mask_at_most() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        prompts, captions = np.tile(rng.uniform(0.05, 0.4, (2, 1, 6)), (1, 6, 1))
        docs = score_rows(prompts, captions, np.arange(6), True, 100.0).doc
        assert (docs > 1).sum() == 1
        assert docs.argmax() == (prompts[0] * captions[0]).argmax()


def test_one_mask_has_correctness_only() -> None:
    scores = score_rows(np.array([[0.3], [-0.1]]), np.array([[0.2], [0.2]]), np.array([0, 0]), True, 100.0)
    assert scores.correctness.tolist() == [0.3, -0.1]
    assert np.isnan(scores.doc).all()
    assert np.isnan(scores.uniqueness).all()
    assert scores.flags["one_mask"].all()


def test_an_only_mask_whose_correctness_is_not_finite_says_so() -> None:
    flags = {"one_mask", "non_finite"}
    assert one_row([np.nan], [0.2]) == {"doc": pytest.approx(np.nan, nan_ok=True), "uniqueness": ANY, "flags": flags}
    assert one_row([0.2], [np.nan])["flags"] == {"one_mask"}, "the caption is not compared with anything"
