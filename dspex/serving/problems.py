"""Say an error as problem JSON (RFC 9457): a status, whether to try again and when; without prompts, keys or insides.

What the caller can mend is said in full. Of anything else the caller learns the kind; the rest is in the server's log,
under the same `request_id`.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .. import errors
from .call_limits import OF_REQUEST
from .program_shape import MisfitInput, UnwritableOutput
from .request_refused import RequestRefused

MEDIA_TYPE: Final = "application/problem+json"
TYPES: Final = "urn:dspex:error:"
UNAVAILABLE: Final = 503
RETRY_AFTER: Final = 1.0  # seconds, where nothing says it better
RETRY_AFTER_MOST: Final = 3600.0

# The first class that an error is of decides; so a class stands before those that it is derived from.
STATUSES: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (errors.FrameTooLarge, 413),
    (errors.InvalidInput, 422),
    (UnwritableOutput, 500),
    (errors.EncodeError, 422),
    (errors.PoisonCall, 422),
    (errors.LMContextWindowExceededError, 422),
    (errors.LMRefusedError, 422),
    (errors.BudgetExceeded, 402),
    (errors.LMRateLimitError, 503),
    (errors.LMLocalLimitError, 503),
    (errors.UnavailableError, 503),
    (errors.SessionBusy, 503),
    (errors.SessionLimit, 503),
    (errors.CallCancelled, 503),
    (errors.LMTimeoutError, 504),
    (errors.CallTimeout, 504),
    (errors.StepTimeout, 504),
    (errors.Unresponsive, 504),
    (errors.InterruptedCall, 502),
    (errors.LMConfigurationError, 500),
    (errors.LMAuthError, 500),
    (errors.LMUnsupportedFeatureError, 500),
    (errors.LMError, 502),
    (errors.AdapterParseError, 502),
    (errors.CheckFailed, 502),
    (TimeoutError, 504),
)
_OF_THE_CALLER: Final = (413, 422, 402)  # whose text says what the caller is to change
_SILENT: Final = (errors.PoisonCall, errors.LMError, errors.EncodeError)  # whose text says things of the server

logger = logging.getLogger("dspex")


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as the caller gets it; `retryable` is "now", "if_idempotent" or "no", as of DSPex's own errors."""

    status: int
    error: str
    title: str
    retryable: str = "no"
    detail: str = ""
    retry_after: float | None = None  # seconds
    misfits: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    request_id: str = field(default_factory=lambda: secrets.token_hex(8))

    def to_json(self) -> dict[str, Any]:
        """Return its members."""
        found: dict[str, Any] = {
            "type": TYPES + self.error,
            "title": self.title,
            "status": self.status,
            "error": self.error,
            "retryable": self.retryable,
            "request_id": self.request_id,
        }
        if self.detail:
            found["detail"] = self.detail
        if self.retry_after is not None:
            found["retry_after"] = self.retry_after
        if self.misfits:
            found["errors"] = [{"field": path, "message": what} for path, what in self.misfits]
        return found

    def response_headers(self) -> dict[str, str]:
        """Return the headers that go with it."""
        own = {"content-type": MEDIA_TYPE, "cache-control": "no-store", **self.headers}
        if self.retry_after is not None:
            own["retry-after"] = str(math.ceil(self.retry_after))
        return own

    def body(self) -> bytes:
        """Return it as a response's body."""
        return json.dumps(self.to_json()).encode()


def problem_of(error: BaseException, *, program: str = "") -> Problem:
    """Return the problem of an error; what the caller is not told is logged."""
    if isinstance(error, RequestRefused):
        retryable = "now" if error.status == UNAVAILABLE else "no"
        after = RETRY_AFTER if error.status == UNAVAILABLE else None
        return Problem(
            error.status, "Refused", error.title, retryable, str(error), retry_after=after, headers=error.headers
        )
    status = next((status for kind, status in STATUSES if isinstance(error, kind)), 500)
    found = Problem(
        status,
        type(error).__name__ if isinstance(error, errors.DspexError) else "ProgramFailed",
        _title(error),
        getattr(error, "retryable", "if_idempotent" if status == 504 else "no"),
        _detail(error, status),
        _retry_after(error, status),
        error.misfits if isinstance(error, MisfitInput) else (),
    )
    if isinstance(error, MisfitInput):
        found = Problem(422, "InvalidInput", found.title, "no", found.detail, misfits=found.misfits)
    if status not in (413, 422):
        _log(found, error, program)
    return found


def _title(error: BaseException) -> str:
    if isinstance(error, MisfitInput):
        return "The inputs do not fit the program's schema."
    if isinstance(error, errors.DspexError):
        return (type(error).__doc__ or "").partition("\n")[0].partition(";")[0].rstrip(".") + "."
    return "The call passed its deadline." if isinstance(error, TimeoutError) else "The program failed."


def _detail(error: BaseException, status: int) -> str:
    if isinstance(error, errors.BudgetExceeded) and error.scope != OF_REQUEST:
        return "The server's own budget is spent."
    if status in _OF_THE_CALLER and not isinstance(error, _SILENT):
        return str(error)
    if isinstance(error, errors.CallTimeout):
        return f"It had {error.timeout:g} s, and was {error.phase}."
    return ""


def _retry_after(error: BaseException, status: int) -> float | None:
    given = getattr(error, "retry_after", None)
    given = getattr(error, "retry_in", None) if given is None else given
    if isinstance(given, int | float) and given >= 0:
        return round(min(float(given), RETRY_AFTER_MOST), 3)
    return RETRY_AFTER if status == UNAVAILABLE else None


def _log(found: Problem, error: BaseException, program: str) -> None:
    what = error.type if isinstance(error, errors.RemoteError) else ""  # its message may hold anything
    said = "" if not isinstance(error, errors.DspexError) or what else f": {str(error).splitlines()[0]}"
    level = logging.WARNING if found.status != 500 else logging.ERROR
    logger.log(
        level, "serve %s: request %s: %d %s%s%s", program, found.request_id, found.status, type(error).__name__,
        f" ({what})" if what else "", said,
    )  # fmt: skip
