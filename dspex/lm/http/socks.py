"""Connect through a SOCKS 5 proxy, by the library python-socks: from a thread, or on an event loop."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...errors import LMProxyError, LMTransportError
from .endpoint import Endpoint
from .proxies import Proxy
from .resolver import AddressInfo, addresses, on_thread, waited

if TYPE_CHECKING:
    from concurrent.futures import Future

_NOT_ALLOWED = 2  # RFC 1928: by the proxy's rules


def dial_socks(target: Endpoint, deadline: float) -> socket.socket:
    """Return a socket that is connected through the target's proxy.

    Raises:
        TimeoutError: the time is over.
        LMProxyError: the proxy refuses.
        LMTransportError, OSError: it could not be reached, or did not reach the endpoint.
    """
    assert target.proxy is not None and target.destination is not None
    proxy, (host, port) = target.proxy, target.destination
    if proxy.scheme == "socks5":  # names are this machine's to resolve
        host = str(addresses(host, port, deadline - time.monotonic())[0][4][0])
    found = addresses(*proxy.address, deadline - time.monotonic())
    # On a thread: the library bounds each read, and a proxy that sends a byte at a time would pass any deadline.
    connecting = on_thread(lambda: _dialed(proxy, found, host, port, deadline))
    try:
        sock = waited(connecting, deadline - time.monotonic())
    except BaseException as error:  # also Ctrl-C: a socket that comes later is nobody's
        connecting.add_done_callback(_close_result)
        raise _translated(target, error) from error
    return sock


async def adial_socks(target: Endpoint) -> socket.socket:
    """`dial_socks`, awaited; whoever waits bounds it."""
    from python_socks import ProxyConnectionError, ProxyType  # pyright: ignore[reportMissingImports] - an extra
    from python_socks.async_.asyncio import Proxy as AsyncProxy  # pyright: ignore[reportMissingImports] - an extra

    from .async_resolver import aaddresses  # and asyncio, which threads do without

    assert target.proxy is not None and target.destination is not None
    proxy, (host, port) = target.proxy, target.destination
    if proxy.scheme == "socks5":
        host = str((await aaddresses(host, port))[0][4][0])
    found = await aaddresses(*proxy.address)
    for at, address in enumerate(found):
        library = AsyncProxy(ProxyType.SOCKS5, str(address[4][0]), proxy.port, proxy.user, proxy.password, rdns=True)
        try:
            sock: socket.socket = await library.connect(host, port, timeout=_ENDLESS_S)
            return sock
        except ProxyConnectionError as error:
            if at == len(found) - 1:
                raise _translated(target, error) from error
        except Exception as error:  # the library raises its own and others'
            raise _translated(target, error) from error
    raise OSError(f"{proxy.host} has no address")


_ENDLESS_S = 3600.0  # its callers have a deadline of their own


def _dialed(proxy: Proxy, found: Sequence[AddressInfo], host: str, port: int, deadline: float) -> socket.socket:
    """Connect by the first of the proxy's addresses that answers; each has its share of the time."""
    from python_socks import ProxyConnectionError, ProxyType  # pyright: ignore[reportMissingImports] - an extra
    from python_socks.sync import Proxy as SyncProxy  # pyright: ignore[reportMissingImports] - an extra

    for at, address in enumerate(found):
        share = max(0.001, deadline - time.monotonic()) / (len(found) - at)
        library = SyncProxy(ProxyType.SOCKS5, str(address[4][0]), proxy.port, proxy.user, proxy.password, rdns=True)
        try:
            sock: socket.socket = library.connect(host, port, timeout=share)
            return sock
        except ProxyConnectionError:
            if at == len(found) - 1:
                raise
    raise OSError(f"{proxy.host} has no address")


def _translated(target: Endpoint, error: Any) -> BaseException:
    """Return what a failure of the library is here."""
    from python_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError  # pyright: ignore[reportMissingImports] - an extra

    assert target.proxy is not None
    name, told = target.proxy.name, str(error)
    if isinstance(error, ProxyTimeoutError):
        return TimeoutError(told)
    if isinstance(error, ProxyConnectionError):
        return LMTransportError(f"The proxy {name} was not reached: {error.strerror or told}.")
    if not isinstance(error, ProxyError):
        raised: BaseException = error
        return raised
    if "uthentication" in told:
        return LMProxyError(f"The proxy {name} refused the user and password of its URL, or wants some: {told}.")
    if error.error_code == _NOT_ALLOWED:
        return LMProxyError(f"The proxy {name} does not let {target.host} be reached: {told}.")
    return LMTransportError(f"The proxy {name} did not reach {target.host}: {told}.")


def _close_result(connecting: Future[Any]) -> None:
    if connecting.exception() is None:
        connecting.result().close()
