"""Charts are well-formed SVG whose bars measure what they stand for."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from pseudoris_cli.report.charts import Axis, histogram, survival
from pseudoris_cli.report.tallies import Histogram

DATA = Histogram((0.9, 1.0, 1.1, 1.2), ((0, 30, 10), (5, 40, 0), (20, 0, 0)), mean=1.03, below=True, above=True)


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
    assert [height for _, height in found["duplicate"]] == pytest.approx([5 * unit, 40 * unit], abs=0.1)
    assert [height for _, height in found["dropped"]] == pytest.approx([20 * unit], abs=0.1)
    marks = [line for line in svg.iter("line") if line.attrib["class"] == "mark"]
    bars = [float(rectangle.attrib["x"]) for rectangle in svg.iter("rect")]
    assert float(marks[0].attrib["x1"]) == pytest.approx(sorted(set(bars))[1] - 0.5, abs=0.1)


def test_tooltips_and_label_tell_the_numbers() -> None:
    svg = ElementTree.fromstring(histogram(DATA, Axis("DoC")))
    assert [title.text for title in svg.iter("title")] == [
        "below 1: 25 (0 kept, 5 duplicate, 20 dropped)",
        "1 to 1.1: 70 (30 kept, 40 duplicate, 0 dropped)",
        "1.1 and above: 10 (10 kept, 0 duplicate, 0 dropped)",
    ]
    assert svg.attrib["role"] == "img"
    assert "105 values from 0.9 to 1.2" in svg.attrib["aria-label"]


def test_one_series_has_one_colour_and_whole_numbers_name_bars() -> None:
    svg = ElementTree.fromstring(histogram(Histogram((3, 4, 5), ((2, 1),), 3.3), Axis("masks", whole=True)))
    assert set(rectangles(svg)) == {"plain"}
    ticks = [text.text for text in svg.iter("text") if text.attrib["class"] == "tick"]
    assert ticks == ["3", "4"]
    assert [title.text for title in svg.iter("title")] == ["3: 2", "4: 1"]


@pytest.mark.parametrize("highest", [1, 3, 7, 99, 12_345, 7_000_001])
def test_no_bar_leaves_its_chart(highest: int) -> None:
    svg = ElementTree.fromstring(histogram(Histogram((0, 1), ((highest,),), 0.5), Axis("x")))
    ((_, height),) = rectangles(svg)["plain"]
    assert 60 < height <= 134


def test_a_survival_bar_is_divided_by_fate() -> None:
    svg = ElementTree.fromstring(survival({"beam": [1, 0, 3], "a<b>&": [2, 2, 0]}, "sampler"))
    found = rectangles(svg)
    (kept, _), (kept_below, _) = found["kept"]
    assert found["dropped"][0][0] == pytest.approx(3 * kept, abs=0.2)
    assert found["duplicate"][0][0] == pytest.approx(kept_below, abs=0.2)
    texts = [text.text for text in svg.iter("text")]
    assert texts == ["beam", "25.0 %", "a<b>&", "50.0 %"]
    assert "beam 25.0 % kept; a<b>& 50.0 % kept" in svg.attrib["aria-label"]
