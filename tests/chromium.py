"""A page in Chromium, as a user sees it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
WAIT = 60.0


def missing() -> str | None:
    if not (CHROMIUM and DRIVER):
        return "needs Chromium and its driver: apt-get install chromium chromium-driver"
    return None


class Tab:
    """A browser tab with the page."""

    def __init__(self, driver: Any, shots: Path | None) -> None:
        self.driver = driver
        self.shots = shots

    def open(self, address: str) -> None:
        self.driver.get(address)

    def until(self, fact: Callable[[], object], what: str) -> None:
        started = time.monotonic()
        while time.monotonic() - started < WAIT:
            try:
                if fact():
                    return
            except Exception:  # an element was replaced while it was looked at
                pass
            time.sleep(0.1)
        self.shot("failed")
        raise AssertionError(f"not so after {WAIT} s: {what}")

    def find(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def source(self, selector: str, place: int = 0) -> str:
        """The address of a picture, which is another one for other pixels."""
        images = self.find(f"{selector} img")
        return str(images[place].get_attribute("src")) if len(images) > place else ""

    def pixels(self, selector: str, place: int = 0) -> np.ndarray:
        """The pixels of a picture as the browser has decoded it."""
        loaded = "return document.querySelectorAll(arguments[0] + ' img')[arguments[1]].naturalWidth"
        self.until(lambda: self.driver.execute_script(loaded, selector, place), f"{selector} is loaded")
        sides = self.driver.execute_script(
            """
            const image = document.querySelectorAll(arguments[0] + ' img')[arguments[1]];
            const canvas = document.createElement('canvas');
            canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
            const context = canvas.getContext('2d');
            context.drawImage(image, 0, 0);
            const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
            return [canvas.height, canvas.width, Array.from(data)];
            """,
            selector,
            place,
        )
        return np.array(sides[2], dtype=np.uint8).reshape(sides[0], sides[1], 4)[..., :3]

    def changes(self, selector: str, act: Callable[[], object], place: int = 0) -> None:
        """A picture is another one after this."""
        before = self.source(selector, place)
        act()
        self.until(lambda: self.source(selector, place) not in ("", before), f"{selector} changes")

    def click(self, selector: str, place: int = 0) -> None:
        self.driver.execute_script(
            "document.querySelectorAll(arguments[0])[arguments[1]].click()", selector, place
        )

    def turn_to(self, text: str) -> None:
        self.press(text, "button[role=tab]")

    def press(self, text: str, selector: str = "button, label") -> None:
        """Press the button or the choice with this text, when it is there."""

        def pressed() -> bool:
            for each in self.find(selector):
                if each.text.strip() == text and each.is_displayed():
                    self.driver.execute_script("arguments[0].click()", each)
                    return True
            return False

        self.until(pressed, f"there is {text!r}")

    def upload(self, selector: str, file: Path) -> None:
        self.find(f"{selector} input[type=file]")[0].send_keys(str(file))

    def slide(self, selector: str, value: float) -> None:
        self.driver.execute_script(
            """
            const slider = document.querySelector(arguments[0] + ' input[type=range]');
            const setter = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
            setter.call(slider, arguments[1]);
            slider.dispatchEvent(new Event('input', {bubbles: true}));
            slider.dispatchEvent(new Event('change', {bubbles: true}));
            slider.dispatchEvent(new PointerEvent('pointerup', {bubbles: true}));
            """,
            selector,
            value,
        )

    def shot(self, name: str) -> None:
        if self.shots is not None:
            self.shots.mkdir(parents=True, exist_ok=True)
            height = self.driver.execute_script("return document.documentElement.scrollHeight")
            width = self.driver.execute_script("return window.innerWidth")
            view = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", view)
            time.sleep(0.3)
            self.driver.save_screenshot(str(self.shots / f"{name}.png"))
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def complaints(self) -> list[str]:
        """Errors in the browser's console."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def requests(self) -> set[str]:
        """All addresses that the page has asked for."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return {
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        }


def open_tab(downloads: Path, shots: Path | None) -> Tab:
    """A tab of a new browser; skips the test where there is none.

    Args:
        downloads: where files are saved.
        shots: folder for screenshots.
    """
    if reason := missing():
        pytest.skip(reason)
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,1000",
    ):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Tab(webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER)), shots)
