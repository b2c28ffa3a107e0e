"""What was used and what it cost, per model, for the process and for any scope that is open; and budgets on scopes.

A scope is a `with` block; it is carried by a context variable, so calls made inside it count, also in tasks that it
starts. Answers served from the cache cost nothing and are not counted. Any thread.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dspex.errors import BudgetExceeded

if TYPE_CHECKING:
    from dspex.inprocess.lm.record import LM

_open: contextvars.ContextVar[tuple[Scope, ...]] = contextvars.ContextVar("dspex_lm_scopes", default=())


class Scope:
    """Usage and cost since the scope was opened. `cost_usd` counts only models whose price is known."""

    def __init__(self, name: str, *, budget_usd: float | None = None, budget_tokens: int | None = None) -> None:
        self.name = name
        self.budget_usd = budget_usd
        self.budget_tokens = budget_tokens
        self.requests = 0
        self.unpriced_requests = 0
        self.cost_usd = 0.0
        self.tokens = 0
        self.usage: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def add(self, model: str, usage: Mapping[str, Any], cost: float | None) -> None:
        """Count one answered request."""
        with self._lock:
            self.requests += 1
            if cost is None:
                self.unpriced_requests += 1
            else:
                self.cost_usd += cost
            self.tokens += usage.get("total_tokens") or 0
            total = self.usage.get(model)
            if total is None:
                total = self.usage[model] = {}
            for name, value in usage.items():
                if value.__class__ is dict:
                    inner = total.get(name) or {}
                    total[name] = {k: inner.get(k, 0) + (value.get(k) or 0) for k in {*inner, *value}}
                elif value is not None:
                    total[name] = total.get(name, 0) + value

    def check(self) -> None:
        """Raises BudgetExceeded when nothing is left."""
        if self.budget_usd is not None and self.cost_usd >= self.budget_usd:
            raise BudgetExceeded(self.name, spent=self.cost_usd, limit=self.budget_usd, unit="USD")
        if self.budget_tokens is not None and self.tokens >= self.budget_tokens:
            raise BudgetExceeded(self.name, spent=self.tokens, limit=self.budget_tokens, unit="tokens")


class Ledger:
    """`total` is the whole process's; `scope(...)` opens one of your own."""

    def __init__(self) -> None:
        self.total = Scope("process")

    @contextlib.contextmanager
    def scope(
        self, name: str = "scope", *, budget_usd: float | None = None, budget_tokens: int | None = None
    ) -> Iterator[Scope]:
        """Count what is used inside the block; with a budget, a request after it is spent raises BudgetExceeded.

        A budget is checked before a request goes out, so the last one may go over it.
        """
        scope = Scope(name, budget_usd=budget_usd, budget_tokens=budget_tokens)
        token = _open.set((*_open.get(), scope))
        try:
            yield scope
        finally:
            _open.reset(token)

    def check(self) -> None:
        """Raises BudgetExceeded when a scope that is open here has nothing left."""
        self.total.check()
        for scope in _open.get():
            scope.check()

    def add(self, lm: LM, usage: Mapping[str, Any]) -> float | None:
        """Count one answered request; its cost in USD, None when the price or the usage is unknown."""
        cost = cost_of(lm, usage)
        self.total.add(lm.model, usage, cost)
        for scope in _open.get():
            scope.add(lm.model, usage, cost)
        return cost

    def forget_locks(self) -> None:
        """In a forked child."""
        for scope in (self.total, *_open.get()):
            scope._lock = threading.Lock()


def cost_of(lm: LM, usage: Mapping[str, Any]) -> float | None:
    """USD for the usage by the LM's prices, None when either is unknown."""
    inputs, outputs = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if inputs is None or outputs is None:
        return None
    rates = lm.rates
    if rates is None:
        return None
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return float((inputs - cached) * rates[0] + cached * rates[2] + outputs * rates[1])
