"""Reports in Chromium, as a user sees them: `make browser`.

    python -m pytest tests/report/test_browser.py -m browser -n 0 --report-run runs/munit --screenshots shots

Without --report-run, the run has made-up numbers and pictures.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from i2ikit.report import write_report
from tests.chromium import Tab
from tests.report.made_up import USUAL, made_up_run, won_from, write_log, write_samples

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A run with samples of two directions and a log."""
    folder = tmp_path / "run"
    if (real := request.config.getoption("--report-run")) is not None:
        return Path(shutil.copytree(real, folder))
    made_up_run(folder, 2000)
    styles = [
        {"step": step, "diversity/a2b": 0.05 + 1e-5 * step, "diversity/b2a": 0.03} for step in (0, 500, 1000)
    ]
    write_log(folder, range(10, 1001, 10), USUAL, *styles)
    for suffix in ("", "-b2a"):
        write_samples(folder, (0, 500, 1000), (660, 544), suffix)
    return folder


def look(tab: Tab, scheme: str, width: int = 1280) -> None:
    """Show the page in light or dark colours, in a window of this width."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    tab.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    view = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    tab.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", view)


def ask(tab: Tab, script: str, *values: Any) -> Any:
    return tab.driver.execute_script(f"return {script}", *values)


def open_report(tab: Tab, run: Path) -> None:
    tab.open(write_report(run).as_uri())
    charts = len(tab.find(".chart"))
    tab.until(lambda: charts == len(tab.find(".chart canvas")) > 0, "all charts are drawn")


def test_the_page_is_complete_and_alone(tab: Tab, run: Path) -> None:
    """No error, all pictures load, no request leaves the page."""
    open_report(tab, run)
    for width in ask(tab, "[...document.images].map((image) => image.naturalWidth)"):
        assert width > 0
    assert tab.complaints() == []
    asked = {address for address in tab.requests() if not address.startswith("data:")}
    assert asked == {(run / "report.html").as_uri()}
    tab.shot("report-light")


def test_the_sliders_change_the_pictures(tab: Tab, run: Path) -> None:
    open_report(tab, run)
    last = tab.source("#grid-0")
    assert ask(tab, "document.querySelector('#grid-0 output').textContent").startswith("step ")
    tab.changes("#grid-0", lambda: tab.slide("#grid-0", 0))
    assert ask(tab, "document.querySelector('#grid-0 output').textContent") == "step 0"
    assert tab.source("#grid-1")
    last_place = ask(tab, "document.querySelector('#grid-0 input').max")
    tab.changes("#grid-0", lambda: tab.slide("#grid-0", float(last_place)))
    assert tab.source("#grid-0") == last


def test_it_can_be_read_in_the_dark(tab: Tab, run: Path) -> None:
    """Text and page change places; the charts are drawn in other colours; no error."""
    look(tab, "light")
    open_report(tab, run)
    colours = "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
    drawn = "document.querySelector('.chart canvas').toDataURL()"
    light, chart = ask(tab, colours), ask(tab, drawn)
    look(tab, "dark")
    tab.until(lambda: ask(tab, drawn) != chart, "the charts are drawn anew")
    assert luminance(light[0]) < 60 < 200 < luminance(light[1])
    dark = ask(tab, colours)
    assert luminance(dark[1]) < 60 < 200 < luminance(dark[0])
    assert tab.complaints() == []
    tab.shot("report-dark")


def luminance(colour: str) -> float:
    red, green, blue = (int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_it_fits_a_telephone(tab: Tab, run: Path) -> None:
    """360 px wide, without a sideways scroll, though a grid is wider: that scrolls by itself."""
    look(tab, "light", 360)
    open_report(tab, run)
    assert ask(tab, "document.documentElement.scrollWidth") <= 360
    assert ask(tab, "document.querySelector('#grid-0 img').clientWidth") > 360
    for width in ask(tab, "[...document.querySelectorAll('.chart canvas')].map((one) => one.clientWidth)"):
        assert 200 < width <= 360
    assert tab.complaints() == []
    tab.shot("report-phone")


def test_what_looks_wrong_stands_out(tab: Tab, run: Path) -> None:
    """A made-up log of a discriminator that has won, and of a style that lost its effect."""
    styles = [{"step": 500, "diversity/a2b": 0.05}, {"step": 1000, "diversity/a2b": 0.001}]
    write_log(run, range(10, 1001, 10), won_from(600), *styles)
    open_report(tab, run)
    assert [
        text.split(" ")[1]
        for text in ask(tab, "[...document.querySelectorAll('.warning')].map((one) => one.textContent)")
    ] == [
        "style",
        "discriminator",
    ]
    tab.shot("report-wrong")


def test_values_are_shown_of_the_last_step_and_of_the_one_under_the_pointer(tab: Tab, run: Path) -> None:
    open_report(tab, run)
    legend = "document.querySelector('.chart .u-legend .u-value').textContent"
    last = ask(tab, legend)
    assert int(last) > 0
    over = "document.querySelector('.chart .u-over').dispatchEvent(new MouseEvent('mousemove', {bubbles: true, clientX: arguments[0], clientY: arguments[1]}))"
    box = ask(
        tab,
        "(({x, y, width}) => [x, y, width])(document.querySelector('.chart .u-over').getBoundingClientRect())",
    )
    ask(tab, "document.querySelector('.chart .u-over').dispatchEvent(new MouseEvent('mouseenter'))")
    ask(tab, over, box[0] + 5, box[1] + 20)
    tab.until(lambda: 0 < int(ask(tab, legend)) < int(last), "the value under the pointer is shown")
    ask(tab, "document.querySelector('.chart .u-over').dispatchEvent(new MouseEvent('mouseleave'))")
    tab.until(lambda: ask(tab, legend) == last, "the last value is shown again")
