"""What a job may spend on language models, and what it has spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, cast

from ...errors import SettingsError
from ...lm.usage import Account


class JobBudget(TypedDict, total=False):
    """Limits of a job; a request after one is reached ends it with BudgetExceeded."""

    requests: int  # to language models, without those that a cache answers
    tokens: int
    usd: float  # of the requests whose price is known


class JobAccount(Account):
    """An account of one job, which a journal keeps.

    Raises:
        SettingsError: the budget is none.
    """

    def __init__(self, name: str, budget: JobBudget | None = None) -> None:
        limits = checked_budget(budget)
        super().__init__(
            name,
            budget_usd=limits.get("usd"),
            budget_tokens=limits.get("tokens"),
            budget_requests=limits.get("requests"),
        )
        self._usd = limits.get("usd")
        self._is_told = False

    @property
    def spent(self) -> dict[str, Any]:
        """What a journal keeps of it."""
        return {
            "requests": self.requests,
            "cached_requests": self.cached_requests,
            "unpriced_requests": self.unpriced_requests,
            "tokens": self.tokens,
            "cost_usd": self.cost_usd,
        }

    def unbounded(self) -> str | None:
        """Return, once, what is to be said if `usd` does not bound what is asked: requests have no price."""
        if self._is_told or self._usd is None or not self.unpriced_requests:
            return None
        self._is_told = True
        return (
            f"The budget of {self._usd:g} USD does not bound all of this job: it makes requests without a known price. "
            f"Give the language model one, price=(input, output) per million tokens, or limit requests or tokens."
        )

    def go_on_from(self, spent: Mapping[str, Any]) -> None:
        """Begin with what the job had spent before, as a journal says."""
        for name in self.spent:
            setattr(self, name, spent.get(name, 0))


def checked_budget(budget: Any) -> JobBudget:
    """Return a budget whose limits can be.

    Raises:
        SettingsError: it is no mapping of `requests`, `tokens` and `usd` to numbers of 0 or more.
    """
    if budget is None:
        return {}
    if not isinstance(budget, Mapping) or not budget or budget.keys() - JobBudget.__optional_keys__:
        raise SettingsError(
            f"budget is {budget!r}; it takes requests, tokens and usd, such as {{'usd': 2.0}}.", key="budget"
        )
    for name, limit in budget.items():
        kinds = (int, float) if name == "usd" else (int,)
        if isinstance(limit, bool) or not isinstance(limit, kinds) or not limit >= 0:
            raise SettingsError(f"budget's {name} is {limit!r}; it is a number of 0 or more.", key="budget")
    limits: Any = dict(budget)
    return cast("JobBudget", limits)
