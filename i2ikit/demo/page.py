"""The page: what happens when something on it is touched; `layout.py` says what is on it.

Each event changes the session, the state of one browser tab, and returns what is shown anew, by component.
"""

from __future__ import annotations

import functools
import inspect
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from i2ikit.data.images import to_picture
from i2ikit.data.reading import COLOURS
from i2ikit.demo.layout import NUM_STYLES, Widgets
from i2ikit.demo.studio import MOST_SLIDERS, Problem, Shown, Studio, archive, mixed
from i2ikit.output_folder import readable
from i2ikit.translator import Direction

__all__ = ["Page", "Session"]

NUM_HELD_OUT = 8
SMALL = 128  # pictures up to this size are shown with sharp pixels
KEPT, CLEARED = 1800, 300  # seconds that pictures of the page are kept, and between two clearings
NO_INPUT = Problem("Drop a picture to begin.")
SURPRISES = 10**6  # seeds of "Surprise me" begin here; those below are of random styles

Answers = list[Tensor | Problem]
"""One for each model."""
Updates = dict[Any, Any]
"""New values by component."""


@dataclass
class Session:
    """The state of one browser tab; each list has one entry for each model."""

    direction: Direction
    held_out: list[NDArray[np.float32]] = field(default_factory=list)
    exemplars: list[NDArray[np.float32]] = field(default_factory=list)
    shown_from: int = 0  # seed of the held-out images
    image: Answers = field(default_factory=list)
    style: Answers = field(default_factory=list)  # the current one, (1, style_dim)
    styles: Answers = field(default_factory=list)  # the random ones, (N, style_dim)
    seed: int = 0  # of the random ones
    surprises: int = 0
    start: Answers = field(default_factory=list)
    end: Answers = field(default_factory=list)
    weights: list[str] = field(default_factory=list)


