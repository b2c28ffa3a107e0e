"""`Dialect`: the interface of a dialect; `openai`, `anthropic` and `gemini` are modules of this shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import LMError
from .answer import Answer
from .stream_reader import StreamReader

if TYPE_CHECKING:
    from ..record import LM

Message = Mapping[str, Any]


class Dialect(Protocol):
    """The API of one family of endpoints."""

    def endpoint(self, lm: LM) -> str:
        """Return the URL of a completion."""
        ...

    def owns(self, lm: LM, url: str) -> bool:
        """Return whether the URL is a completion of the LM's model."""
        ...

    def streams(self, url: str, asked: Mapping[str, Any]) -> bool:
        """Return whether a request asks for a stream."""
        ...

    def names_another(self, lm: LM, asked: Mapping[str, Any]) -> bool:
        """Return whether a request's body names another model than the record."""
        ...

    def reporting(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return a worker's request, asking for what it uses to be reported."""
        ...

    def body(self, lm: LM, messages: Sequence[Message], given: Mapping[str, Any], stream: bool) -> bytes:
        """Return the request's body."""
        ...

    def answer(self, lm: LM, body: bytes) -> Answer:
        """Return a 2xx response's body, read."""
        ...

    def repaired(self, lm: LM, body: bytes) -> bytes:
        """Return the body with tool arguments that are no objects kept where a worker's reader would empty them."""
        ...

    def usage_in(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the counters that a response or an event holds, in DSPy's shape."""
        ...

    def reader(self, lm: LM) -> StreamReader:
        """Return a reader for a streamed response."""
        ...

    def failure(self, lm: LM, status: int, body: bytes) -> LMError:
        """Return the error that a response of 400 and more stands for."""
        ...
