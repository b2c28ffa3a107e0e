"""Resolve where a request goes: URL, proxy and TLS, once per URL and network. Pure."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field, replace
from urllib.parse import SplitResult, unquote, urlsplit

from ...errors import LMConfigurationError, LMProxyError, LMTransportError
from .network import Network, network_of
from .proxies import Proxy
from .tls_settings import USUAL_TLS, TlsSettings

_UNIX = "http+unix"
_SOCKET_PATH_MOST = 107  # bytes: what a sockaddr_un holds
_USUAL = (None, USUAL_TLS, None, None)
CREDENTIALS_WANTED = 407
_PASSING = ("408", "425", "429")  # refusals of a proxy that another attempt may not meet


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One parsed URL: `address` is what to dial (a str: a socket's path), `tunnel` a CONNECT request to send first."""

    url: str
    address: tuple[str, int] | str
    server_name: str | None  # None: no TLS
    host: str  # the Host header
    path: str  # what stands in the request line
    tunnel: bytes | None = field(default=None, repr=False)  # may hold the proxy's password
    proxy_header: tuple[str, str] | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)  # the proxy's password, or a key of this address alone
    proxy: Proxy | None = None
    tls: TlsSettings = USUAL_TLS
    destination: tuple[str, int] | None = None  # of a SOCKS proxy, which dials it
    max_connections: int | None = None
    pool: tuple[object, ...] = field(init=False, repr=False)  # requests with equal pools may share connections

    def __post_init__(self) -> None:
        own = (self.proxy, self.tls, self.destination, self.max_connections)
        hidden = (self.tls.password, None if self.proxy is None else self.proxy.secrets)
        # A text, whose hash is kept: pools are looked up twice for each request.
        rest = "" if own == _USUAL else hashlib.sha256(repr((own, hidden)).encode()).hexdigest()
        object.__setattr__(self, "pool", (self.address, self.server_name, self.tunnel, rest))

    @property
    def name(self) -> str:
        """What messages and events call it."""
        return self.address if isinstance(self.address, str) else self.host


def target_of(url: str, proxy: str | None = None, *, network: Network | None = None) -> Endpoint:
    """Parse a URL; without a `network`, `proxy` None means the environment's (HTTPS_PROXY, NO_PROXY ...), "" none.

    Raises:
        LMConfigurationError: not a URL of HTTP, or a proxy that is not one.
        MissingDependency: the proxy speaks SOCKS, and the library for that is not installed.
    """
    return _target(url, network_of(proxy) if network is None else network)


def canonical_base(url: str) -> str:
    """Return the base URL of a local server in its one form; any other as it is.

    `unix:///run/vllm.sock` has no room for a path and means `/v1` there: `http+unix://%2Frun%2Fvllm.sock/v1`.
    """
    scheme, separator, path = url.partition("://")
    if not separator or scheme.lower() != "unix":
        return url
    if not path.startswith("/"):
        raise LMConfigurationError("A socket's path is absolute: unix:///run/vllm.sock has three strokes.")
    return f"{_UNIX}://{path.rstrip('/').replace('%', '%25').replace('/', '%2F')}/v1"


@functools.lru_cache(maxsize=1024)
def _target(url: str, network: Network) -> Endpoint:
    if url.partition("://")[0].lower() == _UNIX:
        return _local(url, network)
    parts, host, given_port = _taken_apart(url)
    if parts.scheme not in ("http", "https") or not host or any(c in url for c in " \r\n\t\0"):
        raise LMConfigurationError(
            "The LM's api_base must be an http:// or https:// URL, or http+unix://%2Frun%2Fserver.sock/v1."
        )
    if parts.username is not None:
        raise LMConfigurationError("An LM's api_base must not hold a user or password; use api_key= or headers=.")
    secure = parts.scheme == "https"
    port = _port(given_port, secure)
    path = parts.path or "/"
    if parts.query:
        path = f"{path}?{parts.query}"
    name = f"[{host}]" if ":" in host else host
    shown = name if port == _port(None, secure) else f"{name}:{port}"
    tls = network.tls if secure else USUAL_TLS
    direct = Endpoint(
        url, (host, port), host if secure else None, shown, path, tls=tls, max_connections=network.max_connections
    )
    through = network.proxies.proxy_for(parts.scheme, host, port)
    return direct if through is None else _through(direct, f"{name}:{port}", through, network)


def check_tunnel(target: Endpoint, answer: bytes) -> None:
    """Require that the proxy opened the tunnel.

    Raises:
        LMProxyError: it wants other credentials, or does not let this endpoint be reached.
        LMTransportError: it could not, now.
    """
    status = answer.split(b"\r\n", 1)[0].split(b" ")[1:2]
    shown = status[0].decode() if status and len(status[0]) == 3 and status[0].isdigit() else "no HTTP status"
    if shown[0] == "2" and b"\r\n\r\n" in answer:
        return
    if shown == str(CREDENTIALS_WANTED):
        raise credentials_refused(target)
    message = f"The proxy did not open a tunnel to {target.host}: it answered {shown}."
    if shown[0] in "34" and shown not in _PASSING:
        raise LMProxyError(f"{message} Have it allow this host, or name the host in NO_PROXY.", status=int(shown))
    raise LMTransportError(message)


def credentials_refused(target: Endpoint) -> LMProxyError:
    """Return the error of a proxy that answered 407."""
    assert target.proxy is not None
    does = "wants a user and a password" if target.proxy.user is None else "does not take this user and password"
    return LMProxyError(
        f"The proxy {target.proxy.name} {does} (407). Give them in its URL: http://user:password@host:port, with signs "
        f"such as @ in percent encoding.",
        status=CREDENTIALS_WANTED,
    )


def _local(url: str, network: Network) -> Endpoint:
    """Return the endpoint of a server behind a Unix socket."""
    place, slash, path = url.partition("://")[2].partition("/")
    where = unquote(place)
    if not where.startswith("/") or any(c in where for c in "\r\n\0") or any(c in path for c in " \r\n\t\0"):
        raise LMConfigurationError(
            "The path of a local server's socket is absolute and in percent encoding: http+unix://%2Frun%2Fvllm.sock/v1."
        )
    if len(where.encode()) > _SOCKET_PATH_MOST:
        raise LMConfigurationError(
            f"The path of a socket has up to {_SOCKET_PATH_MOST} bytes; this one has {len(where.encode())}: {where!r}."
        )
    return Endpoint(url, where, None, "localhost", f"{slash or '/'}{path}", max_connections=network.max_connections)


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


def _through(direct: Endpoint, host: str, proxy: Proxy, network: Network) -> Endpoint:
    """Return the endpoint behind a proxy; `host` has its port."""
    if proxy.is_socks:
        assert isinstance(direct.address, tuple)
        return replace(direct, address=proxy.address, destination=direct.address, proxy=proxy, secrets=proxy.secrets)
    tls = network.tls if proxy.scheme == "https" else direct.tls  # one of the two connections, or both
    auth = proxy.credential
    behind = replace(direct, address=proxy.address, proxy=proxy, secrets=proxy.secrets, tls=tls)
    if direct.server_name is None:  # plain HTTP: the proxy reads the absolute form
        header = ("proxy-authorization", auth) if auth else None
        return replace(behind, path=f"http://{direct.host}{direct.path}", proxy_header=header)
    lines = [f"CONNECT {host} HTTP/1.1", f"host: {host}"]
    if auth:
        lines.append(f"proxy-authorization: {auth}")
    return replace(behind, tunnel=("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
