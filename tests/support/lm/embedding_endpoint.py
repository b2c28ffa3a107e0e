"""An endpoint that gives embeddings: the length of each text, and one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class EmbeddingEndpoint:
    """What arrived there, and the status and body to answer with instead."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.instead: tuple[int, dict[str, Any]] | None = None

    def reply(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.instead is not None:
            return self.instead
        texts = asked["input"]
        data = [{"object": "embedding", "index": at, "embedding": [len(text), 1.0]} for at, text in enumerate(texts)]
        usage = {"prompt_tokens": sum(map(len, texts)), "total_tokens": sum(map(len, texts))}
        return 200, {"object": "list", "data": data[::-1], "model": asked["model"], "usage": usage}


@contextmanager
def embedding_endpoint() -> Iterator[EmbeddingEndpoint]:
    """A running one."""
    endpoint = EmbeddingEndpoint()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            endpoint.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, asked))
            status, answer = endpoint.reply(asked)
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
