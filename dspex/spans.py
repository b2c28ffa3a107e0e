"""Where spans of a trace come from; by default there are none, and what asks here costs a look at a variable.

`dspex.trace_spans()` sets `source` to one that makes them with OpenTelemetry. Any thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol


class CallSpan(Protocol):
    """The span of one call to a worker."""

    def enter_worker(self, context: Any, sent_at: float, worker: str) -> None:
        """Make the span of the worker's part the current one of a callback's context."""
        ...

    def end(self, error: str, sent_at: float, worker: str) -> None:
        """End it, and the worker's part, with the class of an error or ""; cheap, for the pool's lock is held."""
        ...


class SpanSource(Protocol):
    """Makes spans."""

    def block(self, name: str, facts: Mapping[str, str]) -> AbstractContextManager[None]:
        """Return a span around a block, in which it is the current one."""
        ...

    def call(self, pool: str, command: str, id: int, context: Any) -> CallSpan:
        """Begin the span of a call, inside the current one; callbacks run in `context`, whose current one it is."""
        ...

    def lm_request(self, lm: Any, body: bytes, meter: Any, carry_out: Callable[[Any], Any]) -> Any:
        """Return `carry_out(meter)` with a span around it: a generator."""
        ...

    def carried(self) -> str | None:
        """Return the current span as a `traceparent` for another process."""
        ...

    def adopt(self, carried: str) -> None:
        """Make another process's span the current one of this task."""
        ...

    def ids(self, call: object) -> dict[str, str]:
        """Return `trace_id` and `span_id` of the call of this id, or of the current span; nothing if there is none."""
        ...


source: SpanSource | None = None


@contextlib.contextmanager
def _nothing() -> Generator[None]:
    yield


def block(name: str, **facts: str) -> AbstractContextManager[None]:
    """Return a span around a block, if there are any."""
    return _nothing() if source is None else source.block(name, facts)
