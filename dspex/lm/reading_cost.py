"""Bound what reading a reply's JSON may cost: Python's reader lets no other thread run before it is done. Pure.

A value in a list takes 60 ns, an object or a list ten times that, its collection included. What is asked for decides:
logprobs are an object for each token and each alternative to it, and no endpoint can ask for them (`decode` bounds
these, more generously).
"""

from __future__ import annotations

from ..errors import LMProviderError
from .dialects.embeddings import FEWER_AT_ONCE, EmbeddingsDialect
from .request import Request

LOOKED_AT_LEAST = 128 * 1024  # bytes; what is shorter is cheap whatever it holds
COST_MOST = 1_000_000  # values, each object or list as ten: 50 ms
_CONTAINER = 10


def require_readable(request: Request, body: bytes) -> None:
    """Check that a whole reply is read in tens of milliseconds.

    Raises:
        LMProviderError: it is not.
    """
    if is_costly(request, body):
        advice = f": {FEWER_AT_ONCE}" if isinstance(request.dialect, EmbeddingsDialect) else ""
        raise LMProviderError(
            f"The reply of {len(body):,} bytes holds over {COST_MOST:,} values (an object or a list counts as ten): "
            f"it is not read{advice}.",
            model=request.lm.model,
            provider=request.lm.provider.id,
            status=200,
        )


def is_costly(request: Request, body: bytes) -> bool:
    """Return whether reading a body would take longer than that."""
    if len(body) < LOOKED_AT_LEAST or b'ogprobs"' in request.body:
        return False
    return _CONTAINER * (body.count(b"{") + body.count(b"[")) + body.count(b",") > COST_MOST