class Page:
    """The demo page of some models.

    Args:
        studio: the models.
    """

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.names = [str(each.path) for each in studio.models]
        self.directions = {f"{d.source} to {d.to}": d for d in studio.directions}
        self.num_sliders = min(MOST_SLIDERS, max(map(studio.style_length, studio.directions)))
        self.limit = studio.range()
        largest = max(each.model().images.size for each in studio.models)
        with gr.Blocks(
            title="i2ikit demo", analytics_enabled=False, delete_cache=(CLEARED, KEPT)
        ) as self.blocks:
            self.widgets = Widgets(
                self.names,
                list(self.directions),
                self.num_sliders,
                self.limit,
                self._about_sliders(),
                largest <= SMALL,
            )
            self._connect()

    # What happens when something is touched

    def _connect(self) -> None:
        on, w = self._on, self.widgets
        on(self.blocks.load, self.opened, [], w.outputs)
        on(w.direction.input, self.turned, [w.direction, w.count], w.outputs)
        on(w.held_out.select, self.input_chosen, [], w.outputs)
        on(w.others.click, self.others_shown, [], [w.held_out])
        on(w.drop.upload, self.input_dropped, [w.drop], w.outputs)
        on(w.new_styles.click, self.styles_renewed, [w.count, w.locked], w.grids)
        on(w.count.release, self.styles_counted, [w.count, w.locked], w.grids)
        for grid in w.grids:
            on(grid.select, self.style_chosen, [], w.outputs)
        for place, slider in enumerate(w.sliders):
            on(slider.input, functools.partial(self.slider_moved, place), [slider], [])
        on(w.surprise.click, self.surprised, [w.locked], w.outputs)
        on(w.exemplars.select, self.exemplar_chosen, [], w.outputs)
        on(w.exemplar_drop.upload, self.exemplar_dropped, [w.exemplar_drop], w.outputs)
        on(w.start.click, self.started_here, [w.between], w.strips)
        on(w.end.click, self.ended_here, [w.between], w.strips)
        on(w.go.click, self.gone_between, [w.between], w.strips)
        on(w.timer.tick, self.refreshed, [], [])

    def _on(
        self,
        event: Callable[..., Any],
        answer: Callable[..., Any],
        inputs: Sequence[Any],
        waiting: Sequence[Any],
    ) -> None:
        """Call `answer(session, *inputs)` at an event; `waiting` show that it is at work.

        A tab whose session is gone, because the server was started again, begins anew when it is touched.
        While an answer is computed, only the last one of further events is kept; but all choices among
        pictures, because gradio would repeat the first choice instead of keeping the last.
        """

        @functools.wraps(answer)  # gradio looks at its signature
        def answered(session: Session | None, *given: Any) -> Any:
            lost = session is None and answer != self.refreshed  # the timer leaves the page as it is
            return self.opened(None) if lost else answer(session, *given)

        event(
            answered,
            [self.widgets.session, *inputs],
            self.widgets.changing(),
            show_progress="minimal" if waiting else "hidden",
            show_progress_on=list(waiting) or None,
            concurrency_id="models",  # one at a time: they share the processor
            concurrency_limit=1,
            api_visibility="private",
            trigger_mode="multiple" if "event" in inspect.signature(answer).parameters else "always_last",
        )

    def opened(self, _: Session | None) -> Updates:
        """A browser tab was opened."""
        return self.turned(None, next(iter(self.directions)), NUM_STYLES)

    def turned(self, _: Session | None, label: str, count: int) -> Updates:
        """A direction was chosen: everything starts anew."""
        session = Session(self.directions[label], weights=self.studio.weights())
        session.image = [NO_INPUT] * len(self.names)
        length = self.studio.style_length(session.direction)
        session.styles = self.studio.random_styles(session.direction, int(count), session.seed)
        first = self.studio.or_zeros(_one(session.styles, 0), session.direction)
        session.style, session.start, session.end = first, first, _one(session.styles, 1)
        updates = self._held_out(session)
        if session.held_out:
            session.image = self.studio.inputs(session.held_out[0], session.direction.source)
        return {
            **updates,
            self.widgets.heading: self._heading(),
            self.widgets.direction: label,
            self.widgets.drop: gr.update(value=None, label=self._accepted(session.direction.source)),
            self.widgets.exemplar_drop: gr.update(value=None, label=self._accepted(session.direction.to)),
            self.widgets.styling: gr.update(visible=length > 0),
            self.widgets.exemplar_tab: gr.update(visible=self.studio.follows_exemplars(session.direction)),
            self.widgets.exemplar: None,
            **dict.fromkeys((*self.widgets.strips, *self.widgets.animations)),
            **self._input(session),
        }

    def others_shown(self, session: Session) -> Updates:
        """Other held-out pictures are wanted."""
        session.shown_from += 1
        return {**self._held_out(session), self.widgets.session: session}

    def input_chosen(self, session: Session, event: gr.SelectData) -> Updates:
        """A held-out picture was chosen as the input."""
        if event.index >= len(session.held_out):  # others were shown meanwhile
            return {self.widgets.session: session}
        session.image = self.studio.inputs(session.held_out[event.index], session.direction.source)
        return self._input(session)

    def input_dropped(self, session: Session, file: str | None) -> Updates:
        """A file was dropped as the input; if no model can use it, the input stays."""
        if file is None:
            return {self.widgets.session: session}
        found = self.studio.inputs(Path(file), session.direction.source)
        free = {self.widgets.drop: None}  # the place takes the next file
        if not _any(found):
            return {**free, **self._told(session, found)}
        session.image = found
        return {**free, **self._input(session)}

    def styles_renewed(self, session: Session, count: int, locked: Sequence[str]) -> Updates:
        """Other random styles are wanted."""
        session.seed += 1
        return self.styles_counted(session, count, locked)

    def styles_counted(self, session: Session, count: int, locked: Sequence[str]) -> Updates:
        """Another number of random styles is wanted."""
        drawn = self.studio.random_styles(session.direction, int(count), session.seed)
        session.styles = mixed(drawn, session.style, _places(locked))
        return {**self._grids(session), self.widgets.session: session}

    def style_chosen(self, session: Session, event: gr.SelectData) -> Updates:
        """One of the random styles becomes the current one."""
        session.style = _or(_one(session.styles, event.index), session.style)
        return self._current(session)

    def slider_moved(self, place: int, session: Session, value: float) -> Updates:
        """A slider was moved; the other sliders stay as they are."""
        session.style = [_with_number(code, place, value) for code in session.style]
        updates = self._current(session)
        return {key: value for key, value in updates.items() if key not in self.widgets.sliders}

    def surprised(self, session: Session, locked: Sequence[str]) -> Updates:
        """The current style becomes a random one, but for locked numbers."""
        session.surprises += 1
        drawn = self.studio.random_styles(session.direction, 1, SURPRISES + session.surprises)
        if not _any(drawn):
            return self._told(session, drawn)
        session.style = _or(mixed(drawn, session.style, _places(locked)), session.style)
        return self._current(session)

    def exemplar_chosen(self, session: Session, event: gr.SelectData) -> Updates:
        """The style of a held-out picture becomes the current one."""
        if event.index >= len(session.exemplars):
            return {self.widgets.session: session}
        return self._followed(session, session.exemplars[event.index])

    def exemplar_dropped(self, session: Session, file: str | None) -> Updates:
        """The style of a dropped file becomes the current one."""
        if file is None:
            return {self.widgets.session: session}
        return {self.widgets.exemplar_drop: None, **self._followed(session, Path(file))}

    def started_here(self, session: Session, count: int) -> Updates:
        """The current style becomes the start."""
        session.start = list(session.style)
        return self.gone_between(session, count)

    def ended_here(self, session: Session, count: int) -> Updates:
        """The current style becomes the end."""
        session.end = list(session.style)
        return self.gone_between(session, count)

    def gone_between(self, session: Session, count: int) -> Updates:
        """The way from the start to the end is wanted."""
        found = self.studio.transitions(
            session.image, session.start, session.end, int(count), session.direction
        )
        updates: Updates = {}
        for shown, own_strip, own_animation in zip(
            found, self.widgets.strips, self.widgets.animations, strict=True
        ):
            updates[own_strip] = shown.strip if isinstance(shown, Shown) else None
            updates[own_animation] = _file(".webp", shown.animation) if isinstance(shown, Shown) else None
        return {**updates, **self._told(session, found)}

    def refreshed(self, session: Session | None) -> Any:
        """Show what new weights give, if training has saved some."""
        if session is None or (weights := self.studio.weights()) == session.weights:
            return gr.skip()
        session.weights = weights
        return {self.widgets.heading: self._heading(), **self._input(session)}

    def _heading(self) -> str:
        models = zip(self.names, [each.model() for each in self.studio.models], strict=True)
        lines = [f"**{_as_text(name)}**: step {model.step}, {model.images.size} px" for name, model in models]
        return "## i2ikit demo\n" + "\n\n".join(lines)

    def _accepted(self, domain: str) -> str:
        channels = {each.model().images.channels.get(domain, 3) for each in self.studio.models}
        if channels <= set(COLOURS):
            return "Drop a picture here: PNG, JPEG, WebP, BMP or TIFF"
        return "Drop an array here: .npy, (H, W, C), with values in [0, 1]"

    def _about_sliders(self) -> str:
        longest = max(map(self.studio.style_length, self.studio.directions))
        text = "Each slider is one number of the style code."
        if longest > self.num_sliders:
            text += f" These are the first {self.num_sliders} of {longest}."
        if len(self.names) > 1:
            text += " They move the codes of all models."
        return text

    # What is shown anew

    def _input(self, session: Session) -> Updates:
        """The input and all its translations."""
        return {
            self.widgets.input: self._first(session.image, session.direction.source),
            **self._grids(session),
        } | (self._current(session))

    def _current(self, session: Session) -> Updates:
        """The input in the current style, and the sliders at it."""
        found = self.studio.translations(session.image, session.style, session.direction)
        pictures = [None if isinstance(made, Problem) else made[0] for made in found]
        codes = [code[0].tolist() for code in session.style if isinstance(code, Tensor)]
        code = max(codes, key=len, default=[])
        limit = self.limit
        moved = {
            slider: gr.update(
                value=round(max(-limit, min(limit, code[place])), 2) if place < len(code) else 0,
                visible=place < self.studio.style_length(session.direction),
            )
            for place, slider in enumerate(self.widgets.sliders)
        }
        return {
            **dict(zip(self.widgets.outputs, pictures, strict=True)),
            **moved,
            **self._told(session, found),
        }

    def _grids(self, session: Session) -> Updates:
        """The input in the random styles, and the file with all of them."""
        found = self.studio.translations(session.image, session.styles, session.direction)
        lists = [[] if isinstance(made, Problem) else made for made in found]
        names = [f"{n}-{readable(Path(name).name)}" for n, name in enumerate(self.names, 1)]
        file = _file(".zip", archive(names, found, session.styles)) if _any(found) else None
        download = gr.update(value=file, visible=file is not None)
        return {**dict(zip(self.widgets.grids, lists, strict=True)), self.widgets.download: download}

    def _held_out(self, session: Session) -> Updates:
        """The held-out pictures of both domains."""
        direction, seed = session.direction, session.shown_from
        inputs = self.studio.held_out(direction.source, NUM_HELD_OUT, seed)
        exemplars = self.studio.held_out(direction.to, NUM_HELD_OUT, seed + 1)
        session.held_out, session.exemplars = ([array for _, array in found] for found in (inputs, exemplars))
        return {
            self.widgets.held_out: gr.update(value=[shown for shown, _ in inputs], visible=bool(inputs)),
            self.widgets.others: gr.update(visible=bool(inputs)),
            self.widgets.exemplars: gr.update(
                value=[shown for shown, _ in exemplars], visible=bool(exemplars)
            ),
        }

    def _followed(self, session: Session, exemplar: Path | NDArray[np.float32]) -> Updates:
        """The style of an exemplar is the current one, for each model that can encode it."""
        found = self.studio.styles_of(exemplar, session.direction)
        if not _any(found):
            return self._told(session, found)
        session.style = found
        seen = self.studio.inputs(exemplar, session.direction.to)
        return {self.widgets.exemplar: self._first(seen, session.direction.to), **self._current(session)}

    def _first(self, images: Answers, domain: str) -> Any:
        """A picture of an image as the first model that can use it sees it."""
        for each, x in zip(self.studio.models, images, strict=False):
            if isinstance(x, Tensor):
                return to_picture(each.model().pictures(x, domain)[0])
        return None

    def _told(self, session: Session, found: Iterable[object]) -> Updates:
        """What could not be done, in words; and the session."""
        answers = zip(self.names, found, strict=False)
        problems = {name: str(answer) for name, answer in answers if isinstance(answer, Problem)}
        same = len(set(problems.values())) == 1 and len(problems) == len(self.names)
        lines = [next(iter(problems.values()))] if same else [f"{n}: {text}" for n, text in problems.items()]
        text = "\n\n".join(_as_text(line) for line in lines)
        return {self.widgets.note: gr.update(value=text, visible=bool(lines)), self.widgets.session: session}


