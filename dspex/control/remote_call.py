"""`RemoteCall`: a call that this process makes in a service, as its callbacks and its programs see it. Any thread.

It has what `pools.callbacks` asks of the outer call of a callback, and of an ended call its value and its worker.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import time
from typing import Any

from .. import defaults

_ids = itertools.count(1)


class RemoteCall:
    """One call in a service."""

    is_trusted = False  # what is sent back crosses a socket: plain data
    client = None
    session: str | None = None
    session_name = ""
    span = None  # its spans are the service's

    def __init__(self, command: str, timeout: float) -> None:
        self.id = next(_ids)
        self.command = command
        self.context = contextvars.copy_context()  # its tools run in it
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        self.loop: asyncio.AbstractEventLoop | None = None
        self.worker_name = ""
        self.generation = 0
        self.is_ended = False
        self.notes: dict[str, Any] = {}  # what the service says beside the outcome
        self.value: Any = None

    def end(self, value: Any, notes: Any) -> None:
        """Take the outcome, and what the service says beside it; what was spent counts for whoever made the call."""
        self.value = value
        self.is_ended = True
        if not isinstance(notes, dict):
            return
        self.notes = notes
        self.worker_name = str(notes.get("worker") or self.worker_name)
        generation, spent = notes.get("generation"), notes.get("spent")
        self.generation = generation if isinstance(generation, int) else 0
        if isinstance(spent, dict):
            self.context.copy().run(defaults.client().usage.merge, spent)

    def result(self) -> Any:
        """Return what it returned."""
        return self.value

    def remaining(self) -> float:
        """Seconds until the deadline; may be negative or infinite."""
        return self.deadline - time.monotonic()

    def note_raised(self, id: int, error: BaseException) -> int:
        """Keep nothing: the service rebuilds an error of DSPex's, and gives it back in the end."""
        return id
