"""Resolve where a request goes: URL, proxy and TLS, once per URL. Reads only the environment's proxies."""

from __future__ import annotations

import base64
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from ...errors import LMConfigurationError, LMTransportError
from ..credentials import secrets_of_proxy

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One parsed URL: `address` is what to dial, `tunnel` the CONNECT request to send first, if any."""

    url: str
    address: tuple[str, int]
    server_name: str | None  # None: no TLS
    host: str  # the Host header
    path: str  # what stands in the request line
    tunnel: bytes | None = field(repr=False)  # may hold the proxy's password
    proxy_header: tuple[str, str] | None = field(repr=False)
    secrets: tuple[str, ...] = field(
        repr=False, default=()
    )  # the proxy's password, or a key that only this address has
    pool: tuple[object, ...] = field(init=False, repr=False)  # requests with equal pools may share connections

    def __post_init__(self) -> None:
        object.__setattr__(self, "pool", (self.address, self.server_name, self.tunnel))


@functools.lru_cache(maxsize=1024)
def target_of(url: str, proxy: str | None = None) -> Endpoint:
    """Parse a URL; `proxy` None means the environment's (HTTPS_PROXY, NO_PROXY ...), "" means none.

    Raises:
        LMConfigurationError: not an http(s) URL, or a proxy that is not one.
    """
    parts, host, given_port = _taken_apart(url)
    if parts.scheme not in ("http", "https") or not host or any(c in url for c in " \r\n\t\0"):
        raise LMConfigurationError("The LM's api_base must be an http:// or https:// URL.")
    if parts.username is not None:
        raise LMConfigurationError("An LM's api_base must not hold a user or password; use api_key= or headers=.")
    secure = parts.scheme == "https"
    port = _port(given_port, secure)
    path = parts.path or "/"
    if parts.query:
        path = f"{path}?{parts.query}"
    name = f"[{host}]" if ":" in host else host
    shown = name if port == _port(None, secure) else f"{name}:{port}"
    through = _proxy_for(parts.scheme, host, port) if proxy is None else proxy
    if not through:
        return Endpoint(url, (host, port), host if secure else None, shown, path, None, None)
    return _through(Endpoint(url, (host, port), host if secure else None, shown, path, None, None), name, port, through)


@functools.lru_cache(maxsize=1)
def tls() -> ssl.SSLContext:
    """Return the process's TLS context: the system's authorities, verification on."""
    import ssl  # 30 ms, for https only

    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def check_tunnel(target: Endpoint, answer: bytes) -> None:
    """Require that the proxy opened the tunnel.

    Raises:
        LMTransportError: it did not.
    """
    status = answer.split(b"\r\n", 1)[0].split(b" ")[1:2]
    if status != [b"200"]:
        shown = status[0].decode() if status and len(status[0]) == 3 and status[0].isdigit() else "no HTTP status"
        raise LMTransportError(f"The proxy did not open a tunnel to {target.host}: it answered {shown}.")


def _taken_apart(url: str) -> tuple[SplitResult, str, int | None]:
    """Return a URL's parts, its host ("" for none) and its port; one that no resolver or socket takes has no host."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:
        return urlsplit(""), "", None
    return parts, host, port


def _port(port: int | None, secure: bool) -> int:
    return port if port is not None else 443 if secure else 80


def _through(target: Endpoint, name: str, port: int, proxy: str) -> Endpoint:
    parts, host, given_port = _taken_apart(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme != "http" or not host:
        raise LMConfigurationError("A proxy must be an http:// URL.")
    address = (host, given_port or 80)
    auth, secrets = _basic(parts.username, parts.password), secrets_of_proxy(proxy)
    if target.server_name is None:  # plain HTTP: the proxy reads the absolute form
        header = ("proxy-authorization", auth) if auth else None
        path = f"http://{target.host}{target.path}"
        return Endpoint(target.url, address, None, target.host, path, None, header, secrets)
    lines = [f"CONNECT {name}:{port} HTTP/1.1", f"host: {name}:{port}"]
    if auth:
        lines.append(f"proxy-authorization: {auth}")
    tunnel = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return Endpoint(target.url, address, target.server_name, target.host, target.path, tunnel, None, secrets)


def _basic(user: str | None, password: str | None) -> str:
    if user is None:
        return ""
    pair = f"{unquote(user)}:{unquote(password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _proxy_for(scheme: str, host: str, port: int) -> str | None:
    if host in ("127.0.0.1", "localhost", "::1"):
        return None
    import urllib.request  # 30 ms, for hosts elsewhere only

    if urllib.request.proxy_bypass(f"{host}:{port}"):  # NO_PROXY may name the port too
        return None
    return urllib.request.getproxies().get(scheme)
