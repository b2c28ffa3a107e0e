"""A listener on the loopback interface that serves each connection in a thread of its own, and ends them all."""

from __future__ import annotations

import contextlib
import socket
import threading


class LoopbackListener:
    """Accepts until it is closed; what derives from it serves a client, and adds to `_open` what a close must end."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._open: list[socket.socket] = []
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
                self._accepted()
                thread = threading.Thread(target=self._serve, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _accepted(self) -> None:
        """Be told of a connection before it is served."""

    def _serve(self, client: socket.socket) -> None:
        raise NotImplementedError
