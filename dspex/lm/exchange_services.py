"""`ExchangeServices`: the cache, the single flight and the rate limits that the exchanges of one client share."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .cache import Cache, CachedReply
from .effects import ExchangeOutcome
from .http.http_message import Reply
from .rate_limits import RateLimits
from .request import Request
from .single_flight import FlightMember, SingleFlight


@dataclass(slots=True)
class ExchangeServices:
    """What the exchanges of one client share."""

    cache: Cache
    single_flight: SingleFlight[ExchangeOutcome]
    limits: RateLimits
    random: random.Random

    def settle(
        self, request: Request, member: FlightMember[ExchangeOutcome] | None, reply: Reply, *, is_certain: bool = True
    ) -> None:
        """Cache a 200 response, if it is certain that it is whole, and pass it to the followers."""
        if request.key is not None and is_certain:
            kept = CachedReply(reply.head.get("content-type"), reply.body)
            self.cache.put(request.key, kept, ttl=request.lm.cache_ttl)
        if member is not None:
            self.single_flight.land(member, ExchangeOutcome(reply=reply, cached=True))
