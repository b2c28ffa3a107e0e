"""Defer to the engine's thread what must not happen under the pool lock, or in a caller's thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from .call import Call, wake_all
from .state.instructions import Instruction

T = TypeVar("T", bound=Instruction)


class Deferred:
    """The deferred instructions and wake-ups of one pool. Any thread adds to it; the engine runs it."""

    def __init__(self) -> None:
        self.ended: deque[Call] = deque()  # to be woken
        self.instructions: deque[Instruction] = deque()
        self._handlers: dict[type, Callable[[Any], None]] = {}

    def on(self, kind: type[T], handler: Callable[[T], None]) -> None:
        """Have `handler(instruction)` called on the engine's thread for each instruction of this kind."""
        self._handlers[kind] = handler

    def run(self) -> bool:
        """On the engine's thread: run what was deferred; True if there were instructions."""
        if self.ended:
            wake_all(self.ended.popleft() for _ in range(len(self.ended)))
        had_any = bool(self.instructions)
        while self.instructions:
            instruction = self.instructions.popleft()
            self._handlers[type(instruction)](instruction)
        return had_any
