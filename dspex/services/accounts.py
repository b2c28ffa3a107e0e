"""Count the LM usage of one supervisor's workers: an account for each pool, each session, and each client.

The services open them for the requests that workers forward; the pools read them for `stats()`. Any thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from ..lm.usage import Account
from ..pools.budgets import PoolBudgets
from ..usage_stats import UsageStats, no_usage

CLIENTS_MOST = 10_000  # accounts of clients, likewise
SESSIONS_MOST = 10_000  # accounts of sessions that are kept; the least recently used go first


class Accounts:
    """One supervisor's accounts."""

    def __init__(self, budgets: PoolBudgets) -> None:
        self._budgets = budgets
        self._lock = threading.Lock()
        self._pools: dict[str, Account] = {}
        self._clients: OrderedDict[str, Account] = OrderedDict()
        self._sessions: OrderedDict[tuple[str, str], Account] = OrderedDict()

    def of(self, pool: str, session: str | None) -> tuple[Account, ...]:
        """Return the accounts that count a request of this pool and session (by the session's key)."""
        with self._lock:
            whole = self._pools.get(pool)
            if whole is None:
                whole = self._pools[pool] = Account(f"pool {pool!r}")
            return (whole,) if session is None else (whole, self._of_session(pool, session))

    def of_client(self, name: str) -> Account:
        """Return the account of what a client of the control socket asks for, kept while the service lives."""
        with self._lock:
            account = self._clients.get(name)
            if account is None:
                account = self._clients[name] = Account(f"client {name!r}")
                if len(self._clients) > CLIENTS_MOST:
                    self._clients.popitem(last=False)
            self._clients.move_to_end(name)
            return account

    def stats(self, pool: str, session: str | None = None) -> UsageStats:
        """Return what a pool, or one session in it, has used so far."""
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
        budget = self._budgets.budget(pool, session)
        account.set_budget(usd=budget.usd, tokens=budget.tokens)
        return account
