"""Give a job's later worker the answers that its earlier one got: of language models, metrics and tools of the host.

An optimizer with a seed asks the same things in the same order, so a worker that has them answered from a record
comes, without a request and at once, to where its predecessor died. A job opens its record for its own calls
(`recording`); the handlers of its workers' requests find it in their contextvars. What failed is not kept,
nor are tools' results that cross as Python objects: these are asked again.

Requests that may be cached are told apart by what they say; others, metrics and tools also by how often the same was
asked before: the second answer to a question is another than the first.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from dspex_worker.wire import codec

if TYPE_CHECKING:
    from ..pools.callbacks import Callback

_ASKED = ("method", "url", "body", "rollout_id", "candidate", "members", "is_bare")  # of an LM request
_APART = {"metric.call": ("id",), "tool.call": ("id",)}  # what changes with each process


class AnswerStore(Protocol):
    """Where answers are kept. Any thread."""

    def answer(self, key: str) -> Mapping[str, Any] | None:
        """Return what was kept under the key."""
        ...

    def keep(self, key: str, kind: str, answer: Mapping[str, Any]) -> None:
        """Keep an answer, as plain data; it is safe once this returns."""
        ...


class KeptAnswers:
    """The answers for one worker of a job. `metrics`: whether its metric is the one whose results were kept."""

    def __init__(self, store: AnswerStore, *, metrics: bool = True) -> None:
        self._store = store
        self._metrics = metrics
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    async def of_lm(
        self, request: Mapping[str, Any], forward: Callable[[], AsyncIterator[Any]]
    ) -> AsyncGenerator[Any, None]:
        """Yield the kept response to a request, else that of `forward`, which is kept before a worker has all of it."""
        key = _digest("lm", _asked(request))
        if request.get("cache") is False:
            key = self._numbered(key)
        if (kept := self._store.answer(key)) is not None:
            yield {"status": 200, "headers": kept["headers"], "cached": True}
            yield _bytes_of(kept["body"])
            return
        parts: list[bytes] = []
        head: dict[str, Any] | None = None
        async with aclosing(forward()) as response:  # type: ignore[type-var]  # an async generator
            async for part in response:
                if head is None:
                    head = part
                    yield head
                elif request.get("stream"):
                    parts.append(part)
                    yield part
                else:
                    parts.append(part)
        if head is not None and head["status"] == 200:
            self._store.keep(key, "lm", {"headers": head["headers"], "body": _text_of(b"".join(parts))})
        if not request.get("stream"):
            for part in parts:
                yield part

    def of_handler(self, request: Callback, handler: Callable[[Callback], Any]) -> Any:
        """Return the kept result of a metric or a tool, else the handler's, which is kept."""
        if (key := self._key_of(request)) is None:
            return handler(request)
        if (kept := self._store.answer(key)) is not None:
            return _value_of(kept)
        return self._kept(key, request.name, handler(request))

    async def of_async_handler(self, request: Callback, handler: Callable[[Callback], Awaitable[Any]]) -> Any:
        """`of_handler`, for one that is asynchronous."""
        if (key := self._key_of(request)) is None:
            return await handler(request)
        if (kept := self._store.answer(key)) is not None:
            return _value_of(kept)
        return self._kept(key, request.name, await handler(request))

    def _key_of(self, request: Callback) -> str | None:
        """Return what a metric's or tool's result is kept under; None if it is not."""
        if request.name == "metric.call" and not self._metrics:
            return None
        apart = _APART.get(request.name, ())
        given = {name: value for name, value in request.arguments.items() if name not in apart}
        return self._numbered(_digest(request.name, given))

    def _kept(self, key: str, kind: str, value: Any) -> Any:
        """Keep a result, and return it."""
        if isinstance(value, dict) and "carried" in value:  # a pickle: no file may bring one into a worker
            return value
        if _is_json(value):
            self._store.keep(key, kind, {"value": value})
        else:
            packed = codec.encode(value)  # what cannot be encoded could not be sent either
            self._store.keep(key, kind, {"packed": base64.b64encode(packed).decode("ascii")})
        return value

    def _numbered(self, key: str) -> str:
        with self._lock:
            number = self._asked[key]
            self._asked[key] += 1
        return f"{key}.{number}"


_open: ContextVar[KeptAnswers | None] = ContextVar("dspex_kept_answers", default=None)


def kept_answers() -> KeptAnswers | None:
    """Return the record of the job whose call this is."""
    return _open.get()


@contextmanager
def recording(answers: KeptAnswers) -> Generator[None]:
    """Keep the answers to what workers ask for the calls that are made in the block."""
    token = _open.set(answers)
    try:
        yield
    finally:
        _open.reset(token)


def kept(handler: Callable[[Callback], Any]) -> Callable[[Callback], Any]:
    """Return the handler of a metric or a tool, with its results kept for jobs."""

    def keeping(request: Callback) -> Any:
        answers = kept_answers()
        return handler(request) if answers is None else answers.of_handler(request, handler)

    return keeping


def akept(handler: Callable[[Callback], Awaitable[Any]]) -> Callable[[Callback], Awaitable[Any]]:
    """`kept`, for a handler that is asynchronous."""

    async def keeping(request: Callback) -> Any:
        answers = kept_answers()
        return await (handler(request) if answers is None else answers.of_async_handler(request, handler))

    return keeping


def _value_of(kept: Mapping[str, Any]) -> Any:
    return codec.decode(base64.b64decode(kept["packed"])) if "packed" in kept else kept["value"]


def _asked(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a request asks. The texts that stand for media in its body are drawn anew each time: media count."""
    asked = {name: request.get(name) for name in _ASKED}
    body = request["body"] if isinstance(request["body"], bytes) else request["body"].encode()
    for stand_in, block in (request.get("media") or {}).items():
        body = body.replace(stand_in.encode(), _digest("media", block).encode())
    return {**asked, "body": body}


def _digest(kind: str, given: Any) -> str:
    text = json.dumps([kind, given], sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else repr(value)


def _is_json(value: Any) -> bool:
    try:
        text = json.dumps(value, allow_nan=False)
        text.encode("utf-8")
        return bool(json.loads(text) == value) and type(json.loads(text)) is type(value)
    except (TypeError, ValueError, RecursionError):
        return False


def _text_of(body: bytes) -> str | dict[str, str]:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode("ascii")}


def _bytes_of(body: str | Mapping[str, str]) -> bytes:
    return body.encode("utf-8") if isinstance(body, str) else base64.b64decode(body["base64"])
