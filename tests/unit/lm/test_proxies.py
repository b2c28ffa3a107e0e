"""Collaboration: requests through real proxies on the loopback interface, by each driver, and which hosts need none."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dspex.errors import LMCertificateError, LMConfigurationError, LMProxyError, LMTransportError, MissingDependency
from dspex.lm.http.endpoint import target_of
from dspex.lm.http.no_proxy import NoProxy, is_loopback
from dspex.lm.http.proxies import environment_rules
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from tests.support.lm.answering_server import AnsweringServer
from tests.support.lm.loopback_proxy import LoopbackProxy
from tests.support.lm.requests import PLAIN, STREAM, STREAMED

trustme = pytest.importorskip("trustme")
KEY = "canary-4242424242-canary"
PASSWORD = "p@ss/word:4242%"
WRITTEN = "p%40ss%2Fword%3A4242%25"
EVENTS = b'data: {"choices": [{"delta": {"content": "fine"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
KINDS = ("http", "https", "socks5", "socks5h")


class World:
    """An endpoint and a proxy, and the authority of both."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.bundle = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(self.bundle)
        self.made: list[Any] = []

    def context(self, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(name).configure_cert(context)
        return context

    def endpoint(self, scheme: str = "http", reply: bytes | None = None) -> AnsweringServer:
        self.made.insert(0, AnsweringServer(reply, tls=self.context("lm.test") if scheme == "https" else None))
        return self.made[0]

    def proxy(self, kind: str, upstream: int, **options: Any) -> LoopbackProxy:
        tls = self.context("127.0.0.1") if kind == "https" else None
        self.made.append(LoopbackProxy(upstream, tls=tls, socks=kind.startswith("socks"), **options))
        return self.made[-1]

    def close(self) -> None:
        for one in self.made[::-1]:
            one.close()


@pytest.fixture
def world(tmp_path: Path, client: LMClient) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    client.close()
    world.close()


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def _need(kind: str) -> None:
    if kind.startswith("socks"):
        pytest.importorskip("python_socks")


def _lm(world: World, scheme: str, **options: Any) -> LM:
    host = "127.0.0.9" if options.pop("local", False) else "lm.test"
    settings = {"retries": 0, "timeout": 20, "ssl_verify": world.bundle, **options}
    return LM("openai/m", api_base=f"{scheme}://{host}:8443/v1", api_key=KEY, cache=False, **settings)


@pytest.mark.parametrize("way", PLAIN)
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("kind", KINDS)
def test_request_goes_through_the_proxy(
    kind: str, scheme: str, way: str, world: World, client: LMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: with a user and a password of odd signs, and twice on one connection."""
    _need(kind)
    _resolve(monkeypatch, kind)
    endpoint = world.endpoint(scheme)
    proxy = world.proxy(kind, endpoint.port, login=f"user:{PASSWORD}")
    lm = _lm(world, scheme, proxy=f"{kind}://user:{WRITTEN}@127.0.0.1:{proxy.port}")
    assert "fine" in PLAIN[way](client, lm)
    assert "fine" in PLAIN[way](client, lm)
    where = "10.1.2.3" if kind == "socks5" else "lm.test"
    assert where in proxy.asked[0] and set(proxy.logins) == {f"user:{PASSWORD}"}
    assert all(PASSWORD.encode() not in head and b"proxy-auth" not in head.lower() for head in endpoint.heads) or (
        kind in ("http", "https") and scheme == "http"  # the double of a proxy passes the header on
    )
    assert PASSWORD not in f"{lm!r} {lm.network!r}" and WRITTEN not in f"{lm!r} {lm.network!r}"


def _resolve(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Let lm.test be 10.1.2.3 where this machine resolves it, and nothing where a proxy has to."""
    import socket

    real = socket.getaddrinfo

    def look_up(host: str, *rest: Any, **more: Any) -> Any:
        if host != "lm.test":
            return real(host, *rest, **more)
        if kind != "socks5":
            raise AssertionError("resolved here")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.1.2.3", rest[0]))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.parametrize("way", STREAMED)
@pytest.mark.parametrize("kind", KINDS)
def test_stream_comes_through_the_proxy(
    kind: str, way: str, world: World, client: LMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: of an https endpoint."""
    _need(kind)
    _resolve(monkeypatch, kind)
    reply = f"HTTP/1.1 200 OK\r\n{STREAM}\r\ncontent-length: {len(EVENTS)}\r\n\r\n".encode() + EVENTS
    proxy = world.proxy(kind, world.endpoint("https", reply).port)
    assert "fine" in STREAMED[way](client, _lm(world, "https", proxy=f"{kind}://127.0.0.1:{proxy.port}"))
    assert len(proxy.asked) == 1


@pytest.mark.parametrize("way", PLAIN)
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("login", ["", "user:wrong-password-4242@"])
def test_wrong_credentials_are_an_error_of_their_own(
    login: str, kind: str, scheme: str, way: str, world: World, client: LMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: not tried again, nothing shown, and the endpoint's circuit stays closed."""
    _need(kind)
    _resolve(monkeypatch, kind)
    proxy = world.proxy(kind, world.endpoint(scheme).port, login="user:right")
    lm = _lm(world, scheme, proxy=f"{kind}://{login}127.0.0.1:{proxy.port}", retries=2)
    for _ in range(11):
        with pytest.raises(LMProxyError, match=rf"proxy {kind}://127\.0\.0\.1:{proxy.port}") as caught:
            PLAIN[way](client, lm)
    assert caught.value.retryable == "no" and "wrong-password-4242" not in str(caught.value)
    assert caught.value.status == (None if kind.startswith("socks") else 407)


@pytest.mark.parametrize(("status", "kind"), [(b"403 No", LMProxyError), (b"502 Late", LMTransportError)])
def test_tunnel_that_is_refused(status: bytes, kind: type[Exception], world: World, client: LMClient) -> None:
    """collaboration: for good, or for now."""
    proxy = world.proxy("http", world.endpoint("https").port, status=status)
    for way in PLAIN:
        with pytest.raises(kind, match="did not open a tunnel") as caught:
            PLAIN[way](client, _lm(world, "https", proxy=f"http://127.0.0.1:{proxy.port}"))
        assert type(caught.value) is kind


@pytest.mark.parametrize(("code", "kind"), [(b"2", LMProxyError), (b"5", LMTransportError)])
def test_socks_proxy_that_refuses(code: bytes, kind: type[Exception], world: World, client: LMClient) -> None:
    """collaboration: by its rules, or since the endpoint does."""
    _need("socks")
    proxy = world.proxy("socks5h", world.endpoint().port, status=code)
    for way in PLAIN:
        with pytest.raises(kind) as caught:
            PLAIN[way](client, _lm(world, "http", proxy=f"socks5h://127.0.0.1:{proxy.port}"))
        assert type(caught.value) is kind


def test_certificate_of_the_proxy_is_verified(world: World, client: LMClient) -> None:
    """collaboration: the error names the proxy."""
    proxy = world.proxy("https", world.endpoint().port)
    for way in PLAIN:
        with pytest.raises(LMCertificateError, match=f"proxy https://127.0.0.1:{proxy.port}"):
            PLAIN[way](client, _lm(world, "http", proxy=f"https://127.0.0.1:{proxy.port}", ssl_verify=True))


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("way", PLAIN)
def test_proxy_of_the_environment(
    way: str, name: str, world: World, client: LMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: read when the record is made; proxy=None and "" mean none."""
    proxy = world.proxy("http", world.endpoint().port)
    monkeypatch.setenv(name, f"127.0.0.1:{proxy.port}")
    lm = _lm(world, "http")
    monkeypatch.delenv(name)
    assert "fine" in PLAIN[way](client, lm)
    assert len(proxy.asked) == 1


@pytest.mark.parametrize("none", [None, ""])
def test_lm_may_have_no_proxy(none: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: whatever the environment says, and its copies neither."""
    monkeypatch.setenv("ALL_PROXY", "http://proxy.test:1")
    lm = LM("openai/m", api_key=KEY, api_base="http://lm.test/v1", proxy=none)
    for one in (lm, lm.replace(temperature=0.1)):
        assert target_of(one.api_base, network=one.network).proxy is None
    usual = LM("openai/m", api_key=KEY, api_base="http://lm.test/v1").replace(temperature=0.1)
    assert target_of(usual.api_base, network=usual.network).proxy is not None


@pytest.mark.parametrize(
    ("entries", "covered", "not_covered"),
    [
        ("*", ["a.b", "10.0.0.1", "[::1]"], []),
        ("lm.corp", ["lm.corp", "LM.corp", "a.lm.corp", "lm.corp."], ["xlm.corp", "corp"]),
        (".corp", ["a.corp", "b.a.corp", "corp"], ["xcorp", "corp.com"]),
        ("*.corp", ["a.corp"], ["a.corps"]),
        ("10.0.0.0/8", ["10.1.2.3", "[::ffff:10.1.2.3]"], ["11.0.0.1", "10.corp"]),
        ("10.1.2.77/24", ["10.1.2.3"], ["10.1.3.3"]),
        ("fd00::/8, 2001:db8::1", ["[fd12::5]", "[2001:db8:0::1]"], ["[fe80::1]", "10.0.0.1"]),
        ("[fd00::1]:8080", ["[fd00::1]:8080"], ["[fd00::1]:81", "[fd00::1]"]),
        ("10.1.2.3 lm.corp:8443", ["10.1.2.3", "lm.corp:8443", "a.lm.corp:8443"], ["lm.corp", "110.1.2.3"]),
        (" , ,lm.corp,,", ["lm.corp"], ["other"]),
        ("10.0.0.0/99,nonsense/x,2.3", ["nonsense.2.3"], ["10.1.2.3", "x"]),
        ("", [], ["lm.corp"]),
    ],
)
def test_hosts_that_need_no_proxy(entries: str, covered: list[str], not_covered: list[str]) -> None:
    """unit"""
    from urllib.parse import urlsplit

    rules = NoProxy(entries)
    for hosts, expected in ((covered, True), (not_covered, False)):
        for host in hosts:
            parts = urlsplit(f"http://{host}")
            assert rules.covers(str(parts.hostname), parts.port or 80) is expected, host


def test_loopback_is_reached_without_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: but with the LM's own."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:1")
    for host in ("localhost", "127.0.0.1", "127.8.9.1", "[::1]", "a.localhost"):
        assert target_of(f"http://{host}/v1").proxy is None and is_loopback(host)
        assert target_of(f"http://{host}/v1", "http://proxy.test:1").proxy is not None
    assert not is_loopback("127.0.0.1.example") and not is_loopback("10.0.0.1")


def test_names_in_lower_case_go_first() -> None:
    """unit: also where they are empty; a CGI program's HTTP_PROXY comes from a client."""
    both = {"http_proxy": "http://low:1", "HTTP_PROXY": "http://high:1"}
    assert environment_rules(both).http == "http://low:1"
    assert environment_rules({**both, "http_proxy": ""}).http is None
    assert environment_rules({"HTTP_PROXY": "http://high:1", "REQUEST_METHOD": "GET"}).http is None
    assert environment_rules({"ALL_PROXY": "http://all:1", "https_proxy": "http://s:1"}).https == "http://s:1"
    assert environment_rules({"no_proxy": "", "NO_PROXY": "*", "ALL_PROXY": "a:1"}).no_proxy.text == ""


@pytest.mark.parametrize(
    "url",
    ["ftp://h:1", "socks4://h:1", "http://", "http://h:99999", "http://h:x", "http://h h", "socks5://u@h:1", "h:0"],
)
def test_proxy_that_is_none_is_refused_when_the_lm_is_made(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: given, or of the environment, which is then named."""
    _need("socks")
    with pytest.raises(LMConfigurationError, match=r"\bproxy\b"):
        LM("openai/m", api_key=KEY, proxy=url)
    monkeypatch.setenv("HTTPS_PROXY", url)
    with pytest.raises(LMConfigurationError, match="HTTPS_PROXY"):
        LM("openai/m", api_key=KEY)


@pytest.mark.parametrize(
    "url", ["http://u:secret-4242@h:x", "secret-4242://h", "http://secret-4242:x@", "u:secret-4242"]
)
def test_proxy_that_is_refused_is_not_quoted(url: str) -> None:
    """unit"""
    with pytest.raises(LMConfigurationError) as caught:
        LM("openai/m", api_key=KEY, proxy=url)
    assert "secret-4242" not in str(caught.value)


def test_socks_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit"""
    import importlib.util

    from dspex.lm.http.proxies import parsed_proxy

    parsed_proxy.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"dspex\[socks\]") as caught:
        LM("openai/m", api_key=KEY, proxy="socks5h://127.0.0.1:1")
    assert caught.value.package == "python-socks"
