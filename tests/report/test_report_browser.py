"""The page in a real browser: Debian's chromium, headless, driven through chromedriver. Skipped where either is absent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from locations import SUPPORT
from PIL import Image
from report_page import NEEDS_BROWSER, Page, start_browser
from work_maker import SCRIPT, WorkMaker

from pseudoris_cli.report.choosing import ImageChoice
from pseudoris_cli.report.writer import write_report

pytestmark = NEEDS_BROWSER


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> WorkMaker:
    """Three images; the first candidate of the first mask is a script."""
    made = WorkMaker(tmp_path_factory.mktemp("report"), 3)
    made.all(texts=(SCRIPT,))
    write_report(made.workspace, made.workspace.root / "report.html", ImageChoice())
    return made


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser with an empty profile for all tests of this file."""
    driver = start_browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any, made: WorkMaker) -> Iterator[Page]:
    """The report, freshly opened; no test may leave an error in the console."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    opened = Page(browser, made.workspace.root / "report.html")
    yield opened
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert browser.get_log("browser") == []


def test_it_opens_without_error_and_without_network(page: Page) -> None:
    events = [json.loads(entry["message"])["message"] for entry in page.browser.get_log("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    # what our page asks for; a slow Chromium still asks for its own first page meanwhile
    asked = [one["request"]["url"] for one in sent if one["documentURL"].startswith("file:")]
    assert asked[0].startswith("file://")
    assert not [url for url in asked if not url.startswith(("file://", "data:"))]
    assert sum(url.startswith("file://") for url in asked) == 1
    assert page.run("document.images.length") == 3
    page.until(lambda: page.run("[...document.images].every(image => image.complete && image.naturalWidth === 256)"))


def test_a_script_in_a_caption_stays_text(page: Page) -> None:
    cells = [cell for row in page.rows(1) for cell in row]
    assert SCRIPT in cells
    assert page.run("document.scripts.length") == 3 + 2
    assert page.run("document.querySelectorAll('td script').length") == 0


def test_hovering_a_row_shows_its_mask(page: Page, made: WorkMaker) -> None:
    """The mask's pixels stay as they are, everything else goes dark."""
    plain = Image.fromarray(made.scenes["000000.png"].image_rgb).convert("L")
    before = np.asarray(plain, np.float64)
    page.resize(1400, 2600)  # a screenshot shows only what is in view
    for mask_id in (1, 0):
        page.hover(page.all(f'#image-1 tbody tr[data-mask="{mask_id}"]')[0])
        page.until(lambda n=mask_id: page.all(f'#image-1 .frame.on .shape[data-mask="{n}"]'))
        time.sleep(0.3)  # the image fades
        ratio = page.frame(1) / np.maximum(before, 1)
        mask = made.scenes["000000.png"].masks[mask_id]
        assert 0.9 < np.median(ratio[mask]) < 1.1
        assert np.median(ratio[~mask]) < 0.6
    page.hover(page.all("h1")[0])
    page.until(lambda: not page.all("#image-1 .frame.on"))
    assert len(page.all("#image-1 .mask")) == len(made.scenes["000000.png"].masks)


