"""What a connection is to threads and to event loops: the parser of its response, its age, and how it fails."""

from __future__ import annotations

from ...errors import LMTimeoutError, LMTransportError
from .http_message import ResponseParser


class HttpConnection:
    """One connection to `host`, and the parser of its current response."""

    __slots__ = ("answered", "host", "idle_until", "parser")

    def __init__(self, host: str) -> None:
        self.host = host
        self.parser = ResponseParser()
        self.answered = False  # a byte of the current response has come
        self.idle_until = 0.0  # on time.monotonic()'s clock; a pool that keeps it sets this

    def begin(self) -> None:
        """Expect the response to a new request."""
        self.parser = ResponseParser()
        self.answered = False


def timed_out(host: str) -> LMTimeoutError:
    """Return the error of a request whose time is over."""
    return LMTimeoutError(f"{host} did not answer in time.")


def broken(host: str, error: OSError) -> LMTransportError:
    """Return the error of a connection that failed."""
    # Without strerror: several addresses were tried (localhost is two), and the text has what each answered.
    return LMTransportError(f"No answer from {host}: {error.strerror or str(error) or type(error).__name__}.")
