"""A headless Chromium for the tests of the page, and the page of a source in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a browser; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("the page is tested in Chromium, which is not here (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page_in(browser: Any, address: str, **context: Any) -> Iterator[Any]:
    """Yield the page at an address; fails if its script raised or its policy refused anything."""
    wrong: list[str] = []
    made = browser.new_context(**context)
    page = made.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    try:
        page.goto(address)
        yield page
        assert not wrong
    except Exception as error:
        error.add_note(f"the page said: {wrong}")
        raise
    finally:
        made.close()
