"""What the demo page does when something on it is touched, without a browser."""

from __future__ import annotations

import gc
import inspect
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from i2ikit.demo.live import LiveModel
from i2ikit.demo.studio import Problem, Studio
from i2ikit.errors import RunError
from i2ikit.loading import load
from tests.demo.test_studio import picture

pytest.importorskip("gradio", reason="needs the extra i2ikit[demo]")

import gradio as gr

from i2ikit.demo.page import Page, Session
from i2ikit.demo.serving import serve

Studios = Callable[..., Studio]

pytestmark = [  # gradio does not close its event loops
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def nothing_left_for_later_tests() -> Iterator[None]:
    """What gradio does not close is collected here, where it is no error."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(autouse=True)
def server_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the page puts the files that it offers."""
    folder = tmp_path / "server"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


def chosen(index: int) -> Any:
    return SimpleNamespace(index=index)


def shown(value: Any) -> list[Any]:
    return np.asarray(value).tolist()


def session_of(updates: dict[Any, Any], page: Page) -> Session:
    found = updates[page.widgets.session]
    assert isinstance(found, Session)
    return found


def test_a_new_tab_shows_a_held_out_picture_in_eight_styles(studio: Studios) -> None:
    page = Page(studio("munit"))
    updates = page.opened(None)
    (grid,) = (updates[grid] for grid in page.widgets.grids)
    assert len(grid) == 8
    assert shown(updates[page.widgets.outputs[0]]) == shown(grid[0])
    assert len({image.tobytes() for image in grid}) == 8
    assert updates[page.widgets.note]["visible"] is False
    assert len(updates[page.widgets.held_out]["value"]) == 4
    code = session_of(updates, page).style[0][0].tolist()
    assert [updates[slider]["value"] for slider in page.widgets.sliders] == pytest.approx(code, abs=0.006)


def test_a_slider_changes_one_number_and_the_picture(studio: Studios) -> None:
    """The other numbers stay exact, though the sliders show them rounded and within their range."""
    page = Page(studio("munit", "bicyclegan"))
    before = page.opened(None)
    session = session_of(before, page)
    codes = [style.clone() for style in session.style if isinstance(style, Tensor)]
    updates = page.slider_moved(1, session, 2.5)
    for code, old in zip(session.style, codes, strict=True):
        assert isinstance(code, Tensor)
        assert code[0, 1] == 2.5
        assert (code != old).sum() == 1
    for output in page.widgets.outputs:
        assert shown(updates[output]) != shown(before[output])
    assert not any(slider in updates for slider in page.widgets.sliders)
    page.slider_moved(7, session, 1.0)  # these BicycleGAN's codes have 8 numbers, MUNIT's 4
    assert isinstance(session.style[0], Tensor)
    assert session.style[0].shape == codes[0].shape


def test_a_chosen_style_becomes_the_current_one(studio: Studios) -> None:
    page = Page(studio("munit", "bicyclegan"))
    updates = page.opened(None)
    after = page.style_chosen(session_of(updates, page), chosen(5))
    for output, grid in zip(page.widgets.outputs, page.widgets.grids, strict=True):
        assert shown(after[output]) == shown(updates[grid][5])


def test_new_styles_keep_locked_numbers(studio: Studios) -> None:
    page = Page(studio("munit"))
    session = session_of(page.opened(None), page)
    (before,) = session.styles
    updates = page.styles_renewed(session, 5, ["2"])
    (after,) = session.styles
    assert len(updates[page.widgets.grids[0]]) == 5
    assert (after[:, 1] == session.style[0][0, 1]).all()
    assert not (after[:, 0] == before[:5, 0]).any()
    page.surprised(session, ["1", "3"])
    assert (session.style[0] == before[:1]).tolist() == [[True, False, True, False]]


def test_the_same_number_of_styles_gives_the_same_pictures(studio: Studios) -> None:
    page = Page(studio("munit"))
    updates = page.opened(None)
    again = page.styles_counted(session_of(updates, page), 8, [])
    assert list(map(shown, again[page.widgets.grids[0]])) == list(map(shown, updates[page.widgets.grids[0]]))


def test_the_other_direction_has_other_pictures(studio: Studios) -> None:
    page = Page(studio("munit"))
    updates = page.opened(None)
    turned = page.turned(session_of(updates, page), "b to a", 8)
    session = session_of(turned, page)
    assert session.direction == ("b", "a")
    held_out, exemplars = updates[page.widgets.held_out]["value"], updates[page.widgets.exemplars]["value"]
    assert sorted(map(shown, turned[page.widgets.exemplars]["value"])) == sorted(map(shown, held_out))
    assert sorted(map(shown, turned[page.widgets.held_out]["value"])) == sorted(map(shown, exemplars))


def test_a_dropped_picture_is_the_input(studio: Studios, tmp_path: Path) -> None:
    page = Page(studio("munit"))
    updates = page.opened(None)
    after = page.input_dropped(session_of(updates, page), str(picture(tmp_path / "x.webp")))
    assert shown(after[page.widgets.input]) != shown(updates[page.widgets.input])
    assert np.asarray(after[page.widgets.input]).shape == (64, 81, 3)
    assert all(np.asarray(made).shape == (64, 81, 3) for made in after[page.widgets.grids[0]])


def test_a_damaged_file_changes_nothing_and_is_explained(studio: Studios, tmp_path: Path) -> None:
    """Its name is shown as it is, not as Markdown or HTML."""
    page = Page(studio("munit", "bicyclegan"))
    session = session_of(page.opened(None), page)
    image = session.image[0]
    file = tmp_path / "<b>[x](y)<.png"
    file.write_bytes(b"no picture")
    for updates in (page.input_dropped(session, str(file)), page.exemplar_dropped(session, str(file))):
        note = updates[page.widgets.note]
        assert note["visible"] is True
        assert note["value"].startswith(r"\<b\>\[x\]\(y\)\<\.png: not a readable image")
        assert note["value"].count("not a readable image") == 1
        assert page.widgets.input not in updates
    assert session.image[0] is image
    assert page.input_dropped(session, None) == {page.widgets.session: session}


def test_an_exemplar_sets_the_sliders(studio: Studios) -> None:
    page = Page(studio("munit", "cyclegan"))
    updates = page.opened(None)
    session = session_of(updates, page)
    after = page.exemplar_chosen(session, chosen(2))
    code = session.style[0][0].tolist()
    assert [after[slider]["value"] for slider in page.widgets.sliders] == pytest.approx(code, abs=0.006)
    assert shown(after[page.widgets.exemplar]) == shown(updates[page.widgets.exemplars]["value"][2])


def test_going_between_two_styles(studio: Studios) -> None:
    page = Page(studio("munit"))
    session = session_of(page.opened(None), page)
    page.style_chosen(session, chosen(3))
    page.started_here(session, 5)
    page.surprised(session, [])
    updates = page.ended_here(session, 7)
    assert np.asarray(updates[page.widgets.strips[0]]).shape == (16 + 66 + 2, 7 * 66 + 2, 3)
    with Image.open(updates[page.widgets.animations[0]]) as animated:
        assert animated.n_frames == 12
    assert session.start[0].tolist() == session.styles[0][3:4].tolist()


def test_the_download_has_the_pictures_of_the_grid(studio: Studios, server_folder: Path) -> None:
    page = Page(studio("munit"))
    updates = page.opened(None)
    file = Path(updates[page.widgets.download]["value"])
    assert file.parent == server_folder
    with zipfile.ZipFile(file) as archived:
        names = archived.namelist()
        assert len(names) == 9
        with Image.open(io.BytesIO(archived.read(names[4]))) as image:
            assert shown(image) == shown(updates[page.widgets.grids[0]][4])


def test_a_deterministic_model_has_no_styles_on_its_page(studio: Studios) -> None:
    page = Page(studio("cyclegan"))
    updates = page.opened(None)
    assert updates[page.widgets.styling]["visible"] is False
    assert page.widgets.sliders == []
    assert updates[page.widgets.outputs[0]].size == (64, 64)


def test_without_held_out_pictures_the_page_waits_for_one(runs: Callable[..., Path], tmp_path: Path) -> None:
    """The images of the run are gone; everything can be touched before a picture is dropped."""
    run = shutil.copytree(runs("munit"), tmp_path / "run")
    text = (run / "resolved.toml").read_text()
    (run / "resolved.toml").write_text(text.replace("/data", "/none"))
    page = Page(Studio([LiveModel(load(run, "cpu"), "cpu")]))
    updates = page.opened(None)
    session = session_of(updates, page)
    answers = [
        updates,
        page.slider_moved(0, session, 1.0),
        page.styles_renewed(session, 5, ["1"]),
        page.style_chosen(session, chosen(4)),
        page.surprised(session, []),
        page.ended_here(session, 5),
        page.turned(session, "b to a", 8),
    ]
    for answer in answers[:1] + answers[3:]:
        assert answer[page.widgets.note]["value"] == r"Drop a picture to begin\."
    assert updates[page.widgets.download]["visible"] is False
    session = session_of(answers[-1], page)
    after = page.input_dropped(session, str(picture(tmp_path / "x.png")))
    assert len(after[page.widgets.grids[0]]) == 8
    assert after[page.widgets.note]["visible"] is False


def test_a_model_that_cannot_draw_styles_keeps_its_own(
    studio: Studios, monkeypatch: pytest.MonkeyPatch
) -> None:
    its = studio("munit")
    page = Page(its)
    session = session_of(page.opened(None), page)
    before = session.style
    monkeypatch.setattr(its, "random_styles", lambda *_: [Problem("unknown")])
    updates = page.surprised(session, [])
    assert updates[page.widgets.note]["value"] == "unknown"
    page.styles_renewed(session, 5, [])
    updates = page.style_chosen(session, chosen(2))
    assert session.style == before
    assert updates[page.widgets.outputs[0]] is not None


def test_a_session_that_is_gone_begins_anew(studio: Studios) -> None:
    """The server was started again while the tab was open."""
    page = Page(studio("munit"))
    answers = {target: function.fn for function in page.blocks.fns.values() for target, _ in function.targets}
    for touched in (page.widgets.sliders[0], page.widgets.grids[0], page.widgets.drop):
        answered = answers[touched._id]
        assert answered is not None
        updates = answered(None, *[None] * (len(inspect.signature(answered).parameters) - 1))
        assert len(updates[page.widgets.grids[0]]) == 8
        assert updates[page.widgets.direction] == "a to b"
    tick = answers[page.widgets.timer._id]
    assert tick is not None
    assert tick(None) == gr.skip()


def test_the_last_of_many_events_counts(studio: Studios) -> None:
    """A slider is dragged, or pictures are chosen, faster than translations are made."""
    page = Page(studio("munit"))
    modes = {
        target: function.trigger_mode
        for function in page.blocks.fns.values()
        for target, _ in function.targets
    }
    places = (
        page.widgets.held_out,
        page.widgets.grids[0],
        page.widgets.exemplars,
        page.widgets.sliders[0],
        page.widgets.direction,
        page.widgets.count,
    )
    assert [modes[place._id] for place in places] == ["multiple"] * 3 + ["always_last"] * 3


def test_a_picture_that_is_no_longer_offered_is_not_taken(studio: Studios) -> None:
    page = Page(studio("munit"))
    session = session_of(page.opened(None), page)
    for answer in (page.input_chosen, page.exemplar_chosen):
        assert answer(session, chosen(4)) == {page.widgets.session: session}


def test_a_model_without_this_direction_says_so(studio: Studios) -> None:
    page = Page(studio("bicyclegan", "munit"))
    updates = page.turned(None, "b to a", 4)
    assert updates[page.widgets.outputs[0]] is None
    assert updates[page.widgets.outputs[1]] is not None
    assert "bicyclegan: this translator does not translate from b to a" in updates[page.widgets.note][
        "value"
    ].replace("\\", "")


def test_weights_that_training_saves_are_shown(
    studio: Studios, runs: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    its = studio("munit")
    page = Page(its)
    session = session_of(page.opened(None), page)
    assert page.refreshed(session) == page.refreshed(None)  # nothing
    monkeypatch.setattr(its, "weights", lambda: ["newer"])
    updates = page.refreshed(session)
    assert {
        page.widgets.heading,
        page.widgets.input,
        *page.widgets.outputs,
        *page.widgets.grids,
    } <= updates.keys()
    assert session.weights == ["newer"]


def test_the_page_is_served_on_this_machine_until_it_is_stopped(studio: Studios) -> None:
    """A file that is too large is refused while it arrives, and another host's name is not answered."""
    import httpx

    answers: list[tuple[int, str]] = []

    def visit(address: str) -> None:
        assert address.startswith("http://127.0.0.1:")
        page = httpx.get(address, trust_env=False)
        large = {"files": ("x.png", b"0" * 100_000_001)}
        upload = httpx.post(f"{address}gradio_api/upload", files=large, trust_env=False)
        other = httpx.get(address, headers={"Host": "other.example"}, trust_env=False)
        answers.extend((each.status_code, each.text) for each in (page, upload, other))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serve(studio("munit"), "127.0.0.1", None, visit)
    (status, html), (refused, _), (foreign, _) = answers
    assert status == 200
    assert "fonts.googleapis.com" not in html
    assert refused == 413
    assert foreign == 400


def test_an_address_that_cannot_be_used_is_an_error(studio: Studios) -> None:
    its = studio("munit")
    with pytest.raises(RunError, match=r"at 192\.0\.2\.1, port 7999: .*; give another --port or --host"):
        serve(its, "192.0.2.1", 7999, lambda _: None)
    with pytest.raises(RunError, match=r"cannot serve the page at no\.such\.host: "):
        serve(its, "no.such.host", None, lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=rf"cannot serve the page at 127\.0\.0\.1, port {port}: "):
            serve(its, "127.0.0.1", port, lambda _: None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("waits", "number", "code", "said"),
    [
        (False, signal.SIGTERM, 143, ""),
        pytest.param(False, signal.SIGINT, 130, "Stopped.\n", marks=pytest.mark.long),
        (True, signal.SIGTERM, 143, ""),  # what runs in the background ignores the others
        pytest.param(True, signal.SIGHUP, 129, "", marks=pytest.mark.long),
        pytest.param(True, signal.SIGINT, 130, "Stopped.\n", marks=pytest.mark.long),
    ],
)
def test_the_command_leaves_nothing_behind(
    waits: bool, number: signal.Signals, code: int, said: str, runs: Callable[[str], Path], tmp_path: Path
) -> None:
    """Ended by a signal while it serves, or while it waits for a run's first weights.

    Nothing is written into the current folder, nor stays in the temporary one.
    """
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    here.mkdir()
    temporary.mkdir()
    run = shutil.copytree(runs("munit"), tmp_path / "run")
    if waits:
        (run / "weights.safetensors").unlink()
    process = subprocess.Popen(
        [sys.executable, "-m", "i2ikit", "demo", str(run), "--device", "cpu"],
        cwd=here,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if waits:
        assert process.stdout.readline().endswith("Waiting for them; Ctrl-C stops.\n")
    else:
        assert process.stdout.readline() == "Starting the page ...\n"
        assert process.stdout.readline().startswith("Open http://127.0.0.1:")
    process.send_signal(number)
    assert process.wait(60) == code
    assert process.stdout.read().endswith(said)
    assert list(here.iterdir()) == []
    assert list(temporary.iterdir()) == []
