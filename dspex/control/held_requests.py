"""`HeldRequests`: bound the bytes of requests that the service holds until they are answered. On the service's loop.

Requests that wait for a worker, or whose answer waits to be read, are held. One client may hold much; all together may
not, and then each has a little, so that those who ask for little are always answered.
"""

from __future__ import annotations

from ..errors import ResourceExhausted

MIB = 1024 * 1024
ALL_MOST = 128 * MIB
ONE_MOST = 64 * MIB
ONE_LEAST = 2 * MIB  # of a client, whatever the others hold


class HeldRequests:
    """Counts them for all connections."""

    def __init__(self) -> None:
        self._total = 0

    def hold(self, own: int, size: int) -> None:
        """Hold `size` bytes more of a client, of whom `own` are held.

        Raises:
            ResourceExhausted: it holds too much, or all together do.
        """
        is_over = own + size > ONE_MOST or self._total + size > ALL_MOST
        if size > ONE_MOST:  # legal, by the pools' frame limits: one at a time
            is_over = own > 0 or self._total > ALL_MOST
        if is_over and own + size > ONE_LEAST:
            raise ResourceExhausted(
                "bytes for requests that wait",
                "another large one of this client",
                remedy=f"The service holds {ONE_MOST // MIB} MiB of a client's, or one larger, and {ALL_MOST // MIB} "
                f"MiB in all: wait for answers, and read them, before more is sent.",
            )
        self._total += size

    def release(self, size: int) -> None:
        """Hold so much less: a request has ended."""
        self._total -= size
