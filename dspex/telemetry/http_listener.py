"""Answer `/livez`, `/readyz` and `/metrics` on a port of this machine, by the standard library's WSGI server.

A thread for each of at most `CONNECTIONS_MOST` requests at a time. Only requests for a name of this machine are
answered, so that a page of the web which a browser here shows cannot ask (DNS rebinding).
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from ..errors import DspexError, MissingDependency, SettingsError
from .metrics_app import metrics_app

if TYPE_CHECKING:
    from ..pools.supervisor import Supervisor

HOST: Final = "127.0.0.1"
CONNECTIONS_MOST: Final = 64
IDLE_S: Final = 10.0  # seconds that a client may take to say what it wants
_OWN_NAMES: Final = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)

WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class HttpListener:
    """A supervisor's port for monitoring. `start` and `close` may come from any thread."""

    def __init__(self, supervisor: Supervisor, port: int) -> None:
        """`port` 0 takes a free one.

        Raises:
            SettingsError: it is no port.
        """
        self._supervisor = supervisor
        self._wanted = checked_port(port)
        self._apps: dict[str, WSGIApp] = {"/livez": _livez, "/readyz": self._readyz, "/metrics": self._metrics}
        self._metrics_app: WSGIApp | None = None
        self._server: _BoundedServer | None = None

    def mount(self, path: str, app: WSGIApp) -> None:
        """Answer this path and all below it by a WSGI application; "/" takes what nothing else does.

        What it yields is sent as it is yielded; `PATH_INFO` is the whole path.
        """
        self._apps[path] = app

    def start(self) -> HttpListener:
        """Listen from now on.

        Raises:
            SettingsError: the port cannot be had.
        """
        try:
            self._server = server = _BoundedServer((HOST, self._wanted), _QuietRequest)
        except OSError as error:
            reason = error.strerror or error
            raise SettingsError(f"Port {self._wanted} of {HOST} cannot be had: {reason}.", key="http.port") from error
        try:
            self._metrics_app = metrics_app(self._supervisor).wsgi  # calls are counted from here on
        except MissingDependency:  # /metrics says so
            self._metrics_app = None
        server.set_app(self._answer)
        threading.Thread(target=server.serve_forever, name="dspex-http", daemon=True).start()
        return self

    def close(self) -> None:
        """Listen no more; may be called twice. Answers under way are cut with their connections."""
        server, self._server = self._server, None
        if server is not None:
            if server.pid == os.getpid():
                server.shutdown()
            server.server_close()

    def after_fork(self) -> None:
        """In a forked child: let go of the parent's socket."""
        if self._server is not None:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(null, self._server.fileno(), inheritable=False)
            os.close(null)

    @property
    def port(self) -> int:
        """The port that it listens on; 0 before the start."""
        return 0 if self._server is None else self._server.server_port

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    # ============================================================================================================

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not _OWN_NAMES.fullmatch(environ.get("HTTP_HOST", "")):
            return _say(start_response, "421 Misdirected Request", "This port answers for names of this machine only.")
        path = environ.get("PATH_INFO", "/")
        app = self._apps.get(path) or self._app_above(path)
        if app is None:
            return _say(start_response, "404 Not Found", f"There are {', '.join(sorted(self._apps))}.")
        return app(environ, start_response)

    def _app_above(self, path: str) -> WSGIApp | None:
        above = [mounted for mounted in self._apps if path.startswith(mounted.rstrip("/") + "/")]
        return self._apps[max(above, key=len)] if above else None

    def _readyz(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            reasons = {name: row["reason"] for name, row in self._supervisor.health().items() if not row["is_ready"]}
        except DspexError as error:  # it is stopping
            reasons = {"supervisor": str(error)}
        if not self._supervisor.is_running:
            reasons = {"supervisor": "it is stopped"}
        body = {"status": "not ready", "reasons": reasons} if reasons else {"status": "ready"}
        return _say_json(start_response, "503 Service Unavailable" if reasons else "200 OK", body)

    def _metrics(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self._metrics_app is None:
            return _say(start_response, "501 Not Implemented", "Metrics need prometheus_client: dspex[metrics].")
        return self._metrics_app(environ, start_response)


def checked_port(port: Any) -> int:
    """Return a port.

    Raises:
        SettingsError: it is none.
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise SettingsError(f"http.port is {port!r}: it must be a number from 0 to 65535.", key="http.port")
    return port


def _livez(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    return _say_json(start_response, "200 OK", {"status": "alive"})


def _say_json(start_response: Callable[..., Any], status: str, body: dict[str, Any]) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
    return [json.dumps(body).encode()]


def _say(start_response: Callable[..., Any], status: str, text: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [text.encode() + b"\n"]


class _BoundedServer(ThreadingMixIn, WSGIServer):
    """The standard library's server, with a bounded number of threads."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = CONNECTIONS_MOST

    def __init__(self, *arguments: Any) -> None:
        self._places = threading.BoundedSemaphore(CONNECTIONS_MOST)
        self.pid = os.getpid()
        super().__init__(*arguments)

    def server_bind(self) -> None:
        """Bind without asking a name server who we are."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, self.server_address[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # "can't start new thread"
            self._places.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away is no error of ours."""


class _QuietRequest(WSGIRequestHandler):
    timeout = IDLE_S  # of each read and write

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: probes come every few seconds."""
