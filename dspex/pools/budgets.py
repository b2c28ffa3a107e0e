"""Limit what sessions spend on language models, and read what they have used.

The pools know nothing of language models: the layer above sets `services`; until then nothing was used. Any thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple, Protocol

from ..usage_stats import UsageStats, no_usage

BUDGETS_MOST = 10_000  # budgets of sessions that are kept; the oldest go first


class HostServices(Protocol):
    """The services of the layer above: answers to workers, and their usage."""

    def usage(self, pool: str, session: str | None = None) -> UsageStats:
        """Return what the pool's calls, or those of one session (by its key), have used of language models."""
        ...


class Budget(NamedTuple):
    """The limits of a session; None is no limit."""

    usd: float | None = None
    tokens: int | None = None


NO_BUDGET = Budget()


class PoolBudgets:
    """The budgets of one supervisor's sessions."""

    def __init__(self) -> None:
        self.services: HostServices | None = None
        self._budgets: OrderedDict[tuple[str, str], Budget] = OrderedDict()
        self._lock = threading.Lock()

    def usage(self, pool: str, session: str | None = None) -> UsageStats:
        """Return what the pool's calls, or those of one session, have used so far."""
        return no_usage() if self.services is None else self.services.usage(pool, session)

    def set_budget(self, pool: str, session: str, budget: Budget) -> None:
        """Limit a session from now on; what it has used already counts."""
        with self._lock:
            self._budgets.pop((pool, session), None)
            self._budgets[pool, session] = budget
            if len(self._budgets) > BUDGETS_MOST:
                self._budgets.popitem(last=False)

    def budget(self, pool: str, session: str) -> Budget:
        """Return what the session may use."""
        return self._budgets.get((pool, session), NO_BUDGET)
