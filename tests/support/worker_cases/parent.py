"""A double of the parent process: it answers callbacks, LM requests above all, from scripts or over HTTP."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from dspex_worker.bridge import Cancelled, Context, Failure
from dspex_worker.context import running_context

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
RECORD = {"ref": "r1", "model": "openai/gpt-test", "api_base": "http://lm.invalid/v1", "cache": True}
_programs: Any = None


def start() -> None:
    """Warm and set up this process as a worker would."""
    global _programs
    from dspex_worker.programs import dspy_setup

    dspy_setup.warm({}, optimizers=True)
    _programs = dspy_setup.setup({"imports": ["tests.support.user_code"]})


def programs() -> Any:
    return _programs


class Parent(Context):
    """A call's context whose callbacks are answered by `handlers[name](arguments)`; a generator streams."""

    def __init__(self, **handlers: Callable[[dict[str, Any]], Any]) -> None:
        self.handlers = handlers
        self.requests: list[dict[str, Any]] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.closed = 0
        self.concealed: tuple[str, ...] = ()
        self.cancelled = threading.Event()
        self.deadline_point: float | None = None

    call_id = 1
    pool = "dspy"
    worker = "dspy/0"
    generation = 1
    session_id = None
    session = None
    is_trusted = False

    @property
    def deadline(self) -> float | None:
        return self.deadline_point

    def conceal(self, *secrets: str) -> None:
        self.concealed += secrets

    def call_parent(self, name: str, arguments: dict[str, Any], timeout: float | None = None) -> Any:
        self.check_cancelled()
        self.asked.append((name, json.loads(json.dumps(arguments))))
        answer = self.handlers[name.replace(".", "_")](arguments)
        return {"value": answer} if name == "tool.call" else answer

    def stream_parent(self, name: str, arguments: dict[str, Any]) -> Any:
        return Chunks(self, name, arguments)

    def emit(self, event: str, facts: dict[str, Any]) -> None:
        self.events.append((event, facts))

    def when_cancelled(self, ring: Callable[[], object]) -> Any:
        return nullcontext()

    def check_cancelled(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request["body"]) for request in self.requests]

    def call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Run one of the programs' commands as the runtime would; a generator gives (chunks, value)."""
        token = running_context.set(self)
        try:
            produced = function(*arguments, **named)
            return drained(produced) if hasattr(produced, "__next__") else produced
        finally:
            running_context.reset(token)


class Chunks(Iterator[Any]):
    def __init__(self, parent: Parent, name: str, arguments: dict[str, Any]) -> None:
        self._parent = parent
        parent.check_cancelled()
        if name == "lm.request":
            assert type(arguments["body"]) is bytes
            parent.requests.append(arguments)
        self._source = iter(parent.handlers[name.replace(".", "_")](arguments))

    def __next__(self) -> Any:
        self._parent.check_cancelled()
        item = next(self._source)
        self._parent.check_cancelled()
        return item

    def close(self) -> None:
        self._parent.closed += 1


def drained(stream: Any) -> tuple[list[Any], Any]:
    chunks = []
    while True:
        try:
            chunks.append(next(stream))
        except StopIteration as end:
            return chunks, end.value


def parent(answer: Callable[[dict[str, Any]], Any] | str, **handlers: Callable[..., Any]) -> Parent:
    """A parent whose LM answers `answer(body)`: a text, a whole message, or a Failure to raise."""

    def lm_request(request: dict[str, Any]) -> Iterator[Any]:
        body = json.loads(request["body"])
        given = answer(body) if callable(answer) else answer
        if isinstance(given, Failure):
            raise given
        if isinstance(given, tuple):
            status, payload, headers = given
            yield {"status": status, "headers": headers}
            yield json.dumps(payload).encode()
        elif body.get("stream"):
            yield {"status": 200, "headers": [["content-type", "text/event-stream"]]}
            yield from sse(given)
        else:
            yield {"status": 200, "headers": [["content-type", "application/json"]]}
            yield json.dumps(completion(given, body["model"])).encode()

    return Parent(lm_request=lm_request, **handlers)


