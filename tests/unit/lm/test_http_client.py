"""Collaboration: the HTTP client against a scripted peer that sends exactly the bytes it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex.errors import LMConfigurationError, LMTimeoutError, LMTransportError, LMUnexpectedError
from dspex.lm.http.async_client import AsyncHttp
from dspex.lm.http.blocking_client import BlockingHttp
from dspex.lm.http.endpoint import Endpoint, target_of
from dspex.lm.http.http_message import Reply, ResponseParser, request_head
from tests.support.lm.peer import Peer

WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX-Id: a\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=1\r\nlo\r\n0\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\n\r\nhello"


Post = Callable[..., Reply]


@pytest.fixture(params=["blocking", "loop"])
def post(request: pytest.FixtureRequest) -> Iterator[Post]:
    """One POST through either driver; connections are kept between calls."""
    if request.param == "blocking":
        http = BlockingHttp()

        def send(url: str, *, timeout: float = 5.0, proxy: str = "") -> Reply:
            target = target_of(url, proxy)
            return http.send(target, head_for(target), b"{}", timeout)

        send.close = http.close  # type: ignore[attr-defined]
        yield send
        http.close()
        return
    loop_http = AsyncHttp()
    runner = asyncio.Runner()

    def asend(url: str, *, timeout: float = 5.0, proxy: str = "") -> Reply:
        target = target_of(url, proxy)
        return runner.run(loop_http.send(target, head_for(target), b"{}", timeout))

    asend.close = lambda: runner.run(loop_http.aclose())  # type: ignore[attr-defined]
    yield asend
    runner.close()


def head_for(target: Endpoint) -> bytes:
    return request_head("POST", target.path, target.host, [("content-type", "application/json")])


@pytest.mark.parametrize("raw", [WHOLE, CHUNKED, CLOSING, b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE])
def test_body_is_read_however_it_is_framed(raw: bytes, peer: Callable[..., Peer], post: Post) -> None:
    """contract: content-length, chunks, close-delimited, and an interim response before the real one."""
    server = peer([raw])
    reply = post(server.url)
    assert (reply.status, reply.body) == (200, b"hello")
    assert b"POST /v1/x HTTP/1.1\r\nhost: 127.0.0.1:" in server.received[0]
    assert server.received[0].endswith(b"content-length: 2\r\n\r\n{}")


def test_connection_is_kept_for_the_next_request(peer: Callable[..., Peer], post: Post) -> None:
    """contract: two requests, one connection."""
    server = peer([WHOLE, CHUNKED])
    assert [post(server.url).body, post(server.url).body] == [b"hello", b"hello"]
    assert server.accepted == 1


def test_kept_connection_that_the_peer_closed_is_replaced(peer: Callable[..., Peer], post: Post) -> None:
    """contract: a stale keep-alive connection costs a reconnect, not an error."""
    server = peer([WHOLE], [WHOLE])
    assert post(server.url).body == b"hello"
    assert post(server.url).body == b"hello"
    assert server.accepted == 2


def test_bytes_after_a_response_end_the_connection(peer: Callable[..., Peer], post: Post) -> None:
    """contract: a peer out of step never answers the next request with leftovers."""
    server = peer([WHOLE + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"], [WHOLE])
    assert post(server.url).body == b"hello"
    assert post(server.url).body == b"hello"
    assert server.accepted == 2


@pytest.mark.parametrize("raw", [WHOLE[:-2], CHUNKED[:-9], b"HTTP/1.1 200 OK\r\ncontent-le"])
def test_truncated_response_is_a_transport_error(raw: bytes, peer: Callable[..., Peer], post: Post) -> None:
    """contract: a reply that ends early is never taken for a whole one, nor sent again."""
    server = peer([raw])
    with pytest.raises(LMTransportError):
        post(server.url)
    assert server.accepted == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-5\r\n",
        b"x" * 70_000,
    ],
)
def test_peer_that_does_not_speak_http_is_reported(raw: bytes, peer: Callable[..., Peer], post: Post) -> None:
    """contract: garbage, impossible lengths and endless heads."""
    with pytest.raises(LMUnexpectedError):
        post(peer([raw]).url)


def test_silent_peer_times_out_and_its_connection_is_closed(peer: Callable[..., Peer], post: Post) -> None:
    """contract: the timeout is total, and nothing is left half open."""
    server = peer([None])
    began = time.monotonic()
    with pytest.raises(LMTimeoutError):
        post(server.url, timeout=0.1)
    assert time.monotonic() - began < 10
    server._thread.join(5)  # the peer sees the connection's end
    assert server.received[-1] == b""


def test_refused_connection_is_a_transport_error(post: Post) -> None:
    """contract: the message names the host, the error keeps its cause."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(LMTransportError, match=f"127.0.0.1:{port}") as caught:
        post(f"http://127.0.0.1:{port}/v1")
    assert isinstance(caught.value.__cause__, OSError)


