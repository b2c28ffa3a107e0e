"""`dspex dashboard`: show a running supervisor in a browser, until interrupted."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import tempfile
import webbrowser
from collections.abc import Generator
from pathlib import Path
from typing import Final

import click

from .exit_codes import OK
from .printing import print_json, print_line
from .shared_options import command, target_options
from .target import Target

HOST: Final = "127.0.0.1"
TOKEN_BYTES: Final = 24


@command("dashboard", more="The page is for whoever has the address that it prints; another run has another.")
@target_options
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="P", help="On loopback (default: any).")
@click.option("--open/--no-open", "opens", default=True, help="Whether to open a browser (default: yes).")
@click.option("--operate", is_flag=True, help="Let the page cancel calls.")
def dashboard(target: Target, port: int, opens: bool, operate: bool, as_json: bool) -> int:
    """Serve the page until SIGTERM or SIGINT."""
    from ..serving.asgi import require_installed
    from .process_privacy import hide_from_workers

    require_installed("starlette", "serve")
    require_installed("uvicorn", "serve")
    from ..dashboard.page_app import dashboard as page
    from ..dashboard.sources import ServiceSource
    from ..serving.http_server import address_of, bound, serve

    with target.connect():
        pass  # what is wrong is said before anything is served
    hide_from_workers()
    token = secrets.token_urlsafe(TOKEN_BYTES)
    app = page(ServiceSource(target.connect), token=token, operate=operate)
    listener = bound(HOST, port)
    address = f"{address_of(listener)}/#{token}"

    with _opening_file(address) as file:

        def told() -> None:
            if as_json:
                print_json({"address": address}, indent=None)
            else:
                print_line(address)
            if opens and _has_screen():
                webbrowser.open(file.as_uri())

        serve(app, listener, grace=0.0, on_ready=told)
    return OK


@contextlib.contextmanager
def _opening_file(address: str) -> Generator[Path]:
    """Yield a private file that leads to the page: all can see a browser's command line, and a token in it."""
    number, name = tempfile.mkstemp(prefix="dspex-", suffix=".html")
    with os.fdopen(number, "w") as file:
        file.write(f'<meta http-equiv="refresh" content="0; url={address}">')
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _has_screen() -> bool:
    """Whether a browser would have a window: one in the terminal would take it from this command."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