def completion(content: Any, model: str = "m") -> dict[str, Any]:
    message = content if isinstance(content, dict) else {"role": "assistant", "content": content}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [choice],
        "usage": USAGE,
    }


def sse(text: str, size: int = 3) -> Iterator[bytes]:
    def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    yield event({"role": "assistant", "content": ""})
    for at in range(0, len(text), size):
        yield event({"content": text[at : at + size]})
    yield event({}, "stop")
    last = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": USAGE}
    yield b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n"


def chat(**fields: str) -> str:
    """An answer in ChatAdapter's format."""
    return "".join(f"[[ ## {name} ## ]]\n{text}\n\n" for name, text in fields.items()) + "[[ ## completed ## ]]"


def signature(inputs: str = "question", outputs: str = "answer", **extra: Any) -> dict[str, Any]:
    """A wire spec from `name: type` lists separated by `;`."""
    fields = [_field(text, "input") for text in inputs.split(";")] + [
        _field(text, "output") for text in outputs.split(";")
    ]
    names = [
        ", ".join(f"`{field['name']}`" for field in fields if field["kind"] == kind) for kind in ("input", "output")
    ]
    instructions = f"Given the fields {names[0]}, produce the fields {names[1]}."
    return {"instructions": instructions, "fields": fields, "types": {}} | extra


def _field(text: str, kind: str) -> dict[str, Any]:
    name, colon, annotation = text.strip().partition(":")
    return {
        "name": name.strip(),
        "kind": kind,
        "annotation": annotation.strip() or "str",
        "untyped": not colon,
        "desc": None,
        "constraints": None,
        "default": None,
    }


def spec(module: str = "dspy.Predict", sig: dict[str, Any] | None = None, **extra: Any) -> dict[str, Any]:
    return {"module": module, "signature": sig or signature(), "options": {}, "state": None} | extra


@contextmanager
def server(answer: Callable[[dict[str, Any]], str]) -> Iterator[tuple[str, list[bytes]]]:
    """A real HTTP server in OpenAI's dialect on 127.0.0.1; gives its base URL and the bodies it got."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            bodies.append(body)
            sent = json.loads(body)
            text = answer(sent)
            payload = (
                b"".join(sse(text)) if sent.get("stream") else json.dumps(completion(text, sent["model"])).encode()
            )
            self.send_response(200)
            self.send_header("content-type", "text/event-stream" if sent.get("stream") else "application/json")
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}/v1", bodies
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


@contextmanager
def held_server(release: threading.Event, gone: threading.Event) -> Iterator[str]:
    """A server that streams the beginning of an answer, and the rest in small pieces once `release` is set.

    `gone` is set when the client closes the connection before the end.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            events = list(sse(chat(answer="first " + "more " * 20_000), size=6))
            try:
                for number, event in enumerate(events):
                    if number == 6:
                        release.wait(20)
                    self.wfile.write(event)
            except OSError:
                gone.set()
            self.close_connection = True

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}/v1"
    finally:
        release.set()
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def over_http() -> Parent:
    """A parent that carries LM requests to where they say, adding the key; as the real one does."""

    def lm_request(request: dict[str, Any]) -> Iterator[Any]:
        target = urlsplit(request["url"])
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=10)
        try:
            headers = dict(request["headers"]) | {"Authorization": "Bearer real"}
            connection.request(request["method"], target.path, request["body"], headers)
            answer = connection.getresponse()
            yield {"status": answer.status, "headers": [[name, value] for name, value in answer.getheaders()]}
            while chunk := answer.read(64):
                yield chunk
        finally:
            connection.close()

    return Parent(lm_request=lm_request)


@contextmanager
def fails_with(kind: str) -> Iterator[list[Failure]]:
    """The block must raise a Failure of this kind; it is in the list afterwards."""
    caught: list[Failure] = []
    try:
        yield caught
    except Failure as failure:
        assert failure.kind == kind, f"{failure.kind}: {failure.message}"
        caught.append(failure)
    else:
        raise AssertionError(f"nothing was raised; {kind} was expected")
