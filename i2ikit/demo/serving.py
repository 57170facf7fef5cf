"""The server of the demo page, on this machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from i2ikit.demo.page import Page
from i2ikit.demo.studio import Studio
from i2ikit.errors import RunError, in_one_line

__all__ = ["serve"]

MOST_UPLOADED = 100_000_000  # bytes
LOCAL = ["127.0.0.1", "localhost"]
SESSIONS = 20  # browser tabs whose state is kept; its held-out images take some megabytes

STYLE = """
.picture img, .grid img { width: 100% !important; height: 100% !important; object-fit: contain !important; }
.strip img { width: 100% !important; object-fit: contain !important; }
.strip [data-testid="block-label"], .grid [data-testid="block-label"], .drop [data-testid="block-label"] {
  position: static !important; width: fit-content;
}
.small img { image-rendering: pixelated; }
.grid .grid-wrap { height: auto !important; max-height: none !important; min-height: 0 !important; }
.grid .grid-wrap { overflow: hidden; }
.grid .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important; }
#note { border-left: 4px solid #d9822b; padding: 0.5em 1em; }
footer { display: none !important; }
"""


def serve(studio: Studio, host: str, port: int | None, said: Callable[[str], None]) -> None:
    """Serve the page until an exception, such as that of Ctrl-C, reaches this thread.

    Args:
        host: address to listen at; "127.0.0.1" is reached from this machine only.
        port: None chooses the first free one from 7860 on.
        said: is given the address of the page; may raise, too.

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
            app_kwargs={"middleware": _middleware(host)},
            max_file_size=MOST_UPLOADED,
            state_session_capacity=SESSIONS,
            theme=gr.themes.Default(font=["system-ui"], font_mono=["monospace"]),  # none from the internet
            css=STYLE,
        )
    except (OSError, ValueError) as error:
        raise RunError(f"cannot serve the page at {host}: {in_one_line(error)}") from error
    try:
        said(address)
        threading.Event().wait()  # for ever; signals are handled meanwhile
    finally:
        page.blocks.close(verbose=False)


def _middleware(host: str) -> list[Middleware]:
    """Refuses other hosts' names for this machine, by which their pages could use the server."""
    if host not in LOCAL:
        return []
    return [Middleware(TrustedHostMiddleware, allowed_hosts=LOCAL)]


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
