"""Histograms that are built without knowing their range, and the figures of a whole work directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from work_maker import WorkMaker

from pseudoris_cli.report.tallies import BARS, Tally, tally
from pseudoris_cli.report.versions import Parts, chain_of
from pseudoris_cli.storage.parts import read_part


@given(st.lists(st.floats(-3, 5), min_size=1, max_size=200), st.integers(0, 2))
def test_no_value_is_lost_and_bars_stay_few(values: list[float], fate: int) -> None:
    counter = Tally(-1, 3, 0.005)
    counter.add(np.array(values), np.full(len(values), fate))
    histogram = counter.histogram()
    assert histogram is not None
    assert histogram.count == len(values)
    assert 1 <= len(histogram.edges) - 1 <= BARS
    assert all(len(row) == len(histogram.edges) - 1 for row in histogram.counts)
    assert sum(histogram.counts[fate if len(histogram.counts) > 1 else 0]) == len(values)
    assert np.diff(histogram.edges) == pytest.approx(histogram.edges[1] - histogram.edges[0])
    assert histogram.mean == pytest.approx(np.mean(values), abs=1e-9)


def test_bars_hold_what_lies_between_their_edges() -> None:
    values = np.random.default_rng(0).normal(1, 0.2, 5000)
    fates = np.random.default_rng(1).integers(0, 3, 5000)
    counter = Tally(-1, 3, 0.005)
    for half in (slice(0, 1000), slice(1000, None)):
        counter.add(values[half], fates[half])
    histogram = counter.histogram()
    assert histogram is not None
    assert histogram.below
    assert histogram.above
    for fate, row in enumerate(histogram.counts):
        expected, _ = np.histogram(values[fates == fate], [-9, *histogram.edges[1:-1], 9])
        assert list(row) == expected.tolist()
    assert 1.0 in histogram.edges  # the neutral value of a ratio never falls inside a bar
    inside = ((values >= histogram.edges[0]) & (values < histogram.edges[-1])).mean()
    assert inside > 0.98


def test_a_capped_tail_does_not_squeeze_the_rest() -> None:
    """DoC is cut at 100: a few such values must not stretch the axis a hundredfold."""
    counter = Tally(-1, 3, 0.005)
    counter.add(np.array([0.9] * 50 + [1.1] * 50 + [100.0] * 5))
    histogram = counter.histogram()
    assert histogram is not None
    assert histogram.above
    assert histogram.edges[-1] <= 3
    assert histogram.counts[0][-1] == 5


def test_nothing_and_null_make_no_histogram() -> None:
    counter = Tally(0, 1, 0.1)
    assert counter.histogram() is None
    counter.add(np.array([np.nan, np.nan]))
    assert counter.histogram() is None


def test_totals_are_those_of_the_rows(maker: Callable[..., WorkMaker]) -> None:
    made = maker(5, part_size=2)
    filtered = made.filter(made.scores(made.captions(made.masks())), min_doc=1.05)
    parts = Parts(made.workspace, chain_of(made.workspace))
    steps: list[tuple[int, int]] = []
    totals = tally(parts, lambda done, total: steps.append((done, total)))
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
        counted = {(name, fate): n for name, counts in survival.items() for fate, n in enumerate(counts) if n}
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
