"""A proxy on the loopback interface: HTTP with CONNECT and absolute URLs, the same over TLS, or SOCKS 5."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import struct
import threading

from tests.support.lm.loopback_listener import LoopbackListener


class LoopbackProxy(LoopbackListener):
    """Whatever host is asked for, it connects to `upstream`. `asked` are the hosts, `logins` the credentials."""

    def __init__(
        self,
        upstream: int,
        *,
        tls: ssl.SSLContext | None = None,
        socks: bool = False,
        login: str | None = None,
        status: bytes | None = None,
    ) -> None:
        self.asked: list[str] = []
        self.logins: list[str] = []
        self._upstream = upstream
        self._tls = tls
        self._socks = socks
        self._login = login
        self._status = status
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = listener.getsockname()[1]
        super().__init__(listener)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            self._open.append(client)
            if self._socks:
                self._serve_socks(client)
            else:
                self._serve_http(client)
        client.close()

    def _serve_http(self, client: socket.socket) -> None:
        head, rest = _until(client, b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, where, _ = lines[0].split(" ")
        given = next((line.partition(": ")[2] for line in lines if line.lower().startswith("proxy-authorization")), "")
        self.logins.append(base64.b64decode(given.partition(" ")[2]).decode())
        self.asked.append(where)
        if self._status is not None or (self._login is not None and self.logins[-1] != self._login):
            client.sendall(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % (self._status or b"407 Login Required"))
            client.recv(1)
            return
        with socket.create_connection(("127.0.0.1", self._upstream)) as upstream:
            self._open.append(upstream)
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = "/" + where.split("/", 3)[3]
                upstream.sendall(head.replace(where.encode(), path.encode(), 1) + rest)
            _carry(client, upstream)

    def _serve_socks(self, client: socket.socket) -> None:
        _, count = _exactly(client, 2)
        methods = _exactly(client, count)
        if self._login is not None:
            if 2 not in methods:
                client.sendall(b"\x05\xff")
                return
            client.sendall(b"\x05\x02")
            user = _exactly(client, _exactly(client, 2)[1])
            password = _exactly(client, _exactly(client, 1)[0])
            self.logins.append(f"{user.decode()}:{password.decode()}")
            client.sendall(b"\x01\x00" if self.logins[-1] == self._login else b"\x01\x01")
            if self.logins[-1] != self._login:
                return
        else:
            client.sendall(b"\x05\x00")
        kind = _exactly(client, 4)[3]
        length = {1: 4, 4: 16}.get(kind) or _exactly(client, 1)[0]
        raw = _exactly(client, length)
        (port,) = struct.unpack("!H", _exactly(client, 2))
        host = raw.decode() if kind == 3 else socket.inet_ntop({1: socket.AF_INET, 4: socket.AF_INET6}[kind], raw)
        self.asked.append(f"{host}:{port}")
        code = int(self._status or b"0")
        client.sendall(b"\x05%c\x00\x01\x00\x00\x00\x00\x00\x00" % code)
        if code:
            return
        with socket.create_connection(("127.0.0.1", self._upstream)) as upstream:
            self._open.append(upstream)
            _carry(client, upstream)


def _carry(client: socket.socket, upstream: socket.socket) -> None:
    """Carry bytes both ways until one side ends."""

    def back() -> None:
        with contextlib.suppress(OSError):
            while data := upstream.recv(65536):
                client.sendall(data)
        with contextlib.suppress(OSError):
            socket.socket.shutdown(client, socket.SHUT_RDWR)

    thread = threading.Thread(target=back)
    thread.start()
    with contextlib.suppress(OSError):
        while data := client.recv(65536):
            upstream.sendall(data)
    with contextlib.suppress(OSError):
        upstream.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def _until(sock: socket.socket, end: bytes) -> tuple[bytes, bytes]:
    data = b""
    while end not in data:
        got = sock.recv(65536)
        if not got:
            raise EOFError
        data += got
    head, _, rest = data.partition(end)
    return head + end, rest


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        got = sock.recv(count - len(data))
        if not got:
            raise EOFError
        data += got
    return data
