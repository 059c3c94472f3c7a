"""From looking to better data: decide in the page by keyboard, save, filter with the file, export."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from invoking import draw_pictures, invoke, rows_of
from report_page import NEEDS_BROWSER, Page, start_browser

pytestmark = NEEDS_BROWSER
RANDOM = ("--profile", "random", "--device", "cpu", "-q")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures run through to the filter, with a report."""
    folder = tmp_path_factory.mktemp("decisions")
    draw_pictures(folder / "pictures", 3)
    done = invoke("run", "--images", folder / "pictures", "--work", folder / "work", *RANDOM)
    assert done.code == 0, done.stderr
    assert invoke("report", "--work", folder / "work", "-q").code == 0
    return folder / "work"


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Iterator[Any]:
    driver = start_browser(tmp_path_factory.mktemp("profile"), downloads)
    yield driver
    driver.quit()


def verdicts(page: Page) -> list[tuple[str, str]]:
    """(caption, verdict) of the rows of the first card."""
    headings = page.run("[...document.querySelectorAll('#image-1 thead th')].map(h => h.textContent)")
    at = headings.index("caption"), headings.index("verdict")
    return [(row[at[0]].split("×")[0], row[at[1]]) for row in page.rows(1)]


def saved(page: Page, path: Path) -> str:
    page.until(lambda: path.is_file() and path.stat().st_size)
    return path.read_bytes().decode()


def test_from_the_keyboard_to_the_export(work: Path, browser: Any, downloads: Path, tmp_path: Path) -> None:
    captions, masks = ((work / stage / "current").read_text().strip() for stage in ("captions", "masks"))
    page = Page(browser, work / "report.html")
    before = verdicts(page)
    [first] = page.run("[document.querySelector('#image-1').dataset.key]")
    page.run("document.querySelector('#image-1 tbody tr').focus()")
    page.press("n", "y", "n", "y")
    after = verdicts(page)
    assert [verdict for _, verdict in after[:4]] == ["✕ drop", "✓ keep", "✕ drop", "✓ keep"]
    assert [text for text, _ in after] == [text for text, _ in before]
    assert page.run("document.activeElement.sectionRowIndex") == 4, "it goes on to the next row"
    page.press("\ue013", "u")  # Arrow up, undo
    assert page.run("document.getElementById('decided').textContent") == "by hand: 1 kept, 2 dropped"
    last = len(before) - 1  # what the rules dropped is kept by hand, too
    page.run(f"document.querySelectorAll('#image-1 tbody tr')[{last}].focus()")
    page.press("y")

    again = Page(browser, work / "report.html")
    assert verdicts(again)[0][1] == "✕ drop", "the browser remembers"
    again.press("s")
    file = downloads / f"decisions-{captions}.json"
    told = json.loads(saved(again, file))
    assert (told["masks"], told["captions"]) == (masks, captions)
    wanted = {before[0][0]: False, before[1][0]: True, before[2][0]: False, before[last][0]: True}
    assert {one["text"]: one["decision"] == "keep" for one in told["decisions"]} == wanted
    assert {one["image"] for one in told["decisions"]} == {first}
    again.all("#save-csv")[0].click()
    table = list(csv.DictReader(io.StringIO(saved(again, file.with_suffix(".csv")), newline="")))
    assert [row["decision"] for row in table] == [one["decision"] for one in told["decisions"]]

    plain = {row["caption"] for row in rows_of(work, "filter") if row["kept"] and row["image_key"] == first}
    done = invoke("filter", "--work", work, *RANDOM, "--decisions", file)
    assert done.code == 0, done.stderr
    assert "by hand: 2 kept, 2 dropped" in done.stdout
    of_csv = invoke("filter", "--work", work, *RANDOM, "--decisions", file.with_suffix(".csv"))
    assert "by hand: 2 kept, 2 dropped" in of_csv.stdout
    marked = {row["caption"]: row["kept"] for row in rows_of(work, "filter") if row["reason"] == "by hand"}
    assert marked == wanted
    kept = {row["caption"] for row in rows_of(work, "filter") if row["kept"] and row["image_key"] == first}
    assert kept != plain
    assert not {text for text, keep in wanted.items() if not keep} & {
        row["caption"]
        for row in rows_of(work, "filter")
        if row["kept"] and row["mask_id"] == told["decisions"][0]["mask"] and row["image_key"] == first
    }
    exported = invoke("export", "--work", work, *RANDOM, "--format", "jsonl", "--out", tmp_path / "out")
    assert exported.code == 0, exported.stderr
    text = "".join(path.read_text() for path in (tmp_path / "out").rglob("*.jsonl"))
    assert before[last][0] in text, "kept against the rules, it is exported"


def test_images_are_sorted_by_any_score(work: Path, browser: Any) -> None:
    page = Page(browser, work / "report.html")
    options = page.run("[...document.querySelectorAll('#order option')].map(o => o.textContent)")
    for score in ("DoC", "uniqueness", "correctness", "log p", "predicted IoU", "stability"):
        assert f"highest {score} first" in options
        assert f"lowest {score} first" in options

    def best(way: str) -> list[float]:
        return page.run(
            "[...document.querySelectorAll('.card')].map(c => JSON.parse(c.querySelector('script').textContent).rows"
            f".map(r => r[AT.correctness]).filter(v => v !== null)).map(v => Math.{way}(...v))"
        )

    source = best("max")
    for text, way in (("highest", "max"), ("lowest", "min")):
        page.run(
            "(o => { o.selected = true; o.parentNode.dispatchEvent(new Event('change')); })"
            f"([...document.querySelectorAll('#order option')].find(o => o.textContent === '{text} correctness first'))"
        )
        assert best(way) == sorted(best(way), reverse=text == "highest")
    page.run("(s => { s.value = ''; s.dispatchEvent(new Event('change')); })(document.getElementById('order'))")
    assert best("max") == source


@pytest.mark.parametrize("which", ["filtered", "judged"])
def test_no_column_is_cut_in_a_window_of_1400(which: str, work: Path, demo_run: tuple[Path, str], browser: Any) -> None:
    page = Page(browser, work / "report.html" if which == "filtered" else demo_run[0] / "report.html")
    page.resize(1400, 900)
    page.until(lambda: page.run("[...document.querySelectorAll('.scroll table')].length"))
    wide = page.run("[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).length")
    assert wide == 0
    cut = (
        "[...document.querySelectorAll('.scroll td, .scroll th')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    )
    assert page.run(cut) == 0
    page.resize(420, 900)
    assert page.run("document.documentElement.scrollWidth") <= 420


def test_a_judged_report_shows_what_the_listener_says(demo_run: tuple[Path, str], browser: Any) -> None:
    browser.get_log("browser")
    page = Page(browser, demo_run[0] / "report.html")
    page.run("document.querySelector('input[name=verdict][value=all]').click()")
    titles = "[...document.querySelectorAll('.card .verdict')].map(b => b.title)"
    page.until(lambda: any("the listener" in title for title in page.run(titles)))
    headings = page.run("[...document.querySelectorAll('#image-1 thead th')].map(h => h.textContent)")
    assert {"listener", "picks"} <= set(headings)
    assert [one for one in browser.get_log("browser") if one["level"] == "SEVERE"] == []
