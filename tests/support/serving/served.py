"""An ASGI application under uvicorn, on a thread of this process, and requests to it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from typing import Any

import httpx
import uvicorn

PATIENCE = 30.0


class Served:
    """Serves from `with` on; the lifespan has run when the block begins, and has ended after it."""

    def __init__(self, app: Any, **config: Any) -> None:
        self.app = app
        self.workers: Any = None  # the supervisor of its programs, where a test looks at it
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=2, **config)
        )
        self._thread = threading.Thread(target=self._run, name="served", daemon=True)
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE)

    def post(self, path: str, given: Any, **headers: str) -> httpx.Response:
        """Post JSON."""
        return self.client.post(
            path, json=given, headers={name.replace("_", "-"): each for name, each in headers.items()}
        )

    def raw(self, path: str, given: Any, *headers: str) -> socket.socket:
        """Send a request and do not wait for its answer; closing the socket is the client's disconnect."""
        body = json.dumps(given).encode()
        lines = [
            f"POST {path} HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        made = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        made.sendall("\r\n".join([*lines, *headers, "", ""]).encode() + body)
        return made

    def __enter__(self) -> Served:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            threading.Event().wait(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join(PATIENCE)
        self._listener.close()
        assert not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.run(self._server.serve([self._listener]))


def events_of(text: str) -> list[tuple[str, Any]]:
    """The events of a stream: kind and data."""
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found
