"""Collaboration: an endpoint or a proxy that behaves badly; and the key: no message shows it, no other host gets it."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from dspex.errors import (
    LMError,
    LMInvalidRequestError,
    LMProviderError,
    LMServerError,
    LMTimeoutError,
    LMUnexpectedError,
)
from dspex.lm.completion import Completion
from dspex.lm.http.endpoint import target_of
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from dspex.lm.redaction import redact
from dspex.lm.response import PIECE_BYTES
from dspex.testing import FakeLM, FakeReply
from tests.support.lm.peer import BODY, Peer, chunked, http
from tests.support.lm.requests import ASK, forwarded

pytestmark = pytest.mark.usefixtures("short_pauses")

Fake = Callable[..., FakeLM]
Complete = Callable[..., Completion]
KEY = "sk-canary-4242424242"


@pytest.fixture(params=["complete", "acomplete"])
def complete(request: pytest.FixtureRequest, client: LMClient) -> Complete:
    """A call on either driver through the same policy."""
    if request.param == "complete":
        return client.complete

    def ask(*args: Any, **kwargs: Any) -> Completion:
        async def whole() -> Completion:
            try:
                return await client.acomplete(*args, **kwargs)
            finally:
                await client.aclose()

        return asyncio.run(whole())

    return ask


def _lm(peer: Peer, **options: Any) -> LM:
    return LM("openai/m", api_base=peer.url.removesuffix("/x"), api_key=KEY, **{"cache": False, **options})


@pytest.mark.parametrize(
    "raw",
    [
        http(version="1.0"),
        http(BODY, "200 OK", "connection: close"),
        b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + http(),
        chunked(BODY[:1], BODY[1:50], BODY[50:], last=b"0\r\nx-trailer: 1\r\n\r\n"),
        http(b"\xef\xbb\xbf" + BODY),
        http(b"\n\n " + BODY + b"\r\n\r\n"),
    ],
    ids=["http 1.0", "close", "no length", "interim", "trailers", "bom", "blanks"],
)
def test_odd_but_whole_answers_are_read(raw: bytes, peer: Callable[..., Peer], complete: Complete) -> None:
    """collaboration"""
    assert complete(_lm(peer([raw])), ASK).text == "fine"


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (http(b"<html>\n<h1>It works</h1>"), LMProviderError),
        (http(b"null"), LMProviderError),
        (http(b"{"), LMProviderError),
        (http(b""), LMProviderError),
        (http(gzip.compress(BODY), "200 OK", "content-encoding: snappy"), LMProviderError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{", LMUnexpectedError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n{", LMUnexpectedError),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffff\r\n{", LMUnexpectedError),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000, LMUnexpectedError),
        (http(b"{}", "302 Found", "location: http://127.0.0.1:9/elsewhere"), LMProviderError),
        (http(b"", "304 Not Modified"), LMProviderError),
    ],
    ids=["html", "null", "cut json", "empty", "gzip", "huge", "negative", "huge chunk", "head", "redirect", "304"],
)
def test_answer_that_is_none_is_a_final_error(
    raw: bytes, kind: type[LMError], peer: Callable[..., Peer], complete: Complete
) -> None:
    """collaboration: told at once, not asked again, and nothing of the body but its size in the message."""
    served = peer([raw, raw])
    with pytest.raises(kind) as caught:
        complete(_lm(served), ASK)
    assert served.accepted == 1 and KEY not in str(caught.value)


def test_html_error_pages_are_their_status(peer: Callable[..., Peer], complete: Complete) -> None:
    """collaboration: a gateway's page behind a 502 is retried like any 502."""
    page = http(b"<html><body>Bad gateway " + KEY.encode() + b"</body></html>", "502 Bad Gateway")
    served = peer([page, page], [page, page])
    with pytest.raises(LMServerError) as caught:
        complete(_lm(served, retries=1), ASK)
    assert caught.value.status == 502 and KEY not in str(caught.value)
    assert sum(data.count(b"POST ") for data in served.received) == 2


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 529, 408])
def test_temporary_statuses_are_tried_again(status: int, peer: Callable[..., Peer], complete: Complete) -> None:
    """collaboration: whatever the body says."""
    served = peer([http(b"busy", f"{status} Later"), http()])
    assert complete(_lm(served), ASK).attempts == 2


