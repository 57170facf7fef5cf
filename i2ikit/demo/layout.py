"""What is on the page: its pictures, sliders and buttons, each with a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

__all__ = ["NUM_STYLES", "Widgets"]

NUM_STYLES, MOST_STYLES = 8, 24
NUM_BETWEEN, MOST_BETWEEN = 9, 33
HEIGHT = 280  # of the large pictures, in pixels
DROP = 150  # of a place to drop files
REFRESH = 3.0  # seconds between two looks at the weights of a run that is training


class Widgets:
    """What is on the page, built inside `gr.Blocks`; `Page` fills and connects it.

    Args:
        names: of the models.
        directions: labels of the directions, the first one chosen.
        num_sliders: one for each number of a style code.
        limit: the sliders go from -limit to limit.
        about_sliders: a text above them.
        sharp: whether single pixels of enlarged pictures can be seen.
    """

    def __init__(
        self,
        names: Sequence[str],
        directions: Sequence[str],
        num_sliders: int,
        limit: float,
        about_sliders: str,
        sharp: bool,
    ) -> None:
        self.names = names
        self.num_sliders = num_sliders
        self.limit = limit
        self.about_sliders = about_sliders
        self.pixels = ["small"] if sharp else []
        self.session = gr.State(None)  # kept while the tab is open
        self.heading = gr.Markdown()
        self.direction = gr.Radio(
            directions, value=directions[0], show_label=False, container=False, visible=len(directions) > 1
        )
        with gr.Row():
            self.input = self._picture("Input, as the networks see it", "input")
            self.outputs = [self._picture(name, f"output-{n}") for n, name in enumerate(self.names)]
        self.note = gr.Markdown(visible=False, elem_id="note")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self.drop = gr.File(height=DROP, elem_id="drop", elem_classes=["drop"])
                self.held_out = self._gallery("Held-out pictures", "held-out")
                self.others = gr.Button("Other held-out pictures", size="sm")
            with gr.Column(scale=3, min_width=300) as self.styling, gr.Tabs(overflow_behavior="wrap"):
                with gr.Tab("Random styles"):
                    self._lay_out_random()
                with gr.Tab("Sliders"):
                    self._lay_out_sliders()
                with gr.Tab("Exemplar") as self.exemplar_tab:
                    self._lay_out_exemplar()
                with gr.Tab("Between two styles"):
                    self._lay_out_between()
        self.timer = gr.Timer(REFRESH)

    def changing(self) -> list[Any]:
        """Those that an event may change."""
        pictures = [self.input, *self.outputs, *self.grids, self.exemplar, *self.strips, *self.animations]
        choices = [self.direction, self.drop, self.held_out, self.others, self.exemplar_drop, self.exemplars]
        texts = [self.heading, self.note, self.download]
        return [self.session, *pictures, *choices, *texts, *self.sliders, self.styling, self.exemplar_tab]

    def _lay_out_random(self) -> None:
        gr.Markdown("Choose a picture to continue with its style.")
        self.grids = [self._gallery(name, f"grid-{n}") for n, name in enumerate(self.names)]
        self.count = gr.Slider(1, MOST_STYLES, NUM_STYLES, step=1, label="Number of styles")
        with gr.Row():
            self.new_styles = gr.Button("New styles", variant="primary")
            self.download = gr.DownloadButton("Download all (ZIP)")

    def _lay_out_sliders(self) -> None:
        limit = self.limit
        gr.Markdown(self.about_sliders)
        numbers = range(1, self.num_sliders + 1)
        with gr.Row():
            self.sliders = [
                gr.Slider(
                    -limit,
                    limit,
                    0,
                    step=0.05,
                    label=f"Style {n}",
                    min_width=200,
                    buttons=[],
                    elem_id=f"style-{n}",
                )
                for n in numbers
            ]
        self.locked = gr.CheckboxGroup([f"{n}" for n in numbers], label="Locked numbers stay in new styles")
        self.surprise = gr.Button("Surprise me", variant="primary")

    def _lay_out_exemplar(self) -> None:
        gr.Markdown("The style of an exemplar, a picture of the target domain, becomes the current style.")
        self.exemplar_drop = gr.File(height=DROP, elem_id="exemplar-drop", elem_classes=["drop"])
        self.exemplar = self._picture("Exemplar", "exemplar")
        self.exemplars = self._gallery("Held-out pictures of the target domain", "exemplars")

    def _lay_out_between(self) -> None:
        gr.Markdown("Go from one style to another. The current style is that of the large picture above.")
        with gr.Row():
            self.start = gr.Button("Start at the current style")
            self.end = gr.Button("End at the current style")
        self.between = gr.Slider(3, MOST_BETWEEN, NUM_BETWEEN, step=1, label="Number of pictures")
        self.go = gr.Button("Show", variant="primary")
        self.strips = [
            self._picture(f"{name}: strip", f"strip-{n}", "strip") for n, name in enumerate(self.names)
        ]
        with gr.Row():
            self.animations = [
                self._picture(f"{name}: animation", f"animation-{n}") for n, name in enumerate(self.names)
            ]

    def _picture(self, label: str, place: str, kind: str = "picture") -> Any:
        return gr.Image(
            label=label,
            format="png",
            height=HEIGHT if kind == "picture" else None,
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_id=place,
            elem_classes=[kind, *self.pixels],
        )

    def _gallery(self, label: str, place: str) -> Any:
        return gr.Gallery(
            label=label,
            format="png",
            columns=4,
            height="auto",
            object_fit="contain",
            allow_preview=False,
            interactive=False,
            elem_id=place,
            elem_classes=["grid", *self.pixels],
            buttons=[],
        )
