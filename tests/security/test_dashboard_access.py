"""Security: what a stranger, another site and a hostile text can do to the page."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from dspex.dashboard.page_app import PAGES_MOST, dashboard
from dspex.errors import SettingsError
from tests.support.dashboard.browser import chromium, page_in
from tests.support.dashboard.told_source import ToldSource
from tests.support.serving.served import Served
from tests.support.waiting import PATIENCE, eventually

TOKEN = "the-token-of-the-page"
BEARER = {"authorization": f"Bearer {TOKEN}"}
WRONG = (None, "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN)
MARKUP = (
    "<img src=x onerror=alert(1)><script>alert(2)</script>\"' onmouseover='alert(3)' <svg/onload=alert(4)>"
    "</style></script><b class=injected>\u2028${alert(5)}`"
)


@pytest.fixture(scope="module")
def source() -> ToldSource:
    return ToldSource(MARKUP)


@pytest.fixture(scope="module")
def served(source: ToldSource) -> Iterator[Served]:
    with Served(dashboard(source, token=TOKEN, operate=True)) as running:
        yield running


@pytest.mark.parametrize("header", WRONG)
@pytest.mark.parametrize(("verb", "path"), [("GET", "/feed"), ("POST", "/calls/7/cancel"), ("GET", "/unknown")])
def test_without_the_token_nothing_is_seen_or_done(
    served: Served, source: ToldSource, header: str | None, verb: str, path: str
) -> None:
    """Also not by a token in the query or a cookie, which other sites could make a browser send."""
    given = {} if header is None else {"authorization": header}
    answer = httpx.request(verb, f"{served.url}{path}?token={TOKEN}", headers={**given, "cookie": f"token={TOKEN}"})
    assert answer.status_code == 401
    assert MARKUP not in answer.text
    assert source.cancelled == []


@pytest.mark.parametrize("path", ["/", "/feed"])
def test_another_host_name_is_refused(served: Served, path: str) -> None:
    answer = httpx.get(f"{served.url}{path}", headers={**BEARER, "host": "evil.example"})
    assert answer.status_code == 421


def test_the_document_lets_its_own_script_run_and_nothing_else(served: Served) -> None:
    """It holds no secret; its policy names its own script and style, and no site may frame or read it."""
    answer = httpx.get(served.url, headers={"origin": "https://evil.example"})
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
    script = answer.text.partition("<script>")[2].rpartition("</script>")[0]
    assert f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "access-control-allow-origin" not in answer.headers
    assert TOKEN not in answer.text and "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in answer.text


def test_whoever_only_looks_cancels_nothing() -> None:
    source = ToldSource("demo")
    with Served(dashboard(source, token=TOKEN)) as served:
        assert httpx.post(f"{served.url}/calls/7/cancel", headers=BEARER).status_code == 403
        assert httpx.get(f"{served.url}/calls/7/cancel", headers=BEARER).status_code == 405
    assert source.cancelled == []


def test_open_pages_are_bounded_and_their_places_come_back(served: Served) -> None:
    """A page that is closed leaves its place to another."""

    def status() -> int:
        with client.stream("GET", f"{served.url}/feed", headers=BEARER) as answer:
            return answer.status_code

    with httpx.Client(limits=httpx.Limits(max_connections=None)) as client:
        opened = [client.stream("GET", f"{served.url}/feed", headers=BEARER) for _ in range(PAGES_MOST)]
        assert {one.__enter__().status_code for one in opened} == {200}
        assert status() == 503
        for one in opened:
            one.__exit__(None, None, None)
        eventually(lambda: status() == 200)


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak"])
def test_a_token_that_no_header_holds_is_refused(token: str) -> None:
    with pytest.raises(SettingsError, match="token"):
        dashboard(ToldSource("demo"), token=token)


def test_markup_in_any_text_stays_text(served: Served, source: ToldSource) -> None:
    """In names of pools, workers, commands, programs, sessions, clients, jobs, models, reasons, and in events."""
    with chromium() as browser, page_in(browser, f"{served.url}/#{TOKEN}") as page:
        page.locator("#pools article").wait_for(timeout=1000 * PATIENCE)
        for name in ("dspex.worker.died", MARKUP):
            facts = {"pool": MARKUP, MARKUP: MARKUP, "reason": MARKUP}
            source.take({"time": 1.0, "name": name, "level": 40, "facts": facts})
        page.locator("#restarts tbody").first.wait_for(timeout=1000 * PATIENCE)
        sections: list[Any] = page.locator("main > section, .pair > section").all()
        assert len(sections) == 9
        assert all("<img src=x onerror=alert(1)>" in one.inner_text() for one in sections[1:])
        assert page.locator("main img, main script, main style, main .injected, main [onmouseover]").count() == 0
        assert "<img src=x" in page.title()
