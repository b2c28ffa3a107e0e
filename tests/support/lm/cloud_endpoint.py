"""An endpoint that answers as OpenAI's, Anthropic's and Google's do, by a request's path, and keeps requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TEXT = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


@dataclass(frozen=True)
class Received:
    """A request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)


class CloudEndpoint:
    """Serves on a port of its own; `answers` holds (status, body) to send before the ordinary ones."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: list[tuple[int, Any]] = []
        self.routes: dict[str, Callable[[Received], Any]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="cloud-endpoint")
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def taken(self) -> list[Received]:
        """Return what was received since the last time."""
        taken, self.received[:] = list(self.received), []
        return taken

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"  # a connection for each request: none is left open at the end

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                asked = Received(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                status, kind, sent = endpoint._answer(asked)
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def _answer(self, asked: Received) -> tuple[int, str, bytes]:
        for path, route in self.routes.items():
            if asked.path.startswith(path):
                return 200, "application/json", json.dumps(route(asked)).encode()
        self.received.append(asked)
        if self.answers:
            status, body = self.answers.pop(0)
            sent = body(asked) if callable(body) else body
            return status, "application/json", sent if isinstance(sent, bytes) else json.dumps(sent).encode()
        if ":streamGenerateContent" in asked.path or b'"stream":true' in asked.body or ":streamRaw" in asked.path:
            return 200, "text/event-stream", stream(asked.path)
        return 200, "application/json", json.dumps(answer(asked.path)).encode()


def family(path: str) -> str:
    """Return whose dialect a path is of."""
    if "enerateContent" in path:
        return "gemini"
    if path.endswith("/responses"):
        return "responses"
    return "anthropic" if "/messages" in path or "awPredict" in path else "openai"


def answer(path: str, text: str = TEXT) -> dict[str, Any]:
    """Return a whole answer."""
    kind = family(path)
    if kind == "gemini":
        return {
            "candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 12},
        }
    if kind == "responses":
        said = {"type": "output_text", "text": text, "annotations": []}
        return {
            "id": "r1",
            "object": "response",
            "status": "completed",
            "model": "m",
            "output": [{"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": [said]}],
            "usage": {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12},
        }
    if kind == "anthropic":
        return {
            "id": "m1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 7, "output_tokens": 5},
        }
    message = {"role": "assistant", "content": text}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": USAGE,
    }


def stream(path: str, text: str = TEXT) -> bytes:
    """Return the events of a streamed answer."""
    kind, pieces = family(path), [text[at : at + 7] for at in range(0, len(text), 7)]
    events: list[Any] = []
    if kind == "gemini":
        events = [{"candidates": [{"content": {"role": "model", "parts": [{"text": piece}]}}]} for piece in pieces]
        events.append({**answer(path), "candidates": [{"content": {"parts": []}, "finishReason": "STOP"}]})
    elif kind == "responses":
        whole = answer(path, text)
        events = [{"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}}]
        told = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "item_id": "m1"}
        events += [{**told, "delta": piece} for piece in pieces]
        events.append({"type": "response.completed", "response": whole})
    elif kind == "anthropic":
        begun = {"id": "m1", "type": "message", "role": "assistant", "model": "m", "content": []}
        events = [{"type": "message_start", "message": {**begun, "usage": {"input_tokens": 7, "output_tokens": 1}}}]
        events.append({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
        events += [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": 0})
        usage = {"output_tokens": 5}
        events.append({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage})
        events.append({"type": "message_stop"})
    else:
        head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        events = [{**head, "choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
        events.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        events.append({**head, "choices": [], "usage": USAGE})
    lines = [
        f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" if "type" in e else f"data: {json.dumps(e)}\n\n"
        for e in events
    ]
    return ("".join(lines) + ("data: [DONE]\n\n" if kind == "openai" else "")).encode()