def test_http_proxy_gets_the_absolute_form(peer: Callable[..., Peer], post: Post) -> None:
    """contract: plain HTTP through a proxy, with its password."""
    server = peer([WHOLE])
    port = server.url.split(":")[2].split("/")[0]
    post("http://example.invalid/v1/x?q=1", proxy=f"http://u:p%40@127.0.0.1:{port}")
    assert server.received[0].startswith(b"POST http://example.invalid/v1/x?q=1 HTTP/1.1\r\nhost: example.invalid\r\n")


def test_https_goes_through_a_tunnel(peer: Callable[..., Peer], post: Post) -> None:
    """contract: CONNECT first; a refusal is said plainly."""
    server = peer([b"HTTP/1.1 403 Forbidden\r\n\r\n"])
    port = server.url.split(":")[2].split("/")[0]
    with pytest.raises(LMTransportError, match=r"tunnel to example\.invalid"):
        post("https://example.invalid/v1", proxy=f"http://127.0.0.1:{port}")
    assert server.received[0] == b"CONNECT example.invalid:443 HTTP/1.1\r\nhost: example.invalid:443\r\n\r\n"


def test_tls_peer_with_an_unknown_certificate_is_refused(post: Post) -> None:
    """contract: verification is on; a peer that is not TLS at all is a transport error."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"this is not TLS\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(LMTransportError) as caught:
            post(f"https://127.0.0.1:{port}/v1")
        thread.join()
    assert isinstance(caught.value.__cause__, ssl.SSLError | OSError)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 and its key, in one file, made for this run."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("tls")
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*made.split(), *names], cwd=folder, check=True, capture_output=True)
    (folder / "both.pem").write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return folder / "both.pem"


@pytest.mark.parametrize("tunnelled", [False, True])
def test_https_works_directly_and_through_a_tunnel(
    tunnelled: bool, certificate: Path, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """contract: a real handshake, verified against the authority; the second request reuses the connection."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate)
    accepted: list[int] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        accepted.append(1)
        if tunnelled:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with serving.wrap_socket(connection, server_side=True) as secured:
            for _ in range(2):
                secured.recv(65536)
                secured.sendall(CHUNKED)
            secured.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        url = "https://localhost:9/v1" if tunnelled else f"https://127.0.0.1:{port}/v1"
        proxy = f"http://127.0.0.1:{port}" if tunnelled else ""
        assert [post(url, proxy=proxy).body for _ in range(2)] == [b"hello", b"hello"]
        assert accepted == [1]
        post.close()  # type: ignore[attr-defined]
        thread.join(10)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([WHOLE, CHUNKED]), st.lists(st.integers(1, 40), min_size=1, max_size=40))
def test_parser_does_not_care_how_bytes_are_cut(raw: bytes, cuts: list[int]) -> None:
    """unit: every split of the stream gives the same response."""
    parser = ResponseParser()
    body = b""
    at = 0
    for cut in [*cuts, len(raw)]:
        if at < len(raw):
            parser.feed(raw[at : at + cut])
            body += parser.take()
            at += cut
    assert parser.complete
    assert body == b"hello"
    assert parser.reusable


def test_header_injection_is_refused() -> None:
    """unit: no header may end its line."""
    with pytest.raises(ValueError, match="line break"):
        request_head("POST", "/", "h", [("a", "b\r\nx: y")])


@pytest.mark.parametrize("url", ["ftp://h/x", "//h/x", "http:///x", "http://h/a b", "h", "http://u:p@h/x"])
def test_url_that_is_not_http_is_refused(url: str) -> None:
    """unit: the base URL must be one."""
    with pytest.raises(LMConfigurationError):
        target_of(url)


