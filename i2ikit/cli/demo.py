"""The command `demo`."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.markup import escape

from i2ikit.cli.options import DeviceOption, console, given_path

__all__ = ["demo"]


def demo(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN]...",
            parser=given_path,
            help="Run folders or exported .onnx files, side by side (default: the newest run in ./runs).",
        ),
    ] = None,
    device: DeviceOption = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines use the page.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port (default: the first free one from 7860 on)."),
    ] = None,
) -> None:
    """Open a page to play with trained translators in the browser.

    Drop a picture and see it in many styles; move sliders, follow exemplars, go from one style to another.
    A run may still be training: the page shows its newest weights.
    """
    with _ended_by_signals(), _private_gradio():
        from i2ikit.demo.live import LiveModel, opened
        from i2ikit.demo.serving import serve
        from i2ikit.demo.studio import Studio

        models = []
        for given in runs if runs else [None]:
            for found in opened(given, device):
                if isinstance(found, LiveModel):
                    models.append(found)
                else:
                    console.print(escape(found), highlight=False, soft_wrap=True)
        studio = Studio(models)
        console.print("Starting the page ...", highlight=False)
        serve(studio, host, port, _announce)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the command so that its files are removed."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    # Windows has no SIGHUP; nohup ignores it, and that stays.
    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    previous = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if previous[number] is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    except KeyboardInterrupt:
        console.print("Stopped.")
        raise typer.Exit(128 + signal.SIGINT) from None
    finally:
        for number in numbers:
            signal.signal(number, previous[number])


@contextlib.contextmanager
def _private_gradio() -> Iterator[None]:
    """Import gradio; it reports nothing to its makers, and its files are removed at the end.

    It reads these variables when it is imported.

    Raises:
        WeightsError: it is not installed.
    """
    from i2ikit.optional import optional_package

    with tempfile.TemporaryDirectory(prefix="i2ikit-demo-", ignore_cleanup_errors=True) as folder:
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}
        optional_package("gradio", "the demo", "demo")  # before anything that takes long
        yield


def _announce(address: str) -> None:
    text = f"Open [bold]{escape(address)}[/] in a browser. Ctrl-C stops."
    console.print(text, highlight=False, soft_wrap=True)
