"""Look a host's addresses up, on a thread of its own: `getaddrinfo` takes no timeout, and may hang for minutes.

Equal lookups that are under way share one thread, so a resolver that hangs holds as many threads as there are hosts.
Nothing is kept: each new connection asks again. Any thread.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")
AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]

_under_way: dict[tuple[str, int], Future[list[AddressInfo]]] = {}
_LITERALS = (socket.AF_INET, socket.AF_INET6)


def addresses(host: str, port: int, timeout: float) -> list[AddressInfo]:
    """Return the addresses of a host, in the order in which to try them; the families take turns.

    Raises:
        TimeoutError: the time is over.
        OSError: there is no such host.
    """
    found = literal(host, port)
    return found if found is not None else in_turns(waited(lookup(host, port), timeout))


def literal(host: str, port: int) -> list[AddressInfo] | None:
    """Return the address of a host that is one; None for a name."""
    for family in _LITERALS:
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)  # type: ignore[return-value]
    return None


def on_thread(work: Callable[[], T]) -> Future[T]:
    """Return the result of `work`, which runs on a daemon thread.

    Raises:
        OSError: no thread can be started.
    """
    from concurrent.futures import Future  # for names and SOCKS only

    return _start(Future(), work)


def waited(future: Future[T], timeout: float) -> T:
    """Return a future's result.

    Raises:
        TimeoutError: the time is over; whoever else waits for it goes on.
    """
    from concurrent.futures import TimeoutError as NotInTime

    try:
        return future.result(max(0.0, timeout))
    except NotInTime:
        if future.done():
            raise
        raise TimeoutError("the time is over") from None


def _start(future: Future[T], work: Callable[[], T]) -> Future[T]:
    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # whoever waits gets it
            future.set_exception(error)

    try:
        threading.Thread(target=run, name="dspex-connect", daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, "no thread can be started") from error
    return future


def lookup(host: str, port: int) -> Future[list[AddressInfo]]:
    """Return what the resolver will find, in its own order."""
    from concurrent.futures import Future

    key = (host, port)
    own: Future[list[AddressInfo]] = Future()
    shared = _under_way.setdefault(key, own)
    if shared is not own:
        return shared
    try:
        return _start(own, lambda: _looked_up(key))
    except OSError as error:
        _under_way.pop(key, None)
        own.set_exception(error)  # others may wait for it already
        raise


def _looked_up(key: tuple[str, int]) -> list[AddressInfo]:
    try:
        return socket.getaddrinfo(*key, type=socket.SOCK_STREAM)  # type: ignore[return-value]
    finally:
        _under_way.pop(key, None)


def in_turns(found: list[AddressInfo]) -> list[AddressInfo]:
    """Return the addresses with their families alternating (RFC 8305), the resolver's first one first."""
    families: dict[int, list[AddressInfo]] = {}
    for each in found:
        families.setdefault(each[0], []).append(each)
    columns = list(families.values())
    return [column[at] for at in range(max(map(len, columns), default=0)) for column in columns if at < len(column)]


def _in_forked_child() -> None:
    _under_way.clear()  # their threads are the parent's


os.register_at_fork(after_in_child=_in_forked_child)
