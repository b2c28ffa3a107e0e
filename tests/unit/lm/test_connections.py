"""Collaboration: how connections are made: several addresses, names, a bound, sockets; by threads and by a loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import os
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dspex.errors import LMConfigurationError, LMLocalLimitError, LMTimeoutError, LMTransportError, LMUnexpectedError
from dspex.lm.http.async_client import AsyncHttp
from dspex.lm.http.blocking_client import BlockingHttp
from dspex.lm.http.content_decoder import decoder_for
from dspex.lm.http.endpoint import target_of
from dspex.lm.http.http_message import Reply, request_head
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from tests.support.lm.answering_server import AnsweringServer
from tests.support.lm.peer import BODY, Peer, http
from tests.support.lm.requests import ASK, PLAIN, STREAM, STREAMED

KEY = "canary-4242424242-canary"
Post = Callable[..., Reply]
Serve = Callable[..., AnsweringServer]


@pytest.fixture(params=["thread", "loop"])
def post(request: pytest.FixtureRequest) -> Iterator[Post]:
    """One POST by either driver."""
    if request.param == "thread":
        http = BlockingHttp()

        def send(url: str, timeout: float = 10.0) -> Reply:
            target = target_of(url, "")
            return http.send(target, request_head("POST", target.path, target.host, []), b"{}", timeout)

        yield send
        http.close()
        return
    runner, loop_http = asyncio.Runner(), AsyncHttp()

    def asend(url: str, timeout: float = 10.0) -> Reply:
        target = target_of(url, "")
        head = request_head("POST", target.path, target.host, [])
        return runner.run(loop_http.send(target, head, b"{}", timeout))

    yield asend
    runner.close()


@pytest.fixture
def serve(client: LMClient) -> Iterator[Serve]:
    made: list[AnsweringServer] = []

    def make(*given: Any, **options: Any) -> AnsweringServer:
        made.append(AnsweringServer(*given, **options))
        return made[-1]

    yield make
    client.close()
    for one in made:
        one.close()


@pytest.fixture
def black_hole() -> Iterator[Callable[[], tuple[str, int]]]:
    """Addresses that answer no SYN: listeners whose queue is full."""
    held: list[socket.socket] = []

    def make() -> tuple[str, int]:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        held.append(listener)
        for _ in range(4):
            held.append(socket.socket())
            held[-1].setblocking(False)
            held[-1].connect_ex(listener.getsockname())
        address: tuple[str, int] = listener.getsockname()
        return address

    yield make
    for one in held:
        one.close()


def _resolving(monkeypatch: pytest.MonkeyPatch, *places: tuple[Any, ...]) -> None:
    """Have every "test" host at these places, those of four parts by IPv6."""
    families = {2: socket.AF_INET, 4: socket.AF_INET6}
    found = [(families[len(place)], socket.SOCK_STREAM, 6, "", place) for place in places]
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: found if "test" in host else real(host, *rest, **more)
    )


def test_ipv6_that_is_refused_is_passed_at_once(post: Post, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """collaboration: nobody listens there, or this machine has no IPv6 at all; also of a name that has both."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    _resolving(monkeypatch, ("::1", closed, 0, 0), ("::1", closed, 0, 0), ("127.0.0.1", serve().port))
    assert post("http://lm.test/v1").status == 200
    assert post(f"http://localhost:{serve().port}/v1").status == 200, "who listens on 127.0.0.1 alone"


