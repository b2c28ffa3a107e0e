"""`Proxy` and `ProxyRules`: which proxy a request goes through. Reads the environment when rules are made, never later.

Covered are `http://`, `https://` (TLS to the proxy), `socks5://` (this machine resolves names) and `socks5h://` (the
proxy does). Not covered: SOCKS 4, PAC files, and schemes of authentication other than Basic and SOCKS's own.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ...errors import LMConfigurationError, MissingDependency
from ..credentials import secrets_of_proxy
from .no_proxy import NoProxy, is_loopback

_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_CREDENTIAL_MOST = 255  # bytes, of a SOCKS user or password (RFC 1929)


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy. `secrets` are its password in each form in which a message could quote it."""

    scheme: str
    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS; else HTTP."""
        return self.scheme.startswith("socks")

    @property
    def address(self) -> tuple[str, int]:
        """What to dial."""
        return self.host, self.port

    @property
    def name(self) -> str:
        """What messages call it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def credential(self) -> str:
        """The value of Proxy-Authorization, "" for none."""
        if self.user is None:
            return ""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password or ''}".encode()).decode()


@dataclass(frozen=True, slots=True)
class ProxyRules:
    """The proxies of http:// and https:// endpoints, as URLs (which hold passwords); `always`: of loopback too."""

    http: str | None = field(default=None, repr=False)
    https: str | None = field(default=None, repr=False)
    no_proxy: NoProxy = field(default_factory=lambda: NoProxy(""))
    always: bool = False
    named: tuple[str, str] = ("proxy", "proxy")  # where each comes from

    def proxy_for(self, scheme: str, host: str, port: int) -> Proxy | None:
        """Return the proxy of an endpoint.

        Raises:
            LMConfigurationError: its URL is none.
            MissingDependency: it speaks SOCKS, and the library for that is not installed.
        """
        url, named = (self.https, self.named[1]) if scheme == "https" else (self.http, self.named[0])
        if not url or (not self.always and (is_loopback(host) or self.no_proxy.covers(host, port))):
            return None
        return parsed_proxy(url, named)


NO_PROXIES = ProxyRules()


def given_rules(url: str) -> ProxyRules:
    """Return the rules of one proxy for everything."""
    return ProxyRules(url, url, always=True) if url else NO_PROXIES


def environment_rules(environment: Mapping[str, str] = os.environ) -> ProxyRules:
    """Return the rules of HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY; the names in lower case go first."""
    found: dict[str, tuple[str, str]] = {}
    for scheme in ("http", "https", "all"):
        for name in (f"{scheme}_proxy", f"{scheme}_PROXY".upper()):
            if name == "HTTP_PROXY" and "REQUEST_METHOD" in environment:
                continue  # of a CGI program's client, by the header "Proxy" (CVE-2016-5385)
            if name in environment:
                found[scheme] = (environment[name].strip(), name)
                break
    fallback = found.get("all", ("", "ALL_PROXY"))
    http, https = found.get("http", fallback), found.get("https", fallback)
    if not http[0] and not https[0]:
        return NO_PROXIES
    no_proxy = NoProxy(environment.get("no_proxy", environment.get("NO_PROXY", "")))
    return ProxyRules(http[0] or None, https[0] or None, no_proxy, named=(http[1], https[1]))


@functools.lru_cache(maxsize=64)
def parsed_proxy(url: str, named: str = "proxy") -> Proxy:
    """Return the proxy of a URL; one without a scheme speaks HTTP. Errors do not quote it: it may hold a password.

    Raises:
        LMConfigurationError: it is none.
        MissingDependency: it speaks SOCKS, and the library for that is not installed.
    """
    scheme, separator, rest = url.partition("://")
    scheme, rest = (scheme.lower(), rest) if separator else ("http", url)
    if scheme not in _PORTS:
        known = ", ".join(f"{each}://" for each in _PORTS)
        raise LMConfigurationError(f"{named} must begin with one of {known}; {_quoted(scheme)} is none of them.")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname or "", parts.port
        user, password = parts.username, parts.password
        host.encode("idna")
    except ValueError:
        host, port, user, password = "", None, None, None
    if not host or port == 0 or any(c in url for c in " \r\n\t\0"):
        raise LMConfigurationError(
            f"{named} is no URL of a proxy, such as http://user:password@host:3128; of a user or password the signs "
            f"@ : / ? # % are written in percent encoding."
        )
    user, password = unquote(user) if user is not None else None, unquote(password) if password is not None else None
    found = Proxy(scheme, host, port or _PORTS[scheme], user, password, secrets_of_proxy(f"http://{rest}"))
    if found.is_socks:
        _require_socks(found, named)
    return found


def _quoted(scheme: str) -> str:
    """Return a scheme, if it is one; a URL that is cut elsewhere may begin with a password."""
    return f"{scheme}://" if scheme.isalnum() and len(scheme) <= 10 else "what it begins with"


def _require_socks(proxy: Proxy, named: str) -> None:
    if importlib.util.find_spec("python_socks") is None:
        raise MissingDependency(
            f"{named} is a SOCKS proxy, which needs the package python-socks: pip install 'dspex[socks]'.",
            package="python-socks",
            extra="socks",
        )
    if (proxy.user is None) != (proxy.password is None) or proxy.user == "" or proxy.password == "":
        raise LMConfigurationError(f"{named} is a SOCKS proxy, which takes a user and a password, or neither.")
    if any(len((text or "").encode()) > _CREDENTIAL_MOST for text in (proxy.user, proxy.password)):
        raise LMConfigurationError(f"{named} is a SOCKS proxy, whose user and password are up to 255 bytes each.")
