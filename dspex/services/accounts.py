"""What one supervisor's workers asked of language models: an account for each pool, and one for each session.

The services open them for the requests that workers forward; the pools read them for `stats()`. Any thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from ..errors import SettingsError
from ..lm.usage import Account, Ledger
from ..pools.budgets import PoolBudgets
from ..usage_stats import UsageStats, no_usage

SESSIONS_MOST = 10_000  # accounts of sessions that are kept; the least recently used go first


def bound_process(ledger: Ledger, tables: Mapping[str, Any]) -> None:
    """Give the process the budget of the settings' [budget] table, if there is one.

    Raises:
        SettingsError: the table holds something else than `usd` and `tokens`.
    """
    table = tables.get("budget")
    if table is None:
        return
    if not isinstance(table, dict) or table.keys() - {"usd", "tokens"}:
        raise SettingsError("The [budget] table takes usd and tokens, such as usd = 20.0.", key="budget")
    ledger.total.set_budget(usd=table.get("usd"), tokens=table.get("tokens"))


class Accounts:
    """The accounts of one supervisor."""

    def __init__(self, books: PoolBudgets) -> None:
        self._books = books
        self._lock = threading.Lock()
        self._pools: dict[str, Account] = {}
        self._sessions: OrderedDict[tuple[str, str], Account] = OrderedDict()

    def of(self, pool: str, session: str | None) -> tuple[Account, ...]:
        """The accounts that count a request made for a call of this pool and session (by the session's key)."""
        with self._lock:
            whole = self._pools.get(pool)
            if whole is None:
                whole = self._pools[pool] = Account(f"pool {pool!r}")
            return (whole,) if session is None else (whole, self._of_session(pool, session))

    def stats(self, pool: str, session: str | None = None) -> UsageStats:
        """What a pool, or one session in it, has used so far."""
        with self._lock:
            known: Any = self._pools.get(pool) if session is None else self._sessions.get((pool, session))
        return no_usage() if known is None else known.stats()

    def _of_session(self, pool: str, session: str) -> Account:
        account = self._sessions.get((pool, session))
        if account is None:
            account = self._sessions[pool, session] = Account(f"session {session.partition('/')[2]!r}")
            if len(self._sessions) > SESSIONS_MOST:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end((pool, session))
        budget = self._books.budget(pool, session)
        account.set_budget(usd=budget.usd, tokens=budget.tokens)
        return account
