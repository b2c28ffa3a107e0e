"""Read how long a request may take and what it may spend from its headers, within the server's limits. Pure.

What is asked beyond a limit is refused with both figures, not cut down unseen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import SettingsError
from ..lm.usage import Account
from .request_refused import RequestRefused

HEADERS: Final = {
    "timeout": "X-DSPex-Timeout",
    "budget_usd": "X-DSPex-Budget-USD",
    "budget_tokens": "X-DSPex-Budget-Tokens",
    "budget_requests": "X-DSPex-Budget-Requests",
}
UNITS: Final = {"timeout": "s", "budget_usd": "USD", "budget_tokens": "tokens", "budget_requests": "requests"}
_NUMBER: Final = re.compile(r"[0-9]{1,30}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,3})?")
_WHOLE: Final = ("budget_tokens", "budget_requests")
OF_REQUEST: Final = "this request"  # the name of its account, which errors bear


@dataclass(frozen=True, slots=True)
class AskedLimits:
    """The limits of one request: a time in seconds, and what it may spend (None: nothing bounds it)."""

    timeout: float
    budget_usd: float | None = None
    budget_tokens: float | None = None
    budget_requests: float | None = None
    account: Account = field(init=False, compare=False)

    def __post_init__(self) -> None:
        account = Account(
            OF_REQUEST,
            budget_usd=self.budget_usd,
            budget_tokens=None if self.budget_tokens is None else int(self.budget_tokens),
            budget_requests=None if self.budget_requests is None else int(self.budget_requests),
        )
        object.__setattr__(self, "account", account)


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What any request may ask for at most, and has where it asks for nothing.

    Raises:
        SettingsError: a limit that cannot be.
    """

    timeout: float = 120.0  # seconds
    budget_usd: float | None = None
    budget_tokens: int | None = None
    budget_requests: int | None = None

    def __post_init__(self) -> None:
        for name, unit in UNITS.items():
            value: Any = getattr(self, name)
            if value is None and name != "timeout":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise SettingsError(f"{name} is {value!r}; it is a number of {unit} above 0.", key=name)

    def asked(self, header: Callable[[str], list[str]]) -> AskedLimits:
        """Return the limits of one request; `header` gives the values of a header.

        Raises:
            RequestRefused: a header that is no number, or is over the limit.
        """
        return AskedLimits(**{name: self._asked(name, header(HEADERS[name])) for name in HEADERS})

    def _asked(self, name: str, values: list[str]) -> Any:
        limit: float | None = getattr(self, name)
        if not values:
            return limit
        number = _number(name, values)
        if limit is not None and number > limit:
            raise RequestRefused(
                400,
                "A limit is over the server's",
                f"{HEADERS[name]} is {number:g} {UNITS[name]}; this server's limit is {limit:g} {UNITS[name]}. "
                f"Ask for less, or leave the header out.",
            )
        return number


def _number(name: str, values: list[str]) -> float:
    text = values[0].strip()
    number = float(text) if len(values) == 1 and _NUMBER.fullmatch(text) else 0.0
    if not 0 < number < math.inf or (name in _WHOLE and number != int(number)):
        kind = "a whole number" if name in _WHOLE else "a number"
        raise RequestRefused(
            400, "A header cannot be read", f"{HEADERS[name]} is {kind} of {UNITS[name]} above 0, given once."
        )
    return number
