"""`Request`: one HTTP request to a language model, its cache key, and who receives its events and its cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..events import Name
from .dialects.dialect import Dialect
from .http.endpoint import Endpoint

if TYPE_CHECKING:
    from .record import LM
    from .redaction import Redactor


def silent(*_: object, **__: object) -> None:
    """Do nothing: nobody listens."""


@dataclass(slots=True)
class Request:
    """A request to be sent. `head` is everything of its HTTP head that does not depend on the body."""

    lm: LM
    dialect: Dialect
    target: Endpoint
    head: bytes = field(repr=False)  # holds the key
    redactor: Redactor = field(repr=False)
    body: bytes = field(repr=False)
    key: bytes | None  # None: not from the cache, not shared
    stream: bool
    timeout: float
    deadline: float | None
    emit: Callable[..., object] = field(default=silent, repr=False)
    spend: Callable[[Mapping[str, Any]], object] = field(default=silent, repr=False)  # receives what failures have used
    for_worker: bool = False
    resent: int = 0  # requests sent again because a kept connection was closed
    has_alternative: bool = False  # another LM can be asked instead of waiting for a circuit to close
    was_shown: bool = False  # some of the answer's text went to the caller
    was_cut_short: bool = False  # given up before its retries were used, for a reason of its own

    @property
    def until(self) -> float:
        """The deadline as a number; infinite when there is none."""
        return math.inf if self.deadline is None else self.deadline

    def left(self) -> float:
        """Return seconds that an attempt may take now."""
        if self.deadline is None:
            return self.timeout
        return min(self.timeout, self.deadline - time.monotonic())

    def resend(self) -> None:
        """Note that the request goes out a second time, which a provider may count and bill."""
        self.resent += 1
        self.emit(Name.LM_RESENT, model=self.lm.model, endpoint=self.target.name)
