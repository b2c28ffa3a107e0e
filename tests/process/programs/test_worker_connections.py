"""Process: how the host connects for a worker's language models: own authorities, sockets, and its precise errors."""

from __future__ import annotations

import errno
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.errors import LMCertificateError, LMError, LMLocalLimitError, LMProxyError
from tests.support.lm.answering_server import AnsweringServer
from tests.support.lm.loopback_proxy import LoopbackProxy
from tests.support.lm.peer import http

trustme = pytest.importorskip("trustme")
KEY = "canary-4242424242-canary"
TEXT = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"
REPLY = http(json.dumps({"choices": [{"message": {"content": TEXT}, "finish_reason": "stop"}]}).encode())
ROUTES = ("native", "python")


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[AnsweringServer, Path]]:
    """A server, and the file of the authority that it is certified by."""
    authority, path = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = AnsweringServer(REPLY, tls=context)
    yield server, path
    server.close()


def _asked(lm: dspex.LM, route: str, sup: dspex.Supervisor) -> str:
    how: dict[str, Any] = {"implementation": route, "supervisor": sup, "adapter": "chat"}
    return str(dspex.predict("question -> answer", {"question": "x"}, lm=lm, **how).answer)


def _lm(base: str, **options: Any) -> dspex.LM:
    return dspex.LM("openai/m", api_base=base, api_key=KEY, cache=False, timeout=20, **{"retries": 0, **options})


@pytest.mark.parametrize("route", ROUTES)
def test_own_authority(route: str, secure: tuple[AnsweringServer, Path], sup: dspex.Supervisor) -> None:
    """process"""
    server, bundle = secure
    assert _asked(_lm(f"https://127.0.0.1:{server.port}/v1", ssl_verify=str(bundle)), route, sup) == "Paris"


@pytest.mark.parametrize("route", ROUTES)
def test_unix_socket(route: str, tmp_path: Path, sup: dspex.Supervisor) -> None:
    """process"""
    path = str(tmp_path / "lm.sock")
    server = AnsweringServer(REPLY, path=path)
    try:
        assert _asked(_lm(f"unix://{path}"), route, sup) == "Paris"
        assert server.heads[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
    finally:
        server.close()


def _error(lm: dspex.LM, route: str, sup: dspex.Supervisor) -> LMError:
    with pytest.raises(LMError) as caught:
        _asked(lm, route, sup)
    assert KEY not in f"{caught.value} {caught.value!r} {vars(caught.value)}"
    return caught.value


@pytest.mark.parametrize("route", ROUTES)
def test_certificate_of_an_unknown_authority(
    route: str, secure: tuple[AnsweringServer, Path], sup: dspex.Supervisor
) -> None:
    """process: of the precise class, though DSPy has none; never tried again, and no key was sent."""
    server, _ = secure
    error = _error(_lm(f"https://127.0.0.1:{server.port}/v1", retries=2), route, sup)
    assert type(error) is LMCertificateError and error.retryable == "no" and not server.heads


@pytest.mark.parametrize("route", ROUTES)
def test_proxy_that_wants_credentials(route: str, secure: tuple[AnsweringServer, Path], sup: dspex.Supervisor) -> None:
    """process: of the precise class; the proxy's password is shown nowhere."""
    server, bundle = secure
    proxy = LoopbackProxy(server.port, login="user:right")
    try:
        url = f"http://user:wrong-password-4242@127.0.0.1:{proxy.port}"
        error = _error(
            _lm(f"https://127.0.0.1:{server.port}/v1", ssl_verify=str(bundle), proxy=url, retries=2), route, sup
        )
    finally:
        proxy.close()
    assert type(error) is LMProxyError and error.retryable == "no" and "wrong-password" not in str(error)


@pytest.mark.parametrize("route", ROUTES)
def test_want_of_descriptors(route: str, sup: dspex.Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """process: of the precise class: this process's limit, not the endpoint's fault."""
    monkeypatch.setattr("dspex.lm.http.blocking_client.CONNECT_TIMEOUT_S", 0.1)
    monkeypatch.setattr("dspex.lm.http.async_client.CONNECT_TIMEOUT_S", 0.1)
    server = AnsweringServer(REPLY)
    real = socket.socket

    class Full(real):  # type: ignore[misc, valid-type]
        def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: Any = None) -> None:
            if fileno is None and family in (socket.AF_INET, socket.AF_INET6):
                raise OSError(errno.EMFILE, "Too many open files")
            super().__init__(family, type, proto, fileno)

    lm = _lm(f"http://127.0.0.1:{server.port}/v1")
    try:
        with monkeypatch.context() as full:
            full.setattr(socket, "socket", Full)
            error = _error(lm, route, sup)
        assert type(error) is LMLocalLimitError and error.retryable == "now"
        assert _asked(lm, route, sup) == "Paris"
    finally:
        server.close()
