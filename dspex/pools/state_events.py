"""The events that a pool's state emits, by the names that it has for them."""

from __future__ import annotations

from ..events import Name

NAMES = {
    "worker.ready": Name.WORKER_READY,
    "worker.died": Name.WORKER_DIED,
    "worker.stopped": Name.WORKER_STOPPED,
    "worker.recycling": Name.WORKER_RECYCLING,
    "worker.retiring": Name.WORKER_RETIRING,
    "pool.degraded": Name.POOL_DEGRADED,
    "session.moved": Name.SESSION_MOVED,
    "session.lost": Name.SESSION_LOST,
    "session.expired": Name.SESSION_EXPIRED,
    "call.abandoned": Name.CALL_ABANDONED,
    "call.redispatched": Name.CALL_REDISPATCHED,
}
