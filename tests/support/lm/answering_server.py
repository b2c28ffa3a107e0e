"""A server that answers every request alike, over TCP, TLS or a Unix socket."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

from tests.support.lm.loopback_listener import LoopbackListener
from tests.support.lm.peer import http


class AnsweringServer(LoopbackListener):
    """Reads requests and answers each with `reply`; `heads` are what it read, `peers` the clients' certificates."""

    def __init__(
        self,
        reply: bytes | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        path: str | None = None,
        delay: threading.Event | None = None,
    ) -> None:
        self.heads: list[bytes] = []
        self.peers: list[object] = []
        self.accepted = 0
        self.open_now = 0
        self.open_most = 0
        self._lock = threading.Lock()
        self._reply = http() if reply is None else reply
        self._tls = tls
        self._delay = delay
        if path is None:
            listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
            self.port = listener.getsockname()[1]
        else:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            listener.listen(8)
            self.port = 0
        super().__init__(listener)

    def _accepted(self) -> None:
        with self._lock:
            self.accepted += 1
            self.open_now += 1
            self.open_most = max(self.open_most, self.open_now)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
                self.peers.append(client.getpeercert())
            self._open.append(client)
            while data := client.recv(65536):
                while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < _length(data):
                    data += client.recv(65536)
                self.heads.append(data.partition(b"\r\n\r\n")[0])
                if self._delay is not None:
                    self._delay.wait(20)
                client.sendall(self._reply)
        client.close()
        with self._lock:
            self.open_now -= 1


def _length(data: bytes) -> int:
    head = data.partition(b"\r\n\r\n")[0].lower()
    return int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
