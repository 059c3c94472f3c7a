"""Charts are well-formed SVG whose bars measure what they stand for."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from pseudoris_cli.report.charts import Axis, histogram, survival
from pseudoris_cli.report.histograms import Histogram

DATA = Histogram(
    (0.9, 1.0, 1.1, 1.2), ((0, 30, 10), (5, 40, 0), (0, 0, 0), (20, 0, 0)), 1.03, 1.02, below=True, above=True
)


def rectangles(svg: ElementTree.Element) -> dict[str, list[tuple[float, float]]]:
    """Class -> (width, height) of its rectangles."""
    found: dict[str, list[tuple[float, float]]] = {}
    for rectangle in svg.iter("rect"):
        size = float(rectangle.attrib["width"]), float(rectangle.attrib["height"])
        found.setdefault(rectangle.attrib["class"], []).append(size)
    return found


def test_heights_are_counts() -> None:
    svg = ElementTree.fromstring(histogram(DATA, Axis("DoC", mark=1.0)))
    found = rectangles(svg)
    unit = found["kept"][0][1] / 30
    assert found["kept"][1][1] == pytest.approx(10 * unit, abs=0.1)
    assert [height for _, height in found["kept-again"]] == pytest.approx([5 * unit, 40 * unit], abs=0.1)
    assert [height for _, height in found["dropped"]] == pytest.approx([20 * unit], abs=0.1)
    marks = [line for line in svg.iter("line") if line.attrib["class"] == "mark"]
    bars = [float(rectangle.attrib["x"]) for rectangle in svg.iter("rect")]
    assert float(marks[0].attrib["x1"]) == pytest.approx(sorted(set(bars))[1] - 0.5, abs=0.1)


def test_tooltips_and_label_tell_the_numbers() -> None:
    svg = ElementTree.fromstring(histogram(DATA, Axis("DoC")))
    assert [title.text for title in svg.iter("title")] == [
        "below 1: 25 (0 kept, 5 kept again, 0 dropped again, 20 dropped)",
        "1 to 1.1: 70 (30 kept, 40 kept again, 0 dropped again, 0 dropped)",
        "1.1 and above: 10 (10 kept, 0 kept again, 0 dropped again, 0 dropped)",
    ]
    assert [text.text for text in svg.iter("text") if text.attrib["class"] == "tick"][::3] == ["≤0.9", "1.2+"]
    assert svg.attrib["role"] == "img"
    assert "105 values from 0.9 to 1.2" in svg.attrib["aria-label"]


def test_one_series_has_one_colour_and_whole_numbers_name_bars() -> None:
    svg = ElementTree.fromstring(histogram(Histogram((3, 4, 5), ((2, 1),), 3.3, 3.3), Axis("masks", integer=True)))
    assert set(rectangles(svg)) == {"plain"}
    ticks = [text.text for text in svg.iter("text") if text.attrib["class"] == "tick"]
    assert ticks == ["3", "4"]
    assert [title.text for title in svg.iter("title")] == ["3: 2", "4: 1"]


@pytest.mark.parametrize("highest", [1, 3, 7, 99, 12_345, 7_000_001])
def test_no_bar_leaves_its_chart(highest: int) -> None:
    svg = ElementTree.fromstring(histogram(Histogram((0, 1), ((highest,),), 0.5, 0.5), Axis("x")))
    ((_, height),) = rectangles(svg)["plain"]
    assert 60 < height <= 134


def test_a_survival_bar_is_divided_by_fate() -> None:
    svg = ElementTree.fromstring(survival({"beam": [1, 0, 1, 3], "a<b>&": [2, 2, 0, 1]}, "sampler"))
    found = rectangles(svg)
    (kept, _), (kept_below, _) = found["kept"]
    assert kept == kept_below / 2
    assert found["dropped"][0][0] == pytest.approx(3 * kept, abs=0.2)
    assert found["dropped-again"][0][0] == pytest.approx(kept, abs=0.2)
    assert found["kept-again"][0][0] == pytest.approx(kept_below, abs=0.2)
    texts = [text.text for text in svg.iter("text")]
    assert texts == ["beam", "20.0 %", "a<b>&", "80.0 %"]
    assert "beam 20.0 % kept; a<b>& 80.0 % kept" in svg.attrib["aria-label"]


@pytest.mark.parametrize(("width", "bars"), [(0.04, 24), (0.02, 20), (0.005, 26), (5, 12), (0.25, 13)])
def test_ticks_stand_at_round_values_and_do_not_touch(width: float, bars: int) -> None:
    edges = tuple(round(width * bar - 2 * width, 6) for bar in range(bars + 1))
    svg = ElementTree.fromstring(histogram(Histogram(edges, ((3,) * bars,), 0.5, 0.5), Axis("x")))
    ticks = [text for text in svg.iter("text") if text.attrib["class"] == "tick"]
    chosen_images = [float(tick.attrib["x"]) for tick in ticks]
    values = [float(str(tick.text)) for tick in ticks]
    step = round(values[1] - values[0], 6)
    assert f"{step:e}".partition("e")[0].rstrip("0.") in ("1", "2", "2.5", "5")
    longest = max(len(str(tick.text)) for tick in ticks)
    assert min(b - a for a, b in pairwise(chosen_images)) >= 6 * longest