def _any(found: Iterable[object]) -> bool:
    return any(not isinstance(each, Problem) for each in found)


def _one(styles: Answers, place: int) -> Answers:
    """One of several styles; the last one of a model that has fewer."""
    return [s if isinstance(s, Problem) else s[[min(place, len(s) - 1)]] for s in styles]


def _or(new: Answers, old: Answers) -> Answers:
    """New style codes; the old one of a model that has no new one."""
    return [theirs if isinstance(ours, Problem) else ours for ours, theirs in zip(new, old, strict=True)]


def _with_number(code: Tensor | Problem, place: int, value: float) -> Tensor | Problem:
    """A style code (1, style_dim) with another number at a place, if it has that place."""
    if isinstance(code, Problem) or place >= code.shape[1]:
        return code
    code = code.clone()
    code[0, place] = value
    return code


def _places(locked: Sequence[str]) -> list[int]:
    return [int(number) - 1 for number in locked]


def _as_text(line: str) -> str:
    """A line as Markdown that shows it as it is: names of files may contain anything."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()<>#+-.!|~$&" else c for c in line)


def _file(ending: str, content: bytes) -> str:
    """A file that the page offers, in the folder of the server."""
    folder = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.NamedTemporaryFile(suffix=ending, prefix="i2ikit-", dir=folder, delete=False) as file:
        file.write(content)
    return file.name
