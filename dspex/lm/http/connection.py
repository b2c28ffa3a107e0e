"""What a connection is to threads and to event loops: the parser of its response, its age, and how it fails."""

from __future__ import annotations

import errno
from collections.abc import Callable

from ...errors import LMError, LMLocalLimitError, LMTimeoutError, LMTransportError
from .http_message import ResponseParser
from .tls_failures import tls_failure

WAITED_FOR_A_PLACE = "connection_limit"  # the code of an error: the endpoint was not asked
_LOCAL = {
    errno.EMFILE: "file descriptors in this process (ulimit -n)",
    errno.ENFILE: "file descriptors on this machine",
    errno.EADDRNOTAVAIL: "ports, or no address of its kind, on this machine",
    errno.ENOBUFS: "memory for sockets on this machine",
    errno.ENOMEM: "memory for sockets on this machine",
    errno.EAGAIN: "threads in this process",
}


class HttpConnection:
    """One connection to `host`, and the parser of its current response."""

    __slots__ = ("answered", "give_back", "host", "idle_until", "parser")

    def __init__(self, host: str) -> None:
        self.host = host
        self.parser = ResponseParser()
        self.answered = False  # a byte of the current response has come
        self.idle_until = 0.0  # on time.monotonic()'s clock; a pool that keeps it sets this
        self.give_back: Callable[[], object] | None = None  # the place that it holds in its pool

    def begin(self) -> None:
        """Expect the response to a new request."""
        self.parser = ResponseParser()
        self.answered = False

    def leave_place(self) -> None:
        """Let another connection have its place; once."""
        give_back, self.give_back = self.give_back, None
        if give_back is not None:
            give_back()


def timed_out(host: str) -> LMTimeoutError:
    """Return the error of a request whose time is over."""
    return LMTimeoutError(f"{host} did not answer in time.")


def broken(host: str, error: OSError) -> LMTransportError:
    """Return the error of a connection that failed."""
    if isinstance(error, LMTransportError):
        return error
    if getattr(error, "library", None) == "SSL" or hasattr(error, "verify_code"):
        return tls_failure(host, error)
    if is_local(error):
        return LMLocalLimitError(
            f"No connection to {host}: no more {_LOCAL[error.errno or 0]}. Raise the limit, ask for less at once, or "
            f"lower max_connections."
        )
    # Without strerror: several addresses were tried (localhost is two), and the text has what each answered.
    return LMTransportError(f"No answer from {host}: {error.strerror or str(error) or type(error).__name__}.")


def is_local(error: OSError) -> bool:
    """Return whether a connection failed for want of something here: no fault of the endpoint's."""
    return error.errno in _LOCAL and not isinstance(error, LMError)


def no_place(host: str, most: int, waited_s: float) -> LMTimeoutError:
    """Return the error of a request that got no connection in time."""
    return LMTimeoutError(
        f"{host} was not asked: all of its {most} connections were in use for {waited_s:.3g} s. Raise max_connections, "
        f"or ask for less at once.",
        code=WAITED_FOR_A_PLACE,
    )
