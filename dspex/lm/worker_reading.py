"""Try whether a worker's DSPy can read a response: with its own provider library (lm15), before the response is kept.

It takes less than the dialects here do (a stream's counters must be whole numbers, an event's line is at most 64 KiB),
and fails inside the call, after all was paid. Where this process has no such library nothing is tried. Any thread; what
is not `is_quick` belongs beside an event loop.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import LMProviderError
from .dialects.embeddings import EmbeddingsDialect
from .dspy_lm15 import has_lm15, lm15

if TYPE_CHECKING:
    from .request import Request

QUICK_MOST = 16 * 1024  # bytes; what is longer may take more than 10 ms
_loaded: set[str] = set()  # the libraries of providers that were asked: loading the first takes 0.1 s


def is_quick(request: Request, body: bytes) -> bool:
    """Return whether `require_read_by_dspy` takes a few milliseconds at most."""
    return len(body) <= QUICK_MOST and (not has_lm15() or request.lm.provider.id in _loaded)


def require_read_by_dspy(request: Request, body: bytes) -> None:
    """Check that DSPy in a worker can read a response that was read here.

    Raises:
        LMProviderError: it cannot.
    """
    if not has_lm15() or isinstance(request.dialect, EmbeddingsDialect):  # vectors are read by the worker's own code
        return
    lm = request.lm
    try:
        _reading(lm.provider.id)(body, request.stream)
    except Exception as error:  # of any class: what it does with an odd value is nowhere promised
        raise LMProviderError(
            f"The reply is not of the API's shape: DSPy, in a worker, cannot read it ({type(error).__name__}).",
            model=lm.model,
            provider=lm.provider.id,
            status=200,
        ) from None


def is_read_by_dspy(request: Request, body: bytes) -> bool:
    """Return whether DSPy in a worker can read a response that was read here."""
    try:
        require_read_by_dspy(request, body)
    except LMProviderError:
        return False
    return True


@functools.cache
def _reading(id: str) -> Callable[[bytes, bool], object]:
    """Return what reads a body of a provider, whole or as a stream, and raises where it cannot."""
    types, base, result = lm15("types"), lm15("providers.base"), lm15("result")
    adapter = lm15("registry").PROVIDERS[id].adapter
    client = adapter(api_key="no-key", base_url="http://nowhere.invalid", transport=object())  # nothing is sent
    asked = types.Request(model="any", messages=(types.Message.user("any"),))

    def read(body: bytes, stream: bool) -> object:
        if stream:
            events = result.coalesce_stream(_events(client, asked, body), model="any")
            return result.materialize_response(events, asked)
        return client.parse_response(asked, base.HttpResponse(200, "", [], body, provider=client.provider))

    _loaded.add(id)
    return read


def _events(client: Any, asked: Any, body: bytes) -> Iterator[Any]:
    response = lm15("transports._types").TransportResponse(
        status=200, reason="", headers=[], http_version="HTTP/1.1", chunks=iter((body,)), release=lambda _: None
    )
    for raw in lm15("sse").parse_sse(response.iter_lines()):
        yield from (event for event in client.parse_stream_events(asked, raw) if event is not None)
