"""A scripted TCP peer for the tests of the HTTP client and of what it makes of answers."""

from tests.support.lm.peer import peer

__all__ = ["peer"]
