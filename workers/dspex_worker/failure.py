"""The two exceptions that bridges and the runtime share: `Failure` for the caller, `Cancelled` for the command."""

from __future__ import annotations

from typing import Any


class Cancelled(BaseException):
    """The call was cancelled: its caller went away, or its deadline passed. Let it through."""


class Failure(Exception):
    """An error that the caller gets as `dspex.errors.<kind>` with these facts, where that class is one of DSPex's."""

    def __init__(self, kind: str, message: str, /, **facts: Any) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.facts = facts
