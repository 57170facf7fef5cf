"""The demo page in Chromium, as a user sees it: `make browser`.

    python -m pytest tests/demo/test_browser.py -m browser -n 0 --demo-run runs/munit --screenshots shots

Without --demo-run, networks with initial weights are used.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.demo.test_studio import picture

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore::ResourceWarning")]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
WAIT = 60.0


def missing() -> str | None:
    if not (CHROMIUM and DRIVER):
        return "needs Chromium and its driver: apt-get install chromium chromium-driver"
    return None


@pytest.fixture(scope="module")
def served(
    request: pytest.FixtureRequest, runs: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., str]]:
    """`served("munit", "bicyclegan")`: the address of a page for these runs."""
    pytest.importorskip("gradio", reason="needs the extra i2ikit[demo]")
    real = {path.name: path for path in request.config.getoption("--demo-run") or []}
    processes = []

    def address(*names: str) -> str:
        folders = [name if "/" in name else str(real.get(name) or runs(name)) for name in names]
        command = [sys.executable, "-m", "i2ikit", "demo", *folders]
        process = subprocess.Popen(
            command, cwd=tmp_path_factory.mktemp("here"), stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"http://\S+", line):
                return found[0]
        raise AssertionError("the page was not served")

    yield address
    for process in processes:
        process.terminate()
        process.wait()


class Tab:
    """A browser tab with the page."""

    def __init__(self, driver: Any, shots: Path | None) -> None:
        self.driver = driver
        self.shots = shots

    def open(self, address: str) -> None:
        self.driver.get(address)
        self.until(lambda: self.source("#output-0"), "the first translation is shown")

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


@pytest.fixture
def tab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tab]:
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
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield Tab(driver, request.config.getoption("--screenshots"))
    driver.quit()


def test_a_session(served: Callable[..., str], tab: Tab, tmp_path: Path) -> None:
    """Upload, styles, slider, exemplar, interpolation, download, both directions, a corrupt file."""
    address = served("munit")
    tab.open(address)
    tab.until(lambda: len(tab.find("#grid-0 img")) == 8, "eight styles are shown")
    tab.shot("1-opened")
    tab.changes("#output-0", lambda: tab.upload("#drop", picture(tmp_path / "photo.jpg")))
    assert tab.pixels("#input").shape == (64, 81, 3)
    tab.until(lambda: tab.pixels("#grid-0", 7).shape == (64, 81, 3), "all styles are of the upload")
    tab.shot("2-uploaded")
    tab.changes(
        "#output-0", lambda: tab.click("#held-out button.thumbnail-item, #held-out .thumbnail-item", 2)
    )

    tab.changes("#output-0", lambda: tab.click("#grid-0 .thumbnail-item", 5))
    assert (tab.pixels("#output-0") == tab.pixels("#grid-0", 5)).all()

    tab.turn_to("Sliders")
    before = tab.pixels("#output-0")
    tab.changes("#output-0", lambda: tab.slide("#style-1", 3))
    tab.changes("#output-0", lambda: tab.slide("#style-2", -3))
    tab.until(lambda: (tab.pixels("#output-0") != before).any(), "the slider changes pixels")
    tab.shot("3-sliders")
    tab.changes("#output-0", lambda: tab.press("Surprise me"))

    tab.turn_to("Exemplar")
    tab.until(lambda: tab.find("#exemplars .thumbnail-item"), "exemplars are offered")
    tab.changes("#output-0", lambda: tab.click("#exemplars .thumbnail-item", 1))
    tab.shot("4-exemplar")
    tab.changes("#output-0", lambda: tab.upload("#exemplar-drop", picture(tmp_path / "other.png", (64, 64))))

    tab.turn_to("Between two styles")
    guided = tab.pixels("#output-0")
    tab.changes("#strip-0", lambda: tab.press("End at the current style"))
    tab.until(lambda: tab.source("#animation-0"), "the animation is shown")
    strip = tab.pixels("#strip-0")
    assert (strip[18 : 18 + 64, -2 - 64 : -2] == guided).all()
    tab.shot("5-between")

    tab.turn_to("Random styles")
    tab.press("Download all (ZIP)")
    tab.until(lambda: list(tmp_path.glob("*.zip")), "the download arrives")
    with zipfile.ZipFile(next(tmp_path.glob("*.zip"))) as archived:
        assert len(archived.namelist()) == 9

    shown = tab.source("#input")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    tab.upload("#drop", tmp_path / "broken.png")
    tab.until(lambda: "broken.png: not a readable image" in tab.find("#note")[0].text, "the note is shown")
    assert tab.source("#input") == shown
    tab.shot("6-corrupt")

    tab.changes("#input", lambda: tab.press("b to a"))
    tab.until(lambda: tab.source("#output-0"), "the other direction is shown")
    tab.until(lambda: not any(note.is_displayed() for note in tab.find("#note")), "the note is gone")
    tab.shot("7-other-direction")
    assert tab.complaints() == []
    assert [url for url in tab.requests() if not url.startswith((address, "data:", "blob:", "chrome"))] == []


def test_two_runs_side_by_side(served: Callable[..., str], tab: Tab) -> None:
    tab.open(served("munit", "bicyclegan"))
    tab.until(lambda: len(tab.find("#grid-1 img")) == 8, "both runs have eight styles")
    for place in range(8):
        tab.click("#grid-0 .thumbnail-item", place)
    last = lambda: (tab.pixels("#output-1") == tab.pixels("#grid-1", 7)).all()  # noqa: E731
    tab.until(last, "the last of quick choices is shown")
    tab.turn_to("Sliders")
    first = tab.source("#output-0")
    tab.changes("#output-1", lambda: tab.slide("#style-1", 2))
    tab.until(lambda: tab.source("#output-0") != first, "the slider moves both runs")
    tab.turn_to("Random styles")
    tab.shot("8-two-runs")


def test_on_a_telephone(served: Callable[..., str], tab: Tab) -> None:
    """360 px wide: nothing is cut off."""
    view = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    tab.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", view)
    tab.open(served("munit"))
    tab.until(lambda: len(tab.find("#grid-0 img")) == 8, "eight styles are shown")
    for name in ("Sliders", "Exemplar", "Between two styles", "Random styles"):
        tab.turn_to(name)
        assert tab.driver.execute_script("return document.documentElement.scrollWidth") <= 360
    if tab.shots is not None:
        view["height"] = tab.driver.execute_script("return document.documentElement.scrollHeight")
        tab.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", view)
        time.sleep(0.3)
        tab.driver.save_screenshot(str(tab.shots / "9-telephone.png"))


def test_a_deterministic_run_has_no_styles(served: Callable[..., str], tab: Tab) -> None:
    tab.open(served("cyclegan"))
    assert not any(each.is_displayed() for each in tab.find("#grid-0"))
    tab.changes("#output-0", lambda: tab.click("#held-out .thumbnail-item", 1))
    tab.shot("10-deterministic")


def test_a_run_that_is_training_shows_its_new_weights(
    served: Callable[..., str], tab: Tab, runs: Callable[..., Path], tmp_path: Path
) -> None:
    run = shutil.copytree(runs("munit"), tmp_path / "run")
    tab.open(served(str(run)))
    newer = shutil.copy(runs("munit", "seed=1") / "weights.safetensors", tmp_path)
    tab.changes("#output-0", lambda: Path(newer).replace(run / "weights.safetensors"))