def test_address_that_is_dead_costs_no_more_than_its_lead(
    post: Post, serve: Serve, black_hole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: the second is tried beside it; without, the first would take the whole time."""
    _resolving(monkeypatch, black_hole(), black_hole(), ("127.0.0.1", serve().port))
    assert post("http://lm.test/v1", 8.0).status == 200


def test_deadline_holds_for_all_addresses_together(
    post: Post, black_hole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: three dead ones took three timeouts."""
    _resolving(monkeypatch, *(black_hole() for _ in range(6)))
    began = time.monotonic()
    with pytest.raises(LMTimeoutError):
        post("http://lm.test/v1", 2.0)
    assert time.monotonic() - began < 6


def test_address_that_refuses_is_passed_at_once(post: Post, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """collaboration: also IPv6, which many machines have no route for."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()
    _resolving(monkeypatch, closed, closed, ("127.0.0.1", serve().port))
    assert post("http://lm.test/v1").status == 200


def test_ipv6_that_leads_nowhere_costs_no_more_than_its_lead(
    post: Post, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: a name with both, as most have: dead IPv6 first, then IPv4 that answers."""
    try:
        dead = socket.socket(socket.AF_INET6)
        dead.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    with dead:
        dead.listen(0)
        waiting = [socket.socket(socket.AF_INET6) for _ in range(4)]
        for one in waiting:  # its queue is full: it answers no SYN
            one.setblocking(False)
            one.connect_ex(dead.getsockname())
        nowhere = ("100::1", 9, 0, 0)  # RFC 6666: thrown away, or no route
        _resolving(monkeypatch, dead.getsockname(), nowhere, ("127.0.0.1", serve().port))
        assert post("http://lm.test/v1", 8.0).status == 200
        for one in waiting:
            one.close()


def test_ipv6_endpoint_is_reached(post: Post) -> None:
    """collaboration: by its literal address."""
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(http())

    thread = threading.Thread(target=answer)
    thread.start()
    with listener:
        assert post(f"http://[::1]:{listener.getsockname()[1]}/v1").status == 200
        thread.join()


def test_name_that_takes_for_ever_does_not_pass_the_deadline(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """collaboration: getaddrinfo has no timeout of its own."""
    over = threading.Event()
    ended = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        over.wait(60)
        ended.set()
        raise socket.gaierror(-2, "late")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        with pytest.raises(LMTimeoutError):
            post("http://lm.test/v1", 0.3)
        assert not ended.is_set()
    finally:
        over.set()
        assert ended.wait(20)


def test_name_that_does_not_exist_is_told(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """collaboration: as a transport error that names it."""

    def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(LMTransportError, match=r"lm\.test.*not known"):
        post("http://lm.test/v1")


# --- the bound ---


def _lm(server: AnsweringServer, **options: Any) -> LM:
    settings = {"api_base": f"http://127.0.0.1:{server.port}/v1", "retries": 0, "timeout": 20, **options}
    return LM("openai/m", api_key=KEY, cache=False, **settings)


def test_connections_of_threads_are_bounded(serve: Serve, client: LMClient) -> None:
    """collaboration: 40 threads over 3 connections; all are answered."""
    server = serve()
    lm = _lm(server, max_connections=3)
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(client.complete(lm, ASK).text)) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == ["fine"] * 40 and server.open_most <= 3


@pytest.mark.parametrize("cancelled", [0, 50])
def test_connections_of_a_loop_are_bounded(cancelled: int, serve: Serve, client: LMClient) -> None:
    """collaboration: 300 tasks over 3 connections, some cancelled while they wait."""
    server = serve()
    lm = _lm(server, max_connections=3)

    async def run() -> list[Any]:
        tasks = [asyncio.create_task(client.acomplete(lm, ASK)) for _ in range(300)]
        await asyncio.sleep(0)
        for task in tasks[3 : 3 + 2 * cancelled : 2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        await client.aclose()
        return done

    done = asyncio.run(run())
    assert sum(isinstance(each, asyncio.CancelledError) for each in done) == cancelled
    assert sum(getattr(each, "text", None) == "fine" for each in done) == 300 - cancelled
    assert server.open_most <= 3


@pytest.mark.parametrize("way", ["complete", "acomplete"])
def test_no_connection_before_the_deadline_is_not_the_endpoints_fault(way: str, serve: Serve, client: LMClient) -> None:
    """collaboration: told by its own words, and the circuit stays closed."""
    gate = threading.Event()
    server = serve(delay=gate)
    lm = _lm(server, max_connections=1)
    held = threading.Thread(target=lambda: client.complete(lm, ASK)) if way == "complete" else None

    async def run() -> list[Any]:
        first = asyncio.create_task(client.acomplete(lm, ASK))
        while not server.heads:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        end = time.monotonic() + 0.2
        rest = await asyncio.gather(
            *(client.acomplete(lm, ASK, deadline=end) for _ in range(15)), return_exceptions=True
        )
        gate.set()
        assert (await first).text == "fine"
        await client.aclose()
        return rest

    if held is None:
        errors: list[Any] = asyncio.run(run())
    else:
        held.start()
        while not server.heads:
            threading.Event().wait(0.005)
        errors = []
        for _ in range(12):
            with pytest.raises(LMTimeoutError) as caught:
                client.complete(lm, ASK, deadline=time.monotonic() + 0.05)
            errors.append(caught.value)
        gate.set()
        held.join(20)
    assert all("max_connections" in str(error) and error.code == "connection_limit" for error in errors)
    assert "fine" in PLAIN[way](client, lm)


def test_many_requests_fit_few_descriptors() -> None:
    """process: 3,000 at once with 256 descriptors, to an endpoint that takes its time."""
    code = """
import asyncio, collections, resource
from benchmarks.endpoint import Endpoint
import dspex
async def ask(lm, at):
    try:
        return (await dspex.apredict("q -> answer", {"q": str(at)}, lm=lm)).answer
    except Exception as error:
        return f"{type(error).__name__}: {error}"
async def main(lm):
    return collections.Counter(await asyncio.gather(*(ask(lm, at) for at in range(3000))))
with Endpoint(0.02) as base:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    lm = dspex.LM("openai/m", api_base=base, api_key="k", cache=False, retries=0)
    print(dict(asyncio.run(main(lm))))
"""
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((root, f"{root}/workers"))},
    )
    assert done.stdout.strip() == "{'4': 3000}", done.stderr[-1000:]


@pytest.mark.parametrize("way", PLAIN)
def test_want_of_descriptors_is_not_the_endpoints_fault(
    way: str, serve: Serve, client: LMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: a class of its own, which may be tried again; the circuit stays closed."""
    monkeypatch.setattr("dspex.lm.http.blocking_client.CONNECT_TIMEOUT_S", 0.1)
    monkeypatch.setattr("dspex.lm.http.async_client.CONNECT_TIMEOUT_S", 0.1)
    lm = _lm(serve())
    real = socket.socket

    class Full(real):  # type: ignore[misc, valid-type]
        def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: Any = None) -> None:
            if fileno is None and family in (socket.AF_INET, socket.AF_INET6):
                raise OSError(errno.EMFILE, "Too many open files")
            super().__init__(family, type, proto, fileno)

    with monkeypatch.context() as full:
        full.setattr(socket, "socket", Full)
        for _ in range(12):
            with pytest.raises(LMLocalLimitError, match="ulimit -n") as caught:
                PLAIN[way](client, lm)
    assert caught.value.retryable == "now"
    assert "fine" in PLAIN[way](client, lm)


# --- Unix sockets ---


@pytest.mark.parametrize("form", ["unix://{}", "http+unix://{quoted}/v1"])
@pytest.mark.parametrize("way", PLAIN)
def test_local_server_behind_a_socket(way: str, form: str, serve: Serve, client: LMClient, tmp_path: Path) -> None:
    """collaboration: by either form of its address; the environment's proxy has no part in it."""
    path = str(tmp_path / "lm.sock")
    server = serve(path=path)
    lm = _lm(server, api_base=form.format(path, quoted=path.replace("/", "%2F")), proxy="http://127.0.0.1:1")
    assert "fine" in PLAIN[way](client, lm)
    assert "fine" in PLAIN[way](client, lm)
    assert server.accepted in (1, 2)
    assert server.heads[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")


def test_socket_whose_queue_is_full_is_tried_again(serve: Serve, client: LMClient, tmp_path: Path) -> None:
    """collaboration: 100 at once, where 8 may wait."""
    path = str(tmp_path / "lm.sock")
    lm = _lm(serve(path=path), api_base=f"unix://{path}")

    async def run() -> list[str]:
        found = await asyncio.gather(*(client.acomplete(lm, ASK) for _ in range(100)))
        await client.aclose()
        return [each.text for each in found]

    assert asyncio.run(run()) == ["fine"] * 100


@pytest.mark.parametrize("way", PLAIN)
def test_socket_that_is_not_there_is_named(way: str, client: LMClient, tmp_path: Path) -> None:
    """collaboration"""
    lm = LM("openai/m", api_key=KEY, api_base=f"unix://{tmp_path}/none.sock", cache=False, retries=0)
    with pytest.raises(LMTransportError, match=r"none\.sock: No such file"):
        PLAIN[way](client, lm)


@pytest.mark.parametrize(
    "base",
    ["unix://run/x.sock", "http+unix://run", "http+unix://%2Frun%0A/v1", f"unix:///{'x' * 200}", "https+unix://x"],
)
def test_socket_that_none_can_be_is_refused(base: str) -> None:
    """unit: when the record is made."""
    with pytest.raises(LMConfigurationError):
        LM("openai/m", api_key=KEY, api_base=base)


# --- bodies that were compressed all the same ---

EVENTS = b'data: {"choices": [{"delta": {"content": "fine"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


def _raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


def _packed(coding: str, body: bytes) -> bytes:
    if coding == "br":
        return bytes(pytest.importorskip("brotli").compress(body))
    if coding == "zstd":
        return bytes(pytest.importorskip("zstandard").compress(body))
    return {"gzip": gzip.compress, "deflate": zlib.compress, "raw": _raw_deflate}[coding](body)


CODINGS = ("gzip", "deflate", "raw", "br", "zstd")


@pytest.mark.parametrize("way", PLAIN)
@pytest.mark.parametrize("coding", CODINGS)
def test_compressed_answer_is_read(coding: str, way: str, serve: Serve, client: LMClient) -> None:
    """collaboration: and what a worker gets is plain."""
    name = "deflate" if coding == "raw" else coding
    server = serve(http(_packed(coding, BODY), "200 OK", f"Content-Encoding: {name}"))
    assert "fine" in PLAIN[way](client, _lm(server))


@pytest.mark.parametrize("way", STREAMED)
@pytest.mark.parametrize("coding", CODINGS)
def test_compressed_stream_is_read(coding: str, way: str, serve: Serve, client: LMClient) -> None:
    """collaboration: in chunks of one byte."""
    name = "deflate" if coding == "raw" else coding
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in _packed(coding, EVENTS)) + b"0\r\n\r\n"
    head = f"HTTP/1.1 200 OK\r\n{STREAM}\r\ncontent-encoding: {name}\r\ntransfer-encoding: chunked\r\n\r\n"
    assert "fine" in STREAMED[way](client, _lm(serve(head.encode() + body)))


@pytest.mark.parametrize("coding", CODINGS)
def test_body_that_unpacks_to_too_much_is_refused(coding: str, post: Post, serve: Serve) -> None:
    """collaboration: 300 MiB of zeros."""
    name = "deflate" if coding == "raw" else coding
    server = serve(http(_packed(coding, bytes(300 * 1024 * 1024)), "200 OK", f"content-encoding: {name}"))
    with pytest.raises(LMUnexpectedError, match="unpacks to more"):
        post(f"http://127.0.0.1:{server.port}/v1")


@pytest.mark.parametrize(("body", "kind"), [(b"not gzip", LMUnexpectedError), (gzip.compress(BODY)[:-4], Exception)])
def test_body_that_is_not_what_it_says_is_refused(
    body: bytes, kind: type[Exception], post: Post, peer: Callable[..., Peer]
) -> None:
    """collaboration: of another kind, or cut short."""
    with pytest.raises((LMUnexpectedError, LMTransportError)) as caught:
        post(peer([http(body, "200 OK", "content-encoding: gzip")]).url)
    assert isinstance(caught.value, kind)


@pytest.mark.parametrize("said", ["snappy", "gzip, gzip", "gzip\r\ncontent-encoding: br"])
@pytest.mark.parametrize("way", PLAIN)
def test_compression_that_cannot_be_undone_is_named(way: str, said: str, serve: Serve, client: LMClient) -> None:
    """collaboration"""
    server = serve(http(b"xxxx", "200 OK", f"content-encoding: {said}"))
    with contextlib.closing(client), pytest.raises(Exception, match=r"compressed \((snappy|gzip)"):
        PLAIN[way](client, _lm(server))


def test_brotli_that_failed_ends_as_a_cut_body() -> None:
    """unit: its decoder raises an error of its own then, which a closing connection would pass on to the loop."""
    pytest.importorskip("brotli")
    decoder = decoder_for("br")
    assert decoder is not None
    with pytest.raises(LMUnexpectedError):
        decoder.feed(b"\xff garbage" * 20)
    with pytest.raises(LMTransportError):
        decoder.end()
