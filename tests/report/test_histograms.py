"""Histograms that are built without knowing their range, and the figures of a whole work directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from work_maker import WorkMaker

from pseudoris_cli.report.choosing import ImageChoice
from pseudoris_cli.report.histograms import BARS, HistogramBuilder, compute_totals
from pseudoris_cli.report.versions import Parts, chain_of
from pseudoris_cli.report.writer import write_report
from pseudoris_cli.storage.manifest import ManifestWriter
from pseudoris_cli.storage.parts import read_part


@given(st.lists(st.floats(-3, 5), min_size=1, max_size=200), st.integers(0, 2))
def test_no_value_is_lost_and_bars_stay_few(values: list[float], outcome: int) -> None:
    counter = HistogramBuilder(-1, 3, 0.005)
    counter.add(np.array(values), np.full(len(values), outcome))
    histogram = counter.histogram()
    assert histogram is not None
    assert histogram.count == len(values)
    assert 1 <= len(histogram.edges) - 1 <= BARS
    assert all(len(row) == len(histogram.edges) - 1 for row in histogram.counts)
    assert sum(histogram.counts[outcome if len(histogram.counts) > 1 else 0]) == len(values)
    assert np.diff(histogram.edges) == pytest.approx(histogram.edges[1] - histogram.edges[0])
    assert histogram.mean == pytest.approx(np.mean(values), abs=1e-9)


def test_bars_hold_what_lies_between_their_edges() -> None:
    values = np.random.default_rng(0).normal(1, 0.2, 5000)
    outcomes = np.random.default_rng(1).integers(0, 3, 5000)
    counter = HistogramBuilder(-1, 3, 0.005)
    for half in (slice(0, 1000), slice(1000, None)):
        counter.add(values[half], outcomes[half])
    histogram = counter.histogram()
    assert histogram is not None
    assert histogram.below
    assert histogram.above
    for outcome, row in enumerate(histogram.counts):
        expected, _ = np.histogram(values[outcomes == outcome], [-9, *histogram.edges[1:-1], 9])
        assert list(row) == expected.tolist()
    assert 1.0 in histogram.edges  # the neutral value of a ratio never falls inside a bar
    inside = ((values >= histogram.edges[0]) & (values < histogram.edges[-1])).mean()
    assert inside > 0.98


def test_the_median_is_that_of_the_values_whatever_the_cap_does_to_the_mean() -> None:
    values = np.append(np.random.default_rng(2).normal(1.05, 0.1, 4000), [100.0] * 200)
    counter = HistogramBuilder(-1, 3, 0.005)
    counter.add(values)
    histogram = counter.histogram()
    assert histogram is not None
    assert histogram.median == pytest.approx(np.median(values), abs=0.005)
    assert histogram.mean > 5


@pytest.mark.parametrize("most", [3, 40, 900])
def test_zero_has_a_bar_of_its_own(most: int) -> None:
    """A mask without a caption is another thing than one with few."""
    values = np.concatenate([np.zeros(7), np.arange(1, most + 1)])
    counter = HistogramBuilder(0, 1000, 1)
    counter.add(values)
    histogram = counter.histogram(zero_alone=True)
    assert histogram is not None
    assert histogram.edges[:2] == (0, 1)
    assert histogram.counts[0][0] == 7
    assert len(histogram.edges) - 1 <= BARS
    expected, _ = np.histogram(values, [*histogram.edges[:-1], 1e9])
    assert list(histogram.counts[0]) == expected.tolist()
    without = HistogramBuilder(0, 1000, 1)
    without.add(np.arange(5, most + 5))
    histogram = without.histogram(zero_alone=True)
    assert histogram is not None
    assert (histogram.edges[:2], histogram.counts[0][0]) == ((0, 1), 0)


def test_a_capped_tail_does_not_squeeze_the_rest() -> None:
    """DoC is cut at 100: a few such values must not stretch the axis a hundredfold."""
    counter = HistogramBuilder(-1, 3, 0.005)
    counter.add(np.array([0.9] * 50 + [1.1] * 50 + [100.0] * 5))
    histogram = counter.histogram()
    assert histogram is not None
    assert histogram.above
    assert histogram.edges[-1] <= 3
    assert histogram.counts[0][-1] == 5


def test_nothing_and_null_make_no_histogram() -> None:
    counter = HistogramBuilder(0, 1, 0.1)
    assert counter.histogram() is None
    counter.add(np.array([np.nan, np.nan]))
    assert counter.histogram() is None


def test_totals_are_those_of_the_rows(maker: Callable[..., WorkMaker]) -> None:
    made = maker(5, part_size=2)
    filtered = made.filter(made.scores(made.captions(made.masks())), min_doc=1.05)
    parts = Parts(made.workspace, chain_of(made.workspace))
    steps: list[tuple[int, int]] = []
    totals = compute_totals(parts, lambda done, total: steps.append((done, total)))
    manifest = filtered.manifest()
    rows = [read_part(manifest.path_of(entry)) for entry in manifest.entries.values()]
    for by, survival in (("sampler", totals.by_sampler), ("crop", totals.by_crop)):
        expected: Counter[tuple[str, int]] = Counter()
        for columns in rows:
            said = list(zip(columns["image_key"], columns["mask_id"], columns["caption"], strict=True))
            kept = {text for text, chosen in zip(said, columns["kept"], strict=True) if chosen}
            for number, (name, text) in enumerate(zip(columns[by], said, strict=True)):
                again = (name, text) in list(zip(columns[by], said, strict=True))[:number]
                expected[name, (1 if again else 0) if text in kept else (2 if again else 3)] += 1
        counted = {(name, outcome): n for name, counts in survival.items() for outcome, n in enumerate(counts) if n}
        assert counted == expected
    assert list(totals.by_sampler)[:3] == ["beam", "top_k=5", "top_k=7"]
    assert list(totals.by_crop) == ["masked", "crop_1.0", "crop_1.1", "crop_1.2"]
    masks = sum(len(scene.masks) for scene in made.scenes.values())
    assert (totals.masks, totals.captioned, totals.candidates) == (masks, masks, 44 * masks)
    assert totals.figures is not None
    assert totals.figures["kept"] == sum(int(sum(columns["kept"])) for columns in rows)
    assert totals.histograms["masks per image"].count == 5
    assert totals.histograms["mask area"].count == masks
    assert totals.histograms["doc"].count == 44 * masks
    assert totals.histograms["captions kept per mask"].count == masks
    assert steps[-1] == (3, 3)


def test_crops_and_samplers_of_other_captioners_follow_ours_by_name(maker: Callable[..., WorkMaker]) -> None:
    made = maker(2)
    captions = made.captions(made.masks())
    manifest = captions.manifest()
    columns = read_part(manifest.path_of(manifest.entries[0]))
    count = len(columns["crop"])
    columns["crop"] = [("marks+crop", "crop_1.1", "boxes", "masked")[row % 4] for row in range(count)]
    samplers = ("temperature=0.7", "top_k=11", "top_k=5", "beam", "top_k=many", "greedy", "")
    columns["sampler"] = [samplers[row % 7] for row in range(count)]
    with ManifestWriter(captions.folder, "captions", "main", {}) as writer:
        writer.commit(0, columns, manifest.entries[0].images, manifest.entries[0].upstream, {}, 1.0)
    made.filter(made.scores(captions))
    totals = compute_totals(Parts(made.workspace, chain_of(made.workspace)), lambda done, total: None)
    assert list(totals.by_crop) == ["masked", "crop_1.1", "boxes", "marks+crop"]
    assert list(totals.by_sampler) == ["beam", "top_k=5", "top_k=11", "", "greedy", "temperature=0.7", "top_k=many"]
    page = write_report(made.workspace, made.workspace.root / "report.html", ImageChoice()).read_text(encoding="utf-8")
    assert "marks+crop" in page
