"""Count usage and cost in accounts: one for the process, and any that are open; each may have a budget.

An account that is *open* (`with account:`) counts what is asked inside its block, on both routes: it is carried by a
context variable, so it counts in tasks and tool threads that the block starts too. Answers served from the cache cost
nothing. Only requests whose price is known have a cost: the others are counted apart, never guessed. Any thread.
"""

from __future__ import annotations

import contextvars
import itertools
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import BudgetExceeded, SettingsError, UnknownName
from ..usage_stats import UsageStats
from .dialects.answer import count

if TYPE_CHECKING:
    from .record import LM

_COUNTERS_MOST = 32  # of a worker's report
MODELS_MOST = 1000  # that an account tells apart
OTHER_MODELS = "other models"
_open: contextvars.ContextVar[tuple[Account, ...]] = contextvars.ContextVar("dspex_lm_accounts", default=())


class Account:
    """Usage and cost since it was made; with a budget, a request after it is spent raises BudgetExceeded.

    The budget is looked at before a request goes out, so what is under way then may go over it. An account may be open
    in many threads and tasks at once, and again later: keep one beside a chat session to bound the session.
    """

    def __init__(
        self,
        name: str = "account",
        *,
        budget_usd: float | None = None,
        budget_tokens: int | None = None,
        budget_requests: int | None = None,
    ) -> None:
        self.name = name
        self.budget_usd: float | None = None
        self.budget_tokens: float | None = None
        self.budget_requests: float | None = _limit("budget_requests", budget_requests)
        if budget_usd is not None or budget_tokens is not None:
            self.set_budget(usd=budget_usd, tokens=budget_tokens)
        self.requests = 0
        self.cached_requests = 0
        self.unpriced_requests = 0
        self.cost_usd = 0.0
        self.tokens = 0
        self.usage: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def set_budget(self, *, usd: float | None, tokens: float | None) -> None:
        """Bound it from now on; what it holds already counts. None is no bound.

        Raises:
            SettingsError: a bound below 0.
        """
        self.budget_usd = _limit("budget_usd", usd)
        self.budget_tokens = _limit("budget_tokens", tokens)

    @property
    def cost(self) -> float | None:
        """USD, None when the price of some of it is unknown."""
        return None if self.unpriced_requests else self.cost_usd

    def stats(self) -> UsageStats:
        """Return all of it, as plain data."""
        with self._lock:
            models = {model: dict(usage) for model, usage in self.usage.items()}
            return {
                "requests": self.requests,
                "cached_requests": self.cached_requests,
                "unpriced_requests": self.unpriced_requests,
                "prompt_tokens": sum(usage.get("prompt_tokens", 0) for usage in models.values()),
                "completion_tokens": sum(usage.get("completion_tokens", 0) for usage in models.values()),
                "total_tokens": self.tokens,
                "cost_usd": self.cost_usd,
                "models": models,
            }

    def check(self) -> None:
        """Require that something is left.

        Raises:
            BudgetExceeded: nothing is.
        """
        if self.budget_requests is not None and self.requests >= self.budget_requests:
            raise BudgetExceeded(self.name, spent=self.requests, limit=self.budget_requests, unit="requests")
        if self.budget_usd is not None and self.cost_usd >= self.budget_usd:
            raise BudgetExceeded(self.name, spent=self.cost_usd, limit=self.budget_usd, unit="USD")
        if self.budget_tokens is not None and self.tokens >= self.budget_tokens:
            raise BudgetExceeded(self.name, spent=self.tokens, limit=self.budget_tokens, unit="tokens")

    def add(self, model: str, usage: Mapping[str, Any], cost: float | None) -> None:
        """Count one request that was answered."""
        with self._lock:
            self.requests += 1
            if cost is None:
                self.unpriced_requests += 1
            else:
                self.cost_usd += cost
            self.tokens += _tokens_of(usage)
            self._add_usage(model, usage)

    def _add_usage(self, model: str, usage: Mapping[str, Any]) -> None:
        total = self.usage.get(model)
        if total is None:
            model = model if len(self.usage) < MODELS_MOST else OTHER_MODELS
            total = self.usage.setdefault(model, {})
        for name, value in usage.items():
            if value is None:
                continue
            if value.__class__ is dict:
                inner = total.get(name) or {}
                total[name] = {k: inner.get(k, 0) + (value.get(k) or 0) for k in {*inner, *value}}
            else:
                total[name] = total.get(name, 0) + value

    def merge(self, spent: Mapping[str, Any]) -> None:
        """Count what another process asked for this one, as its `stats` say."""
        with self._lock:
            self.requests += _whole(spent.get("requests"))
            self.cached_requests += _whole(spent.get("cached_requests"))
            self.unpriced_requests += _whole(spent.get("unpriced_requests"))
            cost = spent.get("cost_usd")
            self.cost_usd += cost if isinstance(cost, float | int) and cost >= 0 else 0.0
            self.tokens += _whole(spent.get("total_tokens"))
            models = spent.get("models")
            for model, usage in models.items() if isinstance(models, Mapping) else ():
                self._add_usage(str(model), usage if isinstance(usage, Mapping) else {})

    def add_cached(self) -> None:
        """Count one request that the cache answered."""
        with self._lock:
            self.cached_requests += 1

    def __enter__(self) -> Account:
        _open.set((*_open.get(), self))
        return self

    def __exit__(self, *_: object) -> None:
        opened = list(_open.get())
        if self in opened:  # not in a generator that another context closes
            opened.reverse()
            opened.remove(self)
            opened.reverse()
            _open.set(tuple(opened))

    def __repr__(self) -> str:
        return f"<account {self.name!r}: {self.requests} requests, {self.tokens} tokens, {self.cost_usd:.4f} USD>"