@pytest.mark.parametrize(
    "cut",
    [
        http()[:-5],
        chunked(BODY[:20], last=b""),
        chunked(BODY, last=b""),
        chunked(BODY, last=b"5\r\nab"),
        b"HTTP/1.1 200 OK\r\nconte",
        b"",
    ],
    ids=["length", "chunk", "no last chunk", "inside a chunk", "head", "nothing"],
)
def test_connection_that_ends_inside_an_answer_is_tried_again(
    cut: bytes, peer: Callable[..., Peer], complete: Complete
) -> None:
    """collaboration: half an answer is none; a body that ends before its last chunk too."""
    served = peer([cut], [http()])
    answer = complete(_lm(served), ASK)
    assert answer.text == "fine" and served.accepted == 2


def test_reset_connection_is_tried_again(complete: Complete) -> None:
    """collaboration: RST instead of an answer."""
    listener = socket.create_server(("127.0.0.1", 0))
    lm = LM("openai/m", api_base=f"http://127.0.0.1:{listener.getsockname()[1]}/v1", api_key=KEY, cache=False)

    def serve() -> None:
        first, _ = listener.accept()
        first.recv(65536)
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        first.close()
        second, _ = listener.accept()
        second.recv(65536)
        second.sendall(http())
        second.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert complete(lm, ASK).attempts == 2
    finally:
        thread.join(10)
        listener.close()


def test_slow_trickle_ends_at_the_deadline(complete: Complete) -> None:
    """collaboration: bytes that keep coming do not put the deadline off."""
    listener = socket.create_server(("127.0.0.1", 0))
    lm = LM("openai/m", api_base=f"http://127.0.0.1:{listener.getsockname()[1]}/v1", api_key=KEY, cache=False)
    gone = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
            for _ in range(5000):
                connection.sendall(b"x")
                time.sleep(0.01)
        except OSError:
            gone.set()
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        began = time.monotonic()
        with pytest.raises(LMTimeoutError):
            complete(lm, ASK, deadline=began + 0.3)
        assert time.monotonic() - began < 10
        assert gone.wait(20)
    finally:
        thread.join(60)
        listener.close()


def test_half_closed_peer_is_still_read(complete: Complete) -> None:
    """collaboration: a peer that closes its sending side after the whole answer has answered."""
    listener = socket.create_server(("127.0.0.1", 0))
    lm = LM("openai/m", api_base=f"http://127.0.0.1:{listener.getsockname()[1]}/v1", api_key=KEY, cache=False)
    held: list[socket.socket] = []

    def serve() -> None:
        connection, _ = listener.accept()
        held.append(connection)
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)
        connection.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert complete(lm, ASK).text == "fine"
    finally:
        thread.join(10)
        for connection in held:
            connection.close()
        listener.close()


