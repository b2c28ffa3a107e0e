"""`CallHistories`: what DSPy's histories hold while a user's module runs, and no longer.

Users read `lm.history[-1]`, `self.history` and `dspy.inspect_history()` inside `forward`. DSPy keeps every prompt of
the process there (up to 10,000 for each LM and module); a worker keeps those of the calls that run. Any thread.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import dspy
from dspy.clients import base_lm

KEPT_MOST = 1_000  # entries of one call


class CallHistories:
    """The entries of one call, and the histories that they were put into."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[tuple[Any, list[Any]]] = deque()

    def keep(self, client: Any, entry: Any) -> None:
        """Put an entry where DSPy puts it: into the LM's history, those of the modules that ask, and the global one."""
        owners = (client, *(dspy.settings.caller_modules or ()))
        histories = [owner.history for owner in owners if isinstance(getattr(owner, "history", None), list)]
        with self._lock:
            for history in (*histories, base_lm.GLOBAL_HISTORY):
                history.append(entry)
            self._kept.append((entry, histories))
            if len(self._kept) > KEPT_MOST:
                self._take_out(*self._kept.popleft())

    def forget(self) -> None:
        """Take the call's entries out again; those of other calls stay."""
        with self._lock:
            while self._kept:
                self._take_out(*self._kept.popleft())

    def _take_out(self, entry: Any, histories: list[Any]) -> None:
        for history in (*histories, base_lm.GLOBAL_HISTORY):
            for at, one in enumerate(history):
                if one is entry:
                    del history[at]
                    break