def test_ctrl_c_interrupts_a_blocking_request(peer: Callable[..., Peer]) -> None:
    """process: KeyboardInterrupt arrives while the main thread waits for the reply, and at once."""
    server = peer([None])
    code = (
        "import sys\n"
        "from dspex.lm.http.blocking_client import BlockingHttp\n"
        "from dspex.lm.http.endpoint import target_of\n"
        f"t = target_of({server.url!r})\n"
        "try:\n"
        "    BlockingHttp().send(t, b'POST /v1/x HTTP/1.1\\r\\nhost: h\\r\\ncontent-length: ', b'{}', 60.0)\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(42)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    deadline = time.monotonic() + 20
    while not server.received and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 42


def test_loop_that_ends_closes_its_connections(peer: Callable[..., Peer]) -> None:
    """contract: asyncio.run leaves no transport behind (an unclosed one is a warning, and warnings are errors here)."""
    server = peer([WHOLE], [WHOLE])
    http = AsyncHttp()
    target = target_of(server.url)

    async def once() -> bytes:
        return (await http.send(target, head_for(target), b"{}", 5.0)).body

    assert asyncio.run(once()) == b"hello"
    assert asyncio.run(once()) == b"hello"
    assert server.accepted == 2


def test_cancelled_task_closes_its_connection_at_once(peer: Callable[..., Peer]) -> None:
    """contract: cancelling is closing (K1)."""
    server = peer([None])
    http = AsyncHttp()
    target = target_of(server.url)

    async def run() -> float:
        task = asyncio.create_task(http.send(target, head_for(target), b"{}", 30.0))
        while not server.received:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    assert asyncio.run(run()) < 10  # its timeout is 30
    server._thread.join(5)
    assert server.received[-1] == b""


def test_slow_reader_does_not_make_the_body_pile_up(peer: Callable[..., Peer]) -> None:
    """contract: a streamed body waits in the peer, not in our memory."""
    size = 8 * 1024 * 1024
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size
    server = peer([raw])
    http = AsyncHttp()
    target = target_of(server.url)

    async def run() -> tuple[int, int]:
        stream = await http.stream(target, head_for(target), b"{}", 10.0)
        held: Any = stream._connection
        async with asyncio.timeout(10):
            while not held._paused:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        waiting = sum(map(len, held.parser.chunks))
        total = 0
        async for part in stream:
            total += len(part)
        return waiting, total

    waiting, total = asyncio.run(run())
    assert total == size
    assert waiting < 1024 * 1024


def test_forked_child_uses_connections_of_its_own(peer: Callable[..., Peer]) -> None:
    """process: after os.fork the child dials anew and the parent's connection stays usable."""
    server = peer([WHOLE, WHOLE])
    other = peer([WHOLE])
    http = BlockingHttp()
    target, second = target_of(server.url), target_of(other.url)
    http.send(target, head_for(target), b"{}", 5.0)
    pid = os.fork()
    if pid == 0:
        try:
            ok = http.send(second, head_for(second), b"{}", 5.0).body == b"hello" and not http._pool.count(target)
            os._exit(0 if ok else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert http.send(target, head_for(target), b"{}", 5.0).body == b"hello"
    assert server.accepted == 1
    http.close()


def test_bytes_that_nobody_asked_for_answer_no_later_request() -> None:
    """collaboration: a peer that says more than its length said, a moment later; the connection is not used again."""
    again = threading.Event()
    said = threading.Event()

    def serve() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(WHOLE)
                if not said.is_set():
                    again.wait(20)
                    connection.sendall(WHOLE.replace(b"hello", b"wrong"))
                    said.set()
                with contextlib.suppress(ConnectionResetError):
                    connection.recv(65536)  # until the client closes

    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.closing(BlockingHttp()) as http:
        listener.settimeout(10)
        thread = threading.Thread(target=serve)
        thread.start()
        target = target_of(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", "")
        bodies = [http.send(target, head_for(target), b"{}", 20).body]
        again.set()
        assert said.wait(20)
        bodies.append(http.send(target, head_for(target), b"{}", 20).body)
        http.close()
        thread.join()
    assert bodies == [b"hello", b"hello"]


def test_trailers_without_end_are_refused() -> None:
    """unit"""
    parser = ResponseParser()
    parser.feed(CHUNKED.removesuffix(b"\r\n"))
    with pytest.raises(LMUnexpectedError, match="trailers"):
        for _ in range(100):
            parser.feed(b"x: " + b"y" * 1000 + b"\r\n")


def test_refusal_of_each_of_a_names_addresses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """collaboration: localhost is two addresses on many machines, and nobody listens at either."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    target = target_of(f"http://localhost:{port}/v1", "")
    with pytest.raises(LMTransportError, match=r"127\.0\.0\.1.*127\.0\.0\.2"):
        asyncio.run(AsyncHttp().send(target, head_for(target), b"{}", 5))


def test_no_proxy_may_name_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit"""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "port.example:8123,host.example")
    urls = ["http://port.example:8123/v1", "http://port.example/v1", "http://host.example:7/v1", "http://other.example"]
    reached = [target_of(url).address[0] for url in urls]
    assert reached == ["port.example", "127.0.0.1", "host.example", "127.0.0.1"]
