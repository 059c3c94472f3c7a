"""The report in a real browser: Debian's chromium, headless, driven through chromedriver. Skipped where either is absent."""

from __future__ import annotations

import io
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ABSENT = "the report is not opened in a browser: there is none here (apt-get install chromium chromium-driver)"
NEEDS_BROWSER = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=ABSENT)
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


def start_browser(profile: Path, downloads: Path | None = None) -> Any:
    """A browser with a profile of its own, which may save files into a folder."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    if downloads:
        allowed = {"behavior": "allow", "downloadPath": str(downloads)}
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
    return driver


class Page:
    """The open report."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.browser = browser
        browser.get(path.as_uri())
        # rows are made when their card comes near the view
        self.until(lambda: self.rows(1) or self.run("document.getElementById('image-1').scrollIntoView()"))

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
