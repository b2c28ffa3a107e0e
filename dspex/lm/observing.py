"""What a process wants to see of its calls: the state behind `dspex.configure(history=, callbacks=)`. Any thread."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable
from typing import Any

from ..errors import SettingsError
from .call_history import ENTRIES_MOST, CallHistory

FAILURES_MOST = 1000  # of callbacks that are remembered, so that each is logged once


class Observing:
    """The history of the process, whether it is kept, and the callbacks that every call has."""

    def __init__(self) -> None:
        self.history = CallHistory()
        self.records = False
        self.callbacks: tuple[Any, ...] = ()
        self.is_idle = True  # nobody wants to see anything: looked at by every call
        self._failed: set[tuple[str, str]] = set()

    def configure(self, *, history: bool | int | None, callbacks: Iterable[Any] | None) -> None:
        """Set what is given.

        Raises:
            SettingsError: it is none.
        """
        most = None if history is None else entries_wanted(history)
        if callbacks is not None:
            self.callbacks = checked_callbacks(callbacks)
        if most is not None:
            self.records = most > 0
            self.history.keep(most or ENTRIES_MOST)
        self.is_idle = not (self.records or self.callbacks)

    def call(self, callback: Any, hook: str, facts: dict[str, Any]) -> None:
        """Call a callback's method, if it has it; what it raises is logged, once."""
        method = getattr(callback, hook, None)
        if method is None:
            return
        try:
            result = method(**facts)
            if inspect.iscoroutine(result):
                result.close()
                raise TypeError(f"{hook} is a coroutine function; callbacks are called, not awaited")
        except Exception as error:  # the callback's own
            self._log(type(callback).__qualname__, hook, error)

    def _log(self, name: str, hook: str, error: Exception) -> None:
        if (name, hook) in self._failed or len(self._failed) >= FAILURES_MOST:
            return
        self._failed.add((name, hook))
        # Neither the error's text nor its traceback, which may quote a prompt.
        logging.getLogger("dspex").error(
            "The callback %s.%s raised %s; the call goes on. Further errors of it are not logged.",
            name,
            hook,
            type(error).__name__,
        )


def entries_wanted(history: Any) -> int:
    """Return how many entries of a history are wanted: True is the usual number, False none.

    Raises:
        SettingsError: it is neither a switch nor a number.
    """
    if isinstance(history, bool):
        return ENTRIES_MOST if history else 0
    if not isinstance(history, int) or history < 0:
        raise SettingsError(f"history is {history!r}; it is True, False, or how many entries are kept.", key="history")
    return history


def checked_callbacks(callbacks: Any) -> tuple[Any, ...]:
    """Return callbacks as a tuple.

    Raises:
        SettingsError: it is no list of objects with methods of a callback's.
    """
    expected = "a list of objects with methods such as on_lm_end, of classes derived from dspex.BaseCallback"
    if isinstance(callbacks, str) or not isinstance(callbacks, Iterable):
        raise SettingsError(f"callbacks is {callbacks!r}; it is {expected}.", key="callbacks")
    made = tuple(callbacks)
    for callback in made:
        if isinstance(callback, type) or not any(name.startswith("on_") for name in dir(callback)):
            raise SettingsError(f"callbacks holds {callback!r}; it is {expected}.", key="callbacks")
    return made
