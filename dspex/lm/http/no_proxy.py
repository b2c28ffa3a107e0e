"""`NoProxy`: which hosts are reached without a proxy, as NO_PROXY lists them. Pure.

An entry is `*`, a host or a domain (with its subdomains, whether or not it begins with a dot), an address, or a network
in CIDR notation; a host, domain or address may have a port. Names are not resolved: a network holds addresses only.
Source: curl's and Go's readings of the variable, which most other clients share.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

_SEPARATORS = re.compile(r"[\s,]+")
_PORT = re.compile(r"(?P<host>[^:]*|\[[^\]]*\]):(?P<port>\d{1,5})")
_V4 = re.compile(r"\d{1,3}(\.\d{1,3}){3}")


@dataclass(frozen=True, slots=True)
class NoProxy:
    """The entries of one NO_PROXY variable."""

    text: str

    def covers(self, host: str, port: int) -> bool:
        """Return whether this host is reached directly."""
        host = _plain(host)
        return any(_covers(entry, host, port) for entry in _SEPARATORS.split(self.text.strip().lower()) if entry)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, which no proxy of the environment reaches."""
    host = _plain(host)
    if host == "localhost" or host.endswith(".localhost"):
        return True
    return _is_address(host) and _address(host).is_loopback


def _covers(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        return _is_address(host) and _network_holds(entry, host)
    if (with_port := _PORT.fullmatch(entry)) is not None:
        if int(with_port["port"]) != port:
            return False
        entry = with_port["host"]
    name = _plain(entry.removeprefix("*").removeprefix("."))
    if _is_address(host) or _is_address(name):
        return _is_address(host) and _is_address(name) and _address(host) == _address(name)
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _plain(host: str) -> str:
    return host.lower().strip("[]").rstrip(".").partition("%")[0]


def _is_address(host: str) -> bool:
    if ":" not in host and _V4.fullmatch(host) is None:
        return False
    try:
        _address(host)
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=256)
def _address(host: str) -> IPv4Address | IPv6Address:
    import ipaddress  # 5 ms, for addresses only

    found = ipaddress.ip_address(host)
    return getattr(found, "ipv4_mapped", None) or found


def _network_holds(network: str, host: str) -> bool:
    import ipaddress

    try:
        return _address(host) in ipaddress.ip_network(network.replace("[", "").replace("]", ""), strict=False)
    except ValueError:  # no network: others ignore such an entry too
        return False
