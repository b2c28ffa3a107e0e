"""Where a pool reads what its calls used of language models, which it knows nothing of, and where budgets wait.

The layer above gives the reader (`PoolBudgets.read_from`); until then nothing was used. Any thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from ..usage_stats import UsageStats, no_usage

BUDGETS_MOST = 10_000  # budgets of sessions that are kept; the oldest go first


class Budget(NamedTuple):
    """What a session may use; None is no limit."""

    usd: float | None = None
    tokens: int | None = None


NO_BUDGET = Budget()
Reader = Callable[[str, str | None], UsageStats]


class PoolBudgets:
    """One supervisor's."""

    def __init__(self) -> None:
        self._reader: Reader | None = None
        self._budgets: OrderedDict[tuple[str, str], Budget] = OrderedDict()
        self._lock = threading.Lock()

    def read_from(self, reader: Reader) -> None:
        """Have `reader(pool, session key or None)` say what was used."""
        self._reader = reader

    def usage(self, pool: str, session: str | None = None) -> UsageStats:
        """What the pool's calls, or those of one session, have used so far."""
        return self._reader(pool, session) if self._reader is not None else no_usage()

    def set_budget(self, pool: str, session: str, budget: Budget) -> None:
        """Limit a session from now on; what it has used already counts."""
        with self._lock:
            self._budgets.pop((pool, session), None)
            self._budgets[pool, session] = budget
            if len(self._budgets) > BUDGETS_MOST:
                self._budgets.popitem(last=False)

    def budget(self, pool: str, session: str) -> Budget:
        """What the session may use."""
        return self._budgets.get((pool, session), NO_BUDGET)
