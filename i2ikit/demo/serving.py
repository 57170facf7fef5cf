"""The server of the demo page, on this machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import gradio as gr

from i2ikit.demo.page import Page
from i2ikit.demo.studio import Studio
from i2ikit.errors import RunError, in_one_line

__all__ = ["serve"]

MOST_UPLOADED = 100_000_000  # bytes
SESSIONS = 20  # browser tabs whose state is kept; its held-out images take some megabytes

STYLE = """
.picture img, .grid img { width: 100% !important; height: 100% !important; object-fit: contain !important; }
.strip img { width: 100% !important; object-fit: contain !important; }
.strip [data-testid="block-label"] { position: static !important; }
.small img { image-rendering: pixelated; }
.grid .grid-wrap { height: auto !important; max-height: none !important; overflow: hidden; }
.grid .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important; }
#note { border-left: 4px solid #d9822b; padding: 0.5em 1em; }
footer { display: none !important; }
"""


def serve(
    studio: Studio, host: str, port: int | None, said: Callable[[str], None], stop: threading.Event
) -> None:
    """Serve the page until `stop` is set or Ctrl-C is pressed.

    Args:
        host: address to listen at; "127.0.0.1" is reached from this machine only.
        port: None chooses the first free one from 7860 on.
        said: is given the address of the page.

    Raises:
        RunError: the port is in use, or the server cannot be started.
    """
    _check_address(host, port)
    page = Page(studio)
    try:
        _, address, _ = page.blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            max_file_size=MOST_UPLOADED,
            state_session_capacity=SESSIONS,
            theme=gr.themes.Default(font=["system-ui"], font_mono=["monospace"]),  # none from the internet
            css=STYLE,
        )
    except (OSError, ValueError) as error:
        raise RunError(f"cannot serve the page at {host}: {in_one_line(error)}") from error
    try:
        said(address)
        stop.wait()
    finally:
        page.blocks.close(verbose=False)


def _check_address(host: str, port: int | None) -> None:
    """Check that one can listen at an address; gradio's own message does not say why one cannot.

    Raises:
        RunError: one cannot.
    """
    try:
        family = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port or 0), family=family).close()
    except OSError as error:
        place = f"{host}, port {port}" if port else host
        raise RunError(
            f"cannot serve the page at {place}: {error.strerror}; give another --port or --host"
        ) from error
