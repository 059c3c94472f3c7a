"""The page in a real browser: Debian's chromium, headless, driven through chromedriver. Skipped where either is absent."""

from __future__ import annotations

import io
import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from locations import SUPPORT
from PIL import Image
from work_maker import SCRIPT, WorkMaker

from pseudoris_cli.report.choosing import ImageChoice
from pseudoris_cli.report.writer import write_report

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ABSENT = "the report is not opened in a browser: there is none here (apt-get install chromium chromium-driver)"
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=ABSENT)
if not (CHROMIUM and DRIVER):
    warnings.warn(ABSENT, stacklevel=1)  # pytest lists warnings, but not why it skipped
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--window-size=1400,900",
)
TIMEOUT = 30


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
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
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


class Page:
    """The open report."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.browser = browser
        browser.get(path.as_uri())
        self.until(lambda: self.rows(1))

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(f"return {script}", *arguments)

    def until(self, happened: Callable[[], Any]) -> Any:
        """Wait for what the page does after an event."""
        limit = time.monotonic() + TIMEOUT
        while not (value := happened()):
            assert time.monotonic() < limit, "the page did not react"
            time.sleep(0.02)
        return value

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    def hover(self, element: Any) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).move_to_element(element).perform()

    def resize(self, width: int, height: int) -> None:
        """The window's inside, until the test ends."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def rows(self, card: int) -> list[list[str]]:
        """The cells of a card's table."""
        script = "[...document.querySelectorAll(arguments[0])].map(r => [...r.cells].map(c => c.textContent.trim()))"
        return self.run(script, f"#image-{card} tbody tr")

    def frame(self, card: int) -> np.ndarray:
        """What is visible of a card's image: float brightness [192, 256]."""
        (element,) = self.all(f"#image-{card} .frame")
        shot = Image.open(io.BytesIO(element.screenshot_as_png)).convert("L").resize((256, 192))
        return np.asarray(shot, np.float64)


def test_it_opens_without_error_and_without_network(page: Page) -> None:
    events = [json.loads(entry["message"])["message"] for entry in page.browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    asked = [url for url in asked if not url.startswith("chrome://")]  # Chromium's own first page, where it is slow
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
