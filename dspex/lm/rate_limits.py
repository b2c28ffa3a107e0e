"""Limit the rate of requests: a token bucket and a circuit breaker per endpoint. Pure, on a given clock.

Every method is a few operations under one lock and does no I/O. Any thread.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .record import LM

Turn = Literal["opened", "closed"]  # what became of a circuit
TRIP_AFTER = 10  # failures in a row without an answer
OPEN_S = 5.0
BREAKERS_MOST = 1000


@dataclass(slots=True)
class TokenBucket:
    """`rate` requests per second, bursts of up to `burst`. Reservations queue: each caller gets its own wait."""

    rate: float
    burst: float
    _level: float = field(init=False)
    _at: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._level = self.burst

    def reserve(self, now: float) -> float:
        """Take one token, perhaps a future one; return the seconds until it is there."""
        if self._at is not None:
            self._level = min(self.burst, self._level + (now - self._at) * self.rate)
        self._at = now
        self._level -= 1.0
        return max(0.0, -self._level / self.rate)

    def give_back(self) -> None:
        """Return a reservation that was not used."""
        self._level += 1.0


@dataclass(slots=True)
class Breaker:
    """Opens after `TRIP_AFTER` failures in a row and then lets one request through every `OPEN_S` seconds."""

    failures: int = 0
    open_until: float = 0.0

    def wait(self, now: float) -> float:
        """Return 0.0 to go ahead, else the seconds until a trial request may go."""
        if self.failures < TRIP_AFTER:
            return 0.0
        if now >= self.open_until:
            self.open_until = now + OPEN_S  # this caller is the trial
            return 0.0
        return self.open_until - now

    def record(self, answered: bool, now: float) -> Turn | None:
        """Record how a request ended; return what that changed."""
        if answered:
            was_open, self.failures = self.failures >= TRIP_AFTER, 0
            return "closed" if was_open else None
        self.failures += 1
        if self.failures != TRIP_AFTER:
            return None
        self.open_until = now + OPEN_S
        return "opened"


class RateLimits:
    """The buckets and breakers of one client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: dict[tuple[Any, ...], TokenBucket] = {}
        self._breakers: dict[str, Breaker] = {}

    def reserve(self, lm: LM, now: float) -> float:
        """Return the seconds that the LM's next request must wait; LMs of one endpoint, key and rate share a bucket."""
        assert lm.requests_per_minute is not None
        with self._lock:
            bucket = self._buckets.get(key := _bucket_key(lm))
            if bucket is None:
                rate = lm.requests_per_minute / 60
                bucket = self._buckets[key] = TokenBucket(rate, max(1.0, rate))
            return bucket.reserve(now)

    def give_back(self, lm: LM) -> None:
        """Return a reservation that was not used."""
        with self._lock:
            self._buckets[_bucket_key(lm)].give_back()

    def breaker_wait(self, api_base: str, now: float) -> float:
        """Return 0.0 if the endpoint may be asked, else the seconds until it may."""
        breaker = self._breakers.get(api_base)
        if breaker is None or breaker.failures < TRIP_AFTER:
            return 0.0
        with self._lock:
            return breaker.wait(now)

    def record(self, api_base: str, answered: bool, now: float) -> Turn | None:
        """Record how a request to the endpoint ended; `answered` is any response that the endpoint itself gave."""
        breaker = self._breakers.get(api_base)
        if answered and (breaker is None or not breaker.failures):
            return None
        with self._lock:
            breaker = self._breakers.setdefault(api_base, Breaker())
            while len(self._breakers) > BREAKERS_MOST:  # user code in workers may name endpoints without end
                self._breakers.pop(next(iter(self._breakers)))
            return breaker.record(answered, now)


def _bucket_key(lm: LM) -> tuple[Any, ...]:
    return lm.api_base, lm.api_key, lm.requests_per_minute
