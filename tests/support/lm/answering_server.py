"""A server that answers every request alike, over TCP, TLS or a Unix socket."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

from tests.support.lm.peer import http


class AnsweringServer:
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
        self._open: list[socket.socket] = []
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
            self.port = self._listener.getsockname()[1]
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self._listener.listen(8)
            self.port = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with self._lock:
                    self.accepted += 1
                    self.open_now += 1
                    self.open_most = max(self.open_most, self.open_now)
                thread = threading.Thread(target=self._serve, args=(client,))
                self._threads.append(thread)
                thread.start()

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
