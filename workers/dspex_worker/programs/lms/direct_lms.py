"""Serve `LM(direct=True)`: DSPy's LM as it is, connecting from this process with the record's key.

It is for models that lm15, and so the parent, cannot express. It streams by DSPy's own seam, the setting `send_stream`,
which DSPy uses from threads that anyio started: `beside_a_loop` runs a program in one. What cannot be as for other LMs:
a cancel closes the connection only when the next piece comes, and nothing of it passes by the parent's limits.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import anyio.to_thread
import dspy

from ...context import Context
from ..calls.call_context import running
from .lm_fallbacks import FallbackLM, FallbackTurn

_place = threading.local()


class Viewer(Protocol):
    """A viewer of an answer's text as it arrives; `FieldWatch` makes one for each answer."""

    def show(self, text: str) -> bool:
        """Take a piece; True if some of it can be seen now."""
        ...

    def finish(self) -> None:
        """Show what is left: the answer is whole."""


class DirectLM(FallbackLM):
    """DSPy's own LM, shown to whoever watches; `watching` is the setting that holds the maker of viewers."""

    watching: str

    def ask(self, turn: FallbackTurn, prompt: Any, messages: Any, options: dict[str, Any]) -> Any:
        watch = dspy.settings.get(self.watching)
        if watch is None or not getattr(_place, "is_beside_a_loop", False):
            return super().ask(turn, prompt, messages, options)
        viewer: Viewer = watch.viewer()
        with dspy.context(send_stream=_Receiver(viewer, running(), turn)):
            outputs = super().ask(turn, prompt, messages, options)
        viewer.finish()
        return outputs


def is_direct(record: Mapping[str, Any] | None) -> bool:
    """Return whether the LM of this record, or one of its fallbacks, connects from this process."""
    return record is not None and bool(record.get("direct") or any(map(is_direct, record.get("fallbacks") or ())))


def beside_a_loop(function: Callable[[], None]) -> None:
    """Run `function` in a thread with an event loop of its own, as anyio needs; blocks until it ends."""

    def work() -> None:
        _place.is_beside_a_loop = True
        try:
            function()
        finally:
            _place.is_beside_a_loop = False

    async def main() -> None:
        await anyio.to_thread.run_sync(work)

    asyncio.run(main())


class _Receiver:
    """What DSPy sends its chunks to, lm15's and LiteLLM's alike; on the loop's thread, while the asker waits."""

    def __init__(self, viewer: Viewer, context: Context, turn: FallbackTurn) -> None:
        self._viewer = viewer
        self._context = context
        self._turn = turn

    async def send(self, chunk: Any) -> None:
        self._context.check_cancelled()  # leaves DSPy's loop over the stream, which closes it
        for choice in chunk.choices[:1]:
            if (text := choice.delta.content) and self._viewer.show(text):
                self._turn.was_shown = True
