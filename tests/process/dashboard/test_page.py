"""Process: the page in a real browser shows a real supervisor live, floods and lost connections included."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.control import Service
from dspex.control.command_client import DirectClient
from dspex.dashboard.page_app import dashboard
from dspex.dashboard.sources import ServiceSource
from dspex.errors import CallCancelled, WorkerDied
from dspex.events import Name
from tests.support.dashboard.browser import chromium, page_in
from tests.support.dashboard.told_source import ToldSource
from tests.support.service import folder
from tests.support.serving.served import Served
from tests.support.waiting import PATIENCE, eventually

__all__ = ["folder"]
TOKEN = "the-token-of-the-page"
PATIENCE_MS = 1000 * PATIENCE
FLOOD, FLOOD_RATE = 6000, 1500  # events, and how many of them a second


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """No check after each test here: the module's supervisor replaces a worker, and the browser stays."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    pool = dspex.PoolConfig("faults", bridge="faults", size=1, concurrency=4, memory_cap="300MiB")
    with dspex.Supervisor(pools=[pool]) as running:
        yield running.wait_ready()


def address(served: Served) -> str:
    return f"{served.url}/#{TOKEN}"


def shows(page: Any, selector: str, text: str) -> None:
    page.locator(selector).filter(has_text=text).first.wait_for(timeout=PATIENCE_MS)


def titled(page: Any, text: str) -> None:
    eventually(lambda: page.title().startswith(text), what=f"the title begins with {text!r}")


def test_calls_workers_and_restarts_of_a_service_are_seen_and_a_call_is_cancelled(
    sup: dspex.Supervisor, folder: Path, browser: Any
) -> None:
    """The whole way: worker, control socket, page; the cancelled call's caller is told."""
    with Service(sup) as service, ThreadPoolExecutor(1) as threads:
        source = ServiceSource(lambda: DirectClient(service.path))
        with Served(dashboard(source, token=TOKEN, operate=True)) as served, page_in(browser, address(served)) as page:
            shows(page, "#pools article", "faults/0")
            assert "300 MiB" in page.locator("#pools .bar").first.inner_text()
            assert TOKEN not in page.url
            with pytest.raises(WorkerDied):
                sup.call("faults", "exit", {"code": 3})
            shows(page, "#restarts tbody", "worker.died")
            slow = threads.submit(sup.call, "faults", "sleep", {"seconds": 60}, session="a session")
            shows(page, "#calls tbody", "a session")
            titled(page, "ready, 1 running")
            page.locator("#calls button").click(timeout=PATIENCE_MS)
            with pytest.raises(CallCancelled):
                slow.result(PATIENCE)
            page.get_by_text("No call runs or waits.").wait_for(timeout=PATIENCE_MS)


def test_a_flood_of_events_reaches_the_page_as_a_few_pictures(sup: dspex.Supervisor, browser: Any) -> None:
    """While more than 1,000 events a second happen, the page draws and answers clicks; warnings stay."""
    with Served(dashboard(sup, token=TOKEN)) as served, page_in(browser, address(served)) as page:
        shows(page, "#pools article", "faults/0")
        page.evaluate(
            """() => {
              window.pictures = 0; window.clicks = 0;
              const drawn = new MutationObserver(() => window.pictures++);
              drawn.observe(document.getElementById("totals"), {childList: true});
              document.querySelector("h1").addEventListener("click", () => window.clicks++);
            }"""
        )
        sup.emit(Name.ROUTE_CHANGED, why="the one that matters")
        began = time.monotonic()
        for number in range(FLOOD):
            sup.emit(Name.WORKER_REPORTED, text=f"report {number}")
            if number % 150 == 149:
                page.locator("h1").click(timeout=PATIENCE_MS)
                time.sleep(max(0.0, began + number / FLOOD_RATE - time.monotonic()))
        shows(page, "#events", f"report {FLOOD - 1}")
        shows(page, "#events", "the one that matters")
        took = time.monotonic() - began
        assert page.evaluate("window.clicks") == FLOOD // 150
        assert 1 <= page.evaluate("window.pictures") <= 2 * took + 2  # pictures come once a second
        assert page.locator("#events tbody tr").count() <= 120


def test_a_lost_service_is_said_and_found_again(browser: Any) -> None:
    source = ToldSource("demo")
    with Served(dashboard(source, token=TOKEN)) as served, page_in(browser, address(served)) as page:
        shows(page, "#pools article", "demo")
        source.is_away = True
        shows(page, "#notice", "Connection lost, trying again.")
        titled(page, "connection lost")
        source.is_away = False
        titled(page, "not ready")
        assert not page.locator("#notice").is_visible()
        assert page.locator("#jobs svg path").count() > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_window(browser: Any, scheme: str, width: int) -> None:
    """Also with long names; and the two schemes differ."""
    window = {"width": width, "height": 800}
    with (
        Served(dashboard(ToldSource("a-long-name-" * 12), token=TOKEN)) as served,
        page_in(browser, address(served), viewport=window, color_scheme=scheme) as page,
    ):
        shows(page, "#pools article", "a-long-name")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (back == "rgb(15, 18, 23)") == (scheme == "dark")


def test_an_ended_server_is_said(browser: Any) -> None:
    with contextlib.ExitStack() as server:
        served = server.enter_context(Served(dashboard(ToldSource("demo"), token=TOKEN)))
        with page_in(browser, address(served)) as page:
            shows(page, "#pools article", "demo")
            server.close()
            shows(page, "#notice", "Connection lost, trying again.")


def test_the_feed_ends_with_its_threads(sup: dspex.Supervisor) -> None:
    """Whoever mounts the page in an application gets its threads back."""
    with Served(dashboard(sup, token=TOKEN)):
        eventually(lambda: any(one.name == "dspex-dashboard" for one in threading.enumerate()))
    assert not any(one.name.startswith("dspex-dashboard") for one in threading.enumerate())