class UsageMeter:
    """Counts in the process's own account, `total`, in every account that is open, and in those it is given."""

    def __init__(self) -> None:
        self.total = Account("the process")

    def check(self, more: Iterable[Account] = ()) -> None:
        """Require that every account that counts here has something left.

        Raises:
            BudgetExceeded: one has not.
        """
        for account in self._accounts(more):
            account.check()

    def add(self, lm: LM, usage: Mapping[str, Any], more: Iterable[Account] = ()) -> float | None:
        """Count one answered request; return its cost in USD, None when the price or the usage is unknown."""
        cost = cost_of(lm, usage)
        for account in self._accounts(more):
            account.add(lm.model, usage, cost)
        return cost

    def add_cached(self, more: Iterable[Account] = ()) -> float:
        """Count one request that the cache answered; return its cost, which is none."""
        for account in self._accounts(more):
            account.add_cached()
        return 0.0

    def merge(self, spent: Mapping[str, Any]) -> None:
        """Count what another process asked for this one: in the process's account, and in those that are open."""
        for account in self._accounts():
            account.merge(spent)

    def renew_locks(self) -> None:
        """In a forked child."""
        for account in self._accounts():
            account._lock = threading.Lock()

    def _accounts(self, more: Iterable[Account] = ()) -> Iterable[Account]:
        opened = _open.get()
        if not opened and not more:
            return (self.total,)
        return dict.fromkeys((self.total, *opened, *more))  # each once, also when it is open twice


def cost_of(lm: LM, usage: Mapping[str, Any]) -> float | None:
    """Return the cost in USD by the LM's prices; None when the usage or a price is unknown."""
    inputs, outputs = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if inputs is None or outputs is None:
        return None
    rates = lm.rates
    if rates is None:
        return None
    cached = min((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0, inputs)
    return float((inputs - cached) * rates[0] + cached * rates[2] + outputs * rates[1])


def counters_in(reported: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a worker's report is counters: it may say anything, and as much as it likes."""
    found: dict[str, Any] = {}
    for name, value in itertools.islice(reported.items(), _COUNTERS_MOST):
        if str(name).endswith("_details"):
            inner = value.items() if isinstance(value, Mapping) else ()
            found[name] = {key: count(each) for key, each in itertools.islice(inner, _COUNTERS_MOST)}
        elif count(value) is not None:
            found[name] = value
    return found


def _tokens_of(usage: Mapping[str, Any]) -> int:
    """Return the tokens that count: some servers report no total, or one that is less than its parts."""
    parts: int = (usage.get("prompt_tokens") or 0) + (usage.get("completion_tokens") or 0)
    return max(usage.get("total_tokens") or 0, parts)


def _whole(value: Any) -> int:
    return int(count(value) or 0)


def _limit(name: str, given: float | None) -> Any:
    if given is not None and (isinstance(given, bool) or not isinstance(given, int | float) or not given >= 0):
        raise SettingsError(f"{name} must be a number of 0 or more, not {given!r}.", key=name)
    return given


def set_process_budget(usage: UsageMeter, tables: Mapping[str, Any]) -> None:
    """Set the process's budget from the settings' [budget] table, if there is one.

    Raises:
        SettingsError: the table holds something else than `usd` and `tokens`.
    """
    table = tables.get("budget")
    if table is None:
        return
    if not isinstance(table, dict):
        raise SettingsError("The [budget] table takes usd and tokens, such as usd = 20.0.", key="budget")
    for name in table:
        if name not in ("usd", "tokens"):
            raise SettingsError(
                str(UnknownName("setting", name, ("usd", "tokens"), where="[budget]")), key=f"budget.{name}"
            )
    usage.total.set_budget(usd=table.get("usd"), tokens=table.get("tokens"))