def test_pointing_at_an_object_marks_its_rows(page: Page, made: WorkMaker) -> None:
    from selenium.webdriver import ActionChains

    (frame,) = page.all("#image-1 .frame")
    mask = made.scenes["000000.png"].masks[2]
    ys, xs = np.nonzero(mask)
    near = np.argmin((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2)
    size = frame.rect
    x, y = (xs[near] + 0.5) / 256 * size["width"], (ys[near] + 0.5) / 192 * size["height"]
    offset = round(x - size["width"] / 2), round(y - size["height"] / 2)

    def marked() -> bool:
        ActionChains(page.browser).move_to_element(frame).move_to_element_with_offset(frame, *offset).perform()
        return bool(page.all('#image-1 .frame.on .shape[data-mask="2"]'))

    page.until(marked)
    assert {row.get_attribute("data-mask") for row in page.all("#image-1 tr.same")} == {"2"}
    ActionChains(page.browser).click().perform()
    assert {row[0] for row in page.rows(1)} == {"2"}
    assert page.run("document.querySelector('#image-1 .chips [aria-pressed=true]').dataset.mask") == "2"


def test_sorting_by_a_column(page: Page) -> None:
    headings = page.run("[...document.querySelectorAll('#image-1 thead th')].map(h => h.textContent)")
    at = headings.index("DoC")
    original = page.rows(1)
    button = page.all("#image-1 thead button")[at]
    button.click()
    docs = [float(row[at]) for row in page.rows(1)]
    assert docs == sorted(docs, reverse=True)
    assert page.run("document.querySelector('#image-1 [aria-sort]').getAttribute('aria-sort')") == "descending"
    button.click()
    assert [float(row[at]) for row in page.rows(1)] == sorted(docs)
    button.click()
    assert page.rows(1) == original


def test_filtering_by_text_and_verdict(page: Page, made: WorkMaker) -> None:
    page.press("/", *"small star")
    page.until(
        lambda: page.rows(1) and all("small" in " ".join(row) and "star" in " ".join(row) for row in page.rows(1))
    )
    hidden = page.run("[...document.querySelectorAll('.card')].filter(card => card.hidden).length")
    images, total = page.run("document.getElementById('count').textContent").split(" images")[0].split(" of ")
    assert (int(total) - int(images), int(total)) == (hidden, 3)
    page.press("zeppelin")
    page.until(lambda: page.run("!document.getElementById('nothing').hidden"))
    page.press("\ue00c")  # Escape empties the filter
    page.until(lambda: page.run("document.querySelectorAll('.card[hidden]').length") == 0)
    counts = {}
    for verdict in ("kept", "dropped", "distinct", "all"):
        page.all(f".choice input[value={verdict}] + span")[0].click()
        counts[verdict] = len(page.rows(1))
    assert counts["all"] == 200  # the first of 220; a button shows the rest
    page.all("#image-1 .more")[0].click()
    assert len(page.rows(1)) == 44 * len(made.scenes["000000.png"].masks)
    assert counts["kept"] + counts["dropped"] == counts["distinct"] < counts["all"]


def test_dark_and_light(page: Page) -> None:
    def background() -> int:
        return int(page.run("getComputedStyle(document.body).backgroundColor").split("(")[1].split(",")[0])

    def prefer(scheme: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    prefer("dark")
    assert background() < 60
    page.press("t")
    assert background() > 200
    page.press("t")
    prefer("light")
    assert background() < 60  # chosen by hand, it no longer follows the system
    page.all("#theme")[0].click()
    assert background() > 200


def test_the_keyboard_alone(page: Page) -> None:
    def focused() -> str:
        return page.run("document.activeElement.id || document.activeElement.dataset.mask || ''")

    page.press("j")
    assert focused() == "image-1"
    page.press("j", "j")
    assert focused() == "image-3"
    page.press("k")
    assert focused() == "image-2"
    page.until(lambda: page.rows(2))
    page.run("document.querySelector('#image-2 tbody tr[tabindex=\"0\"]').focus()")
    assert page.all("#image-2 .frame.on .shape")
    page.press("\ue015", "\ue015")  # Arrow down
    assert page.run("document.activeElement.sectionRowIndex") == 2
    page.press("\ue010")  # End
    last = page.run("document.activeElement.dataset.mask")
    assert page.all(f'#image-2 .frame.on .shape[data-mask="{last}"]')
    page.press("\ue007")  # Enter: only this mask
    assert {row[0] for row in page.rows(2)} == {last}
    page.press("?")
    assert page.run("document.getElementById('help').open")
    page.press("\ue00c")
    page.until(lambda: not page.run("document.getElementById('help').open"))
    page.press("o")
    assert len(page.all(".frame.bare")) == 3


def test_everything_that_can_be_used_has_a_name(page: Page) -> None:
    nameless = page.run(
        "[...document.querySelectorAll('button, input, img, a, svg[role=img], [role=region]')].filter(e => "
        "!(e.getAttribute('aria-label') || e.alt || e.title || e.textContent.trim() || e.labels?.length))"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert nameless == []
    doubled = "[...document.querySelectorAll('[id]')].map(e => e.id).filter((id, i, all) => all.indexOf(id) !== i)"
    assert page.run(doubled) == []


def test_every_text_can_be_read_in_both_themes(page: Page) -> None:
    script = (SUPPORT / "contrast.js").read_text()
    for _ in range(2):
        seen, weak = page.browser.execute_script(script)
        assert seen > 300
        assert weak == []
        page.press("t")


def test_a_narrow_window_needs_no_sideways_scrolling(page: Page) -> None:
    page.resize(390, 800)
    assert page.run("document.documentElement.scrollWidth") <= 390