def test_ipv6_loopback_is_spoken_to(complete: Complete) -> None:
    """collaboration: the Host header has the brackets that the address needs."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    port = listener.getsockname()[1]
    seen: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        seen.append(connection.recv(65536))
        connection.sendall(http(BODY, "200 OK", "connection: close"))
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        lm = LM("openai/m", api_base=f"http://[::1]:{port}/v1", api_key=KEY, cache=False)
        assert complete(lm, ASK).text == "fine"
        assert f"host: [::1]:{port}\r\n".encode() in seen[0]
    finally:
        thread.join(10)
        listener.close()


def test_redirect_takes_the_key_nowhere(peer: Callable[..., Peer], complete: Complete) -> None:
    """collaboration: a redirect is an answer that is none; the other host hears nothing."""
    other = peer([http()])
    served = peer([http(b"", "307 Temporary Redirect", f"location: {other.url}")])
    with pytest.raises(LMProviderError):
        complete(_lm(served), ASK)
    assert other.accepted == 0


def test_proxys_password_and_urls_query_are_in_no_message(client: LMClient, peer: Callable[..., Peer]) -> None:
    """collaboration: of a proxy that is not there, of one that refuses, and of an endpoint with a query."""
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    secret = "hunter2hunter2"
    refusal = f"HTTP/1.1 407 Auth {secret}\r\n\r\n".encode()
    refused = peer([refusal], [refusal])
    proxies = [f"http://user:{secret}@127.0.0.1:{port}", refused.url.replace("//", f"//user:{secret}@").split("/v1")[0]]
    for proxy in proxies:
        for base in ("http://lm.invalid/v1", "https://lm.invalid/v1"):
            lm = LM("openai/m", api_base=base, api_key=KEY, cache=False, retries=0, proxy=proxy, timeout=5)
            with pytest.raises(LMError) as caught:
                client.complete(lm, ASK)
            chain, error = "", caught.value
            while error is not None:
                chain += f"{error} {error!r}"
                error = error.__cause__ or error.__context__  # type: ignore[assignment]
            assert secret not in chain and KEY not in chain, chain
            assert secret not in repr(lm)


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: {KEY}.",
        f"https://h/v1?key={KEY}&x=1",
        f"http://user:{KEY}@proxy:80/",
        f'{{"authorization": "Bearer {KEY}"}}',
        f"x-api-key: {KEY}",
        f"api_key={KEY}",
        "Basic dXNlcjpodW50ZXIy",
        "AIzaSyA1234567890123456789012345678901234",
    ],
)
def test_nothing_that_looks_like_a_key_stays_in_a_text(text: str) -> None:
    """unit: also without knowing the key."""
    shown = redact(text)
    assert KEY not in shown and "dXNlcjpodW50ZXIy" not in shown and "AIzaSyA1234" not in shown, shown


def test_refusal_that_quotes_the_key_does_not_show_it(peer: Callable[..., Peer], complete: Complete) -> None:
    """collaboration: in JSON, in plain text and in HTML; a key of no known form too."""
    odd = "Zaphod_Beeblebrox_42"
    for body in (b'{"error": {"message": "bad key ' + odd.encode() + b'"}}', b"bad key " + odd.encode()):
        served = peer([http(body, "401 Unauthorized")])
        with pytest.raises(LMError) as caught:
            complete(_lm(served).replace(api_key=odd), ASK)
        assert odd not in str(caught.value) + repr(vars(caught.value))


def test_environments_proxies_are_used_but_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: HTTPS_PROXY with its password, NO_PROXY; loopback addresses are always dialled directly."""
    monkeypatch.setenv("https_proxy", "http://user:pa%20ss@127.0.0.1:8899")
    monkeypatch.setenv("no_proxy", "skipped.invalid")
    proxied = target_of("https://proxied.invalid/v1")
    assert proxied.address == ("127.0.0.1", 8899) and proxied.tunnel is not None
    assert proxied.tunnel.startswith(b"CONNECT proxied.invalid:443 HTTP/1.1\r\n")
    assert b"proxy-authorization: Basic dXNlcjpwYSBzcw==" in proxied.tunnel
    for direct in ("https://skipped.invalid/v1", "https://127.0.0.1:1/v1", "https://[::1]:1/v1"):
        assert target_of(direct).tunnel is None


@pytest.mark.parametrize("route", ["forward", "aforward"])
def test_answer_of_any_size_reaches_a_worker_in_pieces(fake: Fake, client: LMClient, route: str) -> None:
    """collaboration: more than a frame holds, cached or not; of a refusal, an error's words."""
    text = "x" * (3 * PIECE_BYTES)
    lm = fake([text], cache=True, retries=0)
    client.register(lm.lm)
    for _ in range(2):
        head, *parts = _forwarded(client, lm.lm, route)
        assert head["status"] == 200 and text.encode() in b"".join(parts)
        assert len(parts) >= 4 and max(map(len, parts)) <= PIECE_BYTES
    refusing = fake([FakeReply(status=400, body=b"no " * PIECE_BYTES + b"never this")], retries=0)
    client.register(refusing.lm)
    with pytest.raises(LMInvalidRequestError) as refused:
        _forwarded(client, refusing.lm, route)
    assert "never this" not in repr(vars(refused.value))


def _forwarded(client: LMClient, lm: LM, route: str) -> list[Any]:
    if route == "forward":
        return list(client.forward(forwarded(lm)))

    async def gather() -> list[Any]:
        found = [item async for item in client.aforward(forwarded(lm))]
        await client.aclose()
        return found

    return asyncio.run(gather())
