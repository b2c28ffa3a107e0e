"""Bound what reading the JSON of others may cost: Python's reader lets no other thread run before it is done. Pure.

A value in a list takes 60 ns, an object, a list or a member up to ten times that, its collection included. What is
asked for decides: logprobs are an object for each token and each alternative to it, and no endpoint can ask for them
(`decode` bounds these, more generously).
"""

from __future__ import annotations

from ..errors import LMProviderError
from .dialects.embeddings import FEWER_AT_ONCE, EmbeddingsDialect
from .request import Request

LOOKED_AT_LEAST = 128 * 1024  # bytes; what is shorter is cheap whatever it holds
COST_MOST = 1_000_000  # values, each object, list or member as ten: 50 ms
_HEAVY = 10
MARKS_MOST = 200_000  # as values of a frame: brackets, commas and colons of a worker's request


def is_readable_request(body: bytes) -> bool:
    """Return whether a worker's request is read in tens of milliseconds: it holds few values beside its texts."""
    if len(body) < LOOKED_AT_LEAST or _marks(body) <= MARKS_MOST:
        return True
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # then each quote begins or ends a text
    if plain.count(b'"') > 2 * MARKS_MOST:
        return False
    return _marks(b"".join(plain.split(b'"')[::2])) <= MARKS_MOST


def require_readable(request: Request, body: bytes) -> None:
    """Check that a whole reply is read in tens of milliseconds.

    Raises:
        LMProviderError: it is not.
    """
    if is_costly(request, body):
        advice = f": {FEWER_AT_ONCE}" if isinstance(request.dialect, EmbeddingsDialect) else ""
        raise LMProviderError(
            f"The reply of {len(body):,} bytes holds over {COST_MOST:,} values (an object, a list or a member counts "
            f"as ten): it is not read{advice}.",
            model=request.lm.model,
            provider=request.lm.provider.id,
            status=200,
        )


def _marks(body: bytes) -> int:
    return sum(map(body.count, (b"{", b"[", b",", b":")))


def is_costly(request: Request, body: bytes) -> bool:
    """Return whether reading a body would take longer than that."""
    if len(body) < LOOKED_AT_LEAST or b'ogprobs"' in request.body:
        return False
    return _HEAVY * sum(map(body.count, (b"{", b"[", b":"))) + body.count(b",") > COST_MOST
