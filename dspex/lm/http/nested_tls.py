"""`NestedTls`: TLS within a TLS socket, which `ssl` wraps for event loops only: an https:// endpoint behind an https://
proxy. It has those methods of a socket that a `BlockingConnection` uses. One thread at a time.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_CHUNK = 64 * 1024


class NestedTls:
    """A TLS connection over the bytes of `outer`; every call ends within the time that was set last."""

    def __init__(self, outer: ssl.SSLSocket, context: ssl.SSLContext, server_name: str, timeout: float) -> None:
        self.outer = outer
        self._deadline = time.monotonic() + timeout
        self._arrived = ssl.MemoryBIO()
        self._leaving = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._arrived, self._leaving, server_hostname=server_name)
        self._carried(self._tls.do_handshake)

    def settimeout(self, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            part = view[:_CHUNK]
            view = view[self._carried(lambda part=part: self._tls.write(part)) :]  # type: ignore[misc]

    def recv(self, size: int) -> bytes:
        try:
            return self._carried(lambda: self._tls.read(size))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def fileno(self) -> int:
        return self.outer.fileno()

    def close(self) -> None:
        self.outer.close()

    def _carried(self, step: Callable[[], T]) -> T:
        """Do one step, and carry the bytes that it needs and makes."""
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._send()
                self._receive()
            except ssl.SSLError:
                self._send()  # the alert that says why
                raise
            else:
                self._send()
                return result

    def _send(self) -> None:
        if data := self._leaving.read():
            self._bound()
            self.outer.sendall(data)

    def _receive(self) -> None:
        self._bound()
        if data := self.outer.recv(_CHUNK):
            self._arrived.write(data)
        else:
            self._arrived.write_eof()

    def _bound(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time is over")
        self.outer.settimeout(left)
