"""The demo page in Chromium, as a user sees it: `make browser`.

    python -m pytest tests/demo/test_browser.py -m browser -n 0 --demo-run runs/munit --screenshots shots

Without --demo-run, networks with initial weights are used.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chromium import Tab
from tests.demo.test_studio import picture

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore::ResourceWarning")]


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


def opened(tab: Tab, address: str) -> None:
    tab.open(address)
    tab.until(lambda: tab.source("#output-0"), "the first translation is shown")


def test_a_session(served: Callable[..., str], tab: Tab, tmp_path: Path) -> None:
    """Upload, styles, slider, exemplar, interpolation, download, both directions, a corrupt file."""
    address = served("munit")
    opened(tab, address)
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
    opened(tab, served("munit", "bicyclegan"))
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
    opened(tab, served("munit"))
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
    opened(tab, served("cyclegan"))
    assert not any(each.is_displayed() for each in tab.find("#grid-0"))
    tab.changes("#output-0", lambda: tab.click("#held-out .thumbnail-item", 1))
    tab.shot("10-deterministic")


def test_a_run_that_is_training_shows_its_new_weights(
    served: Callable[..., str], tab: Tab, runs: Callable[..., Path], tmp_path: Path
) -> None:
    run = shutil.copytree(runs("munit"), tmp_path / "run")
    opened(tab, served(str(run)))
    newer = shutil.copy(runs("munit", "seed=1") / "weights.safetensors", tmp_path)
    tab.changes("#output-0", lambda: Path(newer).replace(run / "weights.safetensors"))
