"""The selection, rule by rule and against a plain loop; and its summary."""

import json
import math

import numpy as np
import pytest

from pseudoris_cli.method.filter_summary import add, count, figures
from pseudoris_cli.method.selection import select
from pseudoris_cli.settings.models import FilterSettings

NULL = float("nan")


def table(*rows: tuple) -> dict:
    """Columns from (image_key, mask_id, caption, correctness, doc, flags)."""
    names = ("image_key", "mask_id", "caption", "correctness", "doc", "flags")
    columns = {name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    return columns | {name: np.array(columns[name], np.float32) for name in ("correctness", "doc")}


def mask(*captions: tuple[str, float], key: str = "a.jpg", mask_id: int = 0) -> list[tuple]:
    """Rows of one mask of an image with several, from (caption, doc)."""
    return [(key, mask_id, caption, 0.2, doc, "") for caption, doc in captions]


def reasons(columns: dict, **settings: object) -> list[str]:
    chosen = select(columns, FilterSettings(**settings))
    assert (chosen["kept"] == (chosen["reason"] == "")).all()
    return chosen["reason"].tolist()


def test_doc_must_be_above_the_bound() -> None:
    columns = table(*mask(("dog", 1.2), ("cat", 1.0), ("cow", 0.7), ("pig", NULL)))
    assert reasons(columns) == ["", "doc<=1", "doc<=1", "unscored"]
    assert reasons(columns, min_doc=1.15) == ["", "doc<=1.15", "doc<=1.15", "unscored"]
    assert reasons(columns, min_doc=0.7) == ["", "", "doc<=0.7", "unscored"]


def test_null_may_be_none_as_well_as_nan() -> None:
    """Arrow's lists give None, numpy's arrays give NaN."""
    columns = table(*mask(("dog", 1.2), ("cat", NULL)), ("b.jpg", 0, "cow", 0.3, NULL, "one_mask"))
    listed = columns | {"doc": [1.2, None, None], "correctness": [0.2, None, 0.3]}
    assert reasons(listed) == reasons(columns) == ["", "unscored", ""]
    assert figures(count(as_filtered(listed)))["mean_doc"] == pytest.approx(1.2)


def as_filtered(columns: dict) -> dict:
    """The columns of the filter stage, as far as its summary reads them."""
    size = len(columns["caption"])
    given = {"uniqueness": [None] * size, "sampler": ["beam"] * size, "crop": ["masked"] * size}
    return columns | given | select(columns, FilterSettings())


def test_the_first_of_equal_texts_counts() -> None:
    rows = mask(("dog", 1.2), (" dog ", 1.2), ("dog", 1.2), ("Dog", 1.2)) + mask(("dog", 1.2), mask_id=1)
    columns = table(*rows, *mask(("dog", 1.2), key="b.jpg"))
    chosen = select(columns, FilterSettings())
    assert chosen["reason"].tolist() == ["", "duplicate", "duplicate", "", "", ""]
    assert chosen["duplicates"].tolist() == [3, 3, 3, 1, 1, 1]
    assert chosen["duplicates"].dtype == np.int32


def test_words() -> None:
    columns = table(*mask(("dog", 2), ("a dog", 2), ("a brown dog runs", 2), (" ", NULL), ("ein  Hund", 2)))
    assert reasons(columns, min_words=2, max_words=3) == ["words", "", "words", "empty", ""]
    assert reasons(columns, min_words=0)[3] == "empty"


def test_top_k_is_by_doc_within_a_mask() -> None:
    rows = mask(("a", 1.1), ("b", 1.4), ("c", 0.9), ("b", 1.4), ("d", 1.3)) + mask(("a", 1.2), mask_id=1)
    assert reasons(table(*rows), top_k_per_mask=2) == ["rank", "", "doc<=1", "duplicate", "", ""]


def test_ties_go_to_the_earlier_row() -> None:
    assert reasons(table(*mask(("a", 1.5), ("b", 1.5), ("c", 1.5))), top_k_per_mask=1) == ["", "rank", "rank"]


@pytest.mark.parametrize(("texts", "kept"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_one_mask_keeps_the_better_half_by_correctness(texts: int, kept: int) -> None:
    scores = [0.21, 0.33, 0.12, 0.05, 0.27][:texts]
    rows = [("a.jpg", 4, f"text {n}", score, NULL, "one_mask") for n, score in enumerate(scores)]
    rows += [("a.jpg", 4, "text 0", 0.21, NULL, "one_mask,negative"), ("a.jpg", 4, "", NULL, NULL, "empty")]
    given = reasons(table(*rows), min_doc=5.0)
    best = sorted(range(texts), key=lambda n: -scores[n])[:kept]
    assert given == ["" if n in best else "one-mask" for n in range(texts)] + ["duplicate", "empty"]


def test_one_mask_halves_the_candidates_where_the_release_does() -> None:
    """Its trainer draws from the best num_sent // 2 rows, repeats included: a text stays if any of its rows is among them."""
    scored = [("a", 0.9), ("b", 0.5), ("a", 0.9), ("c", 0.7), ("a", 0.9), ("d", 0.1), ("b", 0.5)]
    rows = [("a.jpg", 0, text, score, NULL, "one_mask") for text, score in scored]
    duplicates = {2: "duplicate", 4: "duplicate", 6: "duplicate"}
    of_candidates = ["", "one-mask", "", "one-mask", "", "one-mask", "one-mask"]  # 3 of 7 rows, all of them "a"
    of_texts = ["", "one-mask", "", "", "", "one-mask", "one-mask"]  # 2 of 4 texts
    for half, expected in (("candidates", of_candidates), ("texts", of_texts)):
        wanted = [duplicates.get(row, reason) for row, reason in enumerate(expected)]
        assert reasons(table(*rows), one_mask_half=half) == wanted
    assert reasons(table(rows[0]), one_mask_half="candidates") == ["one-mask"], "1 // 2 is none"


def test_one_mask_halves_what_the_other_rules_left() -> None:
    rows = [("a.jpg", 0, text, score, NULL, "one_mask") for text, score in [("x", 0.9), ("a b", 0.3), ("c d", 0.4)]]
    assert reasons(table(*rows), min_words=2) == ["words", "one-mask", ""]


def test_a_shared_text_stays_where_it_fits_best() -> None:
    rows = [row for n, doc in enumerate([0.8, 1.25, 0.9]) for row in mask(("a dog", doc), mask_id=n)]
    assert reasons(table(*rows)) == ["doc<=1", "", "doc<=1"]


def test_fallback_keeps_the_best_of_a_mask_that_lost_all() -> None:
    rows = mask(("a", 0.5), ("b b", 0.8), ("c", NULL), ("b b", 0.8)) + mask(("a", 1.5), ("d", 0.9), mask_id=1)
    rows += mask(("", NULL), ("e", NULL), mask_id=2)
    dropped = ["doc<=1", "doc<=1", "unscored", "duplicate", "", "doc<=1", "empty", "unscored"]
    assert reasons(table(*rows)) == dropped
    assert reasons(table(*rows), fallback="best") == [dropped[0], "", *dropped[2:]]
    assert reasons(table(*rows), fallback="best", max_words=1) == ["", "words", *dropped[2:]]


def test_rows_may_stand_in_any_order_and_be_lists() -> None:
    columns = random_columns(400, seed=1)
    shuffled = np.random.default_rng(0).permutation(400)
    unique = [f"{text} {n}" for n, text in enumerate(columns["caption"])]  # no ties, no duplicates: order cannot matter
    columns["caption"], columns["doc"] = unique, np.linspace(0.5, 1.5, 400)[shuffled]
    settings = FilterSettings(top_k_per_mask=2, fallback="best")
    moved = {name: [values[n] for n in shuffled] for name, values in columns.items()}
    assert select(moved, settings)["reason"].tolist() == select(columns, settings)["reason"][shuffled].tolist()


def test_nothing_in_nothing_out() -> None:
    empty = {name: [] for name in ("image_key", "mask_id", "caption", "correctness", "doc", "flags")}
    assert all(len(values) == 0 for values in select(empty, FilterSettings(fallback="best")).values())


def random_columns(rows: int, seed: int) -> dict:
    """Candidates of images with one to four masks, with duplicates, empty texts and nulls."""
    rng = np.random.default_rng(seed)
    image = np.sort(rng.integers(0, rows // 12, rows))
    masks = image % 4 + 1
    mask_id = rng.integers(0, masks)
    doc = np.where((masks == 1) | (rng.random(rows) < 0.05), np.nan, rng.gamma(4, 0.25, rows))
    correctness = np.where(rng.random(rows) < 0.03, np.nan, rng.uniform(-0.1, 0.4, rows))
    return {
        "image_key": [f"{n}.jpg" for n in image],
        "mask_id": mask_id.astype(np.int32),
        "caption": [" ".join(["w"] * n) for n in rng.integers(0, 9, rows)],
        "crop": rng.choice(["masked", "crop_1.0"], rows).tolist(),
        "sampler": rng.choice(["beam", "top_k=5", "top_p=0.4"], rows).tolist(),
        "correctness": correctness.astype(np.float32),
        "uniqueness": doc.astype(np.float32),
        "doc": doc.astype(np.float32),
        "flags": ["one_mask" if alone else "" for alone in masks == 1],
    }


def plain_selection(columns: dict, settings: FilterSettings) -> list[str]:
    """The rules of selection.py, one mask after the other."""
    answer = [""] * len(columns["caption"])
    by_mask: dict[tuple, list[int]] = {}
    for row, key in enumerate(zip(columns["image_key"], columns["mask_id"], strict=True)):
        by_mask.setdefault(key, []).append(row)
    for rows in by_mask.values():
        alone = columns["flags"][rows[0]] == "one_mask"
        score = columns["correctness" if alone else "doc"]
        left: list[int] = []
        for row in rows:
            text = columns["caption"][row]
            words = len(text.split())
            if not words:
                answer[row] = "empty"
            elif any(columns["caption"][other] == text for other in rows if other < row):
                answer[row] = "duplicate"
            elif words < settings.min_words or words > (settings.max_words or math.inf):
                answer[row] = "words"
            elif math.isnan(score[row]):
                answer[row] = "unscored"
            else:
                left.append(row)
        left.sort(key=lambda row: -score[row])
        if alone:
            good = left[: math.ceil(len(left) / 2)]
        else:
            good = [row for row in left if score[row] > settings.min_doc]
        for row in left:
            answer[row] = "" if row in good else "one-mask" if alone else f"doc<={settings.min_doc:g}"
        for row in good[settings.top_k_per_mask or len(good) :]:
            answer[row] = "rank"
        if settings.fallback == "best" and left and not good:
            answer[left[0]] = ""
    return answer


@pytest.mark.parametrize(
    "settings",
    [
        FilterSettings(),
        FilterSettings(min_doc=1.1, top_k_per_mask=2, fallback="best"),
        FilterSettings(min_words=3, max_words=6, fallback="best"),
        FilterSettings(min_doc=0.0, top_k_per_mask=1),
    ],
)
def test_equal_to_the_plain_loop(settings: FilterSettings) -> None:
    columns = random_columns(3000, seed=5)
    expected = plain_selection(columns, settings)
    assert len(set(expected)) >= 5
    assert select(columns, settings)["reason"].tolist() == expected


def counted(columns: dict, rows: np.ndarray) -> dict:
    part = {name: np.asarray(values, object)[rows].tolist() for name, values in columns.items()}
    return count(part)


def test_summary() -> None:
    columns = table(
        *mask(("a", 1.5), ("b", 0.5), ("a", 1.5)),
        *mask(("c", 0.5), ("d", NULL), mask_id=1),
        ("b.jpg", 0, "e", 0.4, NULL, "one_mask"),
        ("b.jpg", 0, "f", 0.2, NULL, "one_mask"),
    )
    columns |= {
        "uniqueness": columns["doc"],
        "sampler": ["beam", "k", "k", "beam", "k", "beam", "k"],
        "crop": ["m"] * 7,
    }
    columns |= select(columns, FilterSettings())
    result = figures(json.loads(json.dumps(count(columns))))
    assert result["mean_doc"] == pytest.approx((1.5 + 0.5 + 1.5 + 0.5) / 4)
    assert result["mean_correctness"] == pytest.approx((5 * 0.2 + 0.4 + 0.2) / 7)
    assert result["median_doc"] == pytest.approx(1.0, abs=0.55), "between the second and the third of four"
    assert result["median_correctness"] == pytest.approx(0.2, rel=0.03)
    assert result["scored"] == {"correctness": 7, "uniqueness": 4, "doc": 4}
    assert (result["doc_above_1"], result["share_doc_above_1"]) == (2, 0.5)
    assert (result["images"], result["one_mask_images"], result["masks"], result["masks_kept"]) == (2, 1, 3, 2)
    assert (result["candidates"], result["kept"]) == (7, 2)
    assert result["kept_per_mask"] == pytest.approx(2 / 3)
    assert result["masks_by_kept"] == {0: 1, 1: 2}
    assert result["reasons"] == {"doc<=1": 2, "duplicate": 1, "one-mask": 1, "unscored": 1}
    beam = {"candidates": 3, "kept": 2, "repeats": 0, "kept_repeats": 0, "share": pytest.approx(2 / 3)}
    assert result["by_sampler"]["beam"] == beam
    assert result["by_sampler"]["k"]["kept"] == 1, 'its "a" is kept, though the beam said it first'
    assert result["by_crop"]["m"] == {"candidates": 7, "kept": 3, "repeats": 1, "kept_repeats": 1, "share": 3 / 7}


def test_medians_of_many_parts_are_those_of_all_values() -> None:
    columns = random_columns(5000, seed=4)
    columns["doc"] = np.where(np.isfinite(columns["doc"]), np.random.default_rng(5).lognormal(0.05, 0.4, 5000), np.nan)
    columns["doc"][:400] = 100.0
    columns |= select(columns, FilterSettings())
    images = np.array([int(key.split(".")[0]) for key in columns["image_key"]])
    total: dict = {}
    for image in range(images.max() + 1):
        total = add(total, json.loads(json.dumps(counted(columns, images == image))))
    result = figures(total)
    for name in ("doc", "uniqueness", "correctness"):
        values = np.asarray(columns[name], float)
        expected = np.median(values[np.isfinite(values)])
        assert result[f"median_{name}"] == pytest.approx(expected, rel=0.01, abs=0.001), name
    total.pop("spread")
    assert figures(total)["median_doc"] is None, "made before medians were counted"


def test_survival_does_not_depend_on_who_came_first() -> None:
    columns = random_columns(1200, seed=3)
    columns |= select(columns, FilterSettings())
    order = np.random.default_rng(0).permutation(len(columns["caption"]))
    found = [counted(columns, rows) for rows in (np.arange(len(order)), order)]
    assert found[0]["by_sampler"] == found[1]["by_sampler"]
    assert found[0]["by_crop"] == found[1]["by_crop"]
    assert sum(row["kept"] for row in found[0]["by_crop"].values()) > found[0]["kept"]


def test_counts_of_parts_add_up() -> None:
    columns = random_columns(900, seed=2)
    columns |= select(columns, FilterSettings())
    images = np.array([int(key.split(".")[0]) for key in columns["image_key"]])
    low = images < 30
    total = add(add({}, counted(columns, low)), counted(columns, ~low))
    together = count(columns)
    sums, expected = total.pop("sums"), together.pop("sums")
    assert total == together
    assert sums == pytest.approx(expected)
    assert counted(columns, low)["images"] + counted(columns, ~low)["images"] == together["images"]


def test_summary_of_nothing() -> None:
    columns = random_columns(24, seed=0)
    columns = {name: values[:0] for name, values in columns.items()}
    columns |= select(columns, FilterSettings())
    empty = figures(count(columns))
    assert (empty["mean_doc"], empty["median_doc"]) == (None, None)
