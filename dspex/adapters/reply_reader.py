"""Read a model's reply into outputs, on the caller's thread or beside an event loop, within the deadline.

An event loop reads a short reply itself, for a few milliseconds at most; a long one, or one whose JSON needs much
repair, is read on one of two threads, which there are only while replies are read. What a reply may cost at all is
`types/parse_budget.py`'s.
"""

from __future__ import annotations

import contextvars
import os
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..errors import AdapterParseError, CallTimeout, LMTimeoutError
from ..signatures.signature import Signature
from ..types.parse_budget import ParseBudget, Paused
from .compiled_signature import CompiledSignature
from .function_calling import tool_fields, with_calls

if TYPE_CHECKING:
    from concurrent.futures import Executor

# Measured: a valid reply of 32 KiB takes 0.1 ms as text, 1 to 2 ms as JSON with types, 11 ms at the worst; a thread
# takes 0.1 ms more. 8,000 steps of a repair are 3 to 5 ms, and repair the usual damage of 3 KB.
LOOP_CHARS_MOST: Final = 32 * 1024
LOOP_STEPS_MOST: Final = 8_000
TICK_S: Final = 0.01  # by which a wait for the rest of a call's time may end too early
THREADS: Final = 2  # more would only share the interpreter's lock, of which the loop then gets less

Outputs = list[dict[str, Any]]


class ReadableCompletion(Protocol):
    """The parts of a completion that are read."""

    @property
    def texts(self) -> Sequence[str | None]: ...
    @property
    def tool_calls(self) -> Sequence[Sequence[Mapping[str, Any]]]: ...
    @property
    def usage(self) -> Mapping[str, Any]: ...
    @property
    def cached(self) -> bool: ...
    @property
    def cost(self) -> float | None: ...


@dataclass(slots=True)  # one for each request: a frozen one takes three times as long to make
class ReplyReader:
    """Reads the replies to one request. `deadline` is a time.monotonic() point, and so is `started`, of the call."""

    signature: Signature
    compiled: CompiledSignature
    started: float
    deadline: float | None

    def read(self, completion: ReadableCompletion) -> Outputs | AdapterParseError:
        """Return the outputs of each text, or why they cannot be read.

        Raises:
            CallTimeout: the deadline passed meanwhile.
        """
        began = time.monotonic()
        outputs = self._outputs(completion)
        self._require_in_time(began)
        return outputs

    async def aread(self, completion: ReadableCompletion) -> Outputs | AdapterParseError:
        """`read`, for event loops."""
        began = time.monotonic()
        outputs: Outputs | AdapterParseError | None = None
        if sum(len(text or "") for text in completion.texts) <= LOOP_CHARS_MOST:
            try:
                outputs = self._outputs(completion, LOOP_STEPS_MOST)
            except Paused:
                pass
        if outputs is None:
            outputs = await self._read_beside(completion, began)
        self._require_in_time(began)
        return outputs

    async def _read_beside(self, completion: ReadableCompletion, began: float) -> Outputs | AdapterParseError:
        import asyncio

        threads = _threads()
        context = contextvars.copy_context()  # validators are the user's, and may look at theirs
        future = asyncio.get_running_loop().run_in_executor(threads, lambda: context.run(self._outputs, completion))
        try:
            await asyncio.wait((future,), timeout=self._left(began))
            if future.done():
                return future.result()
        finally:
            future.cancel()
        raise self._late()

    def _outputs(self, completion: ReadableCompletion, steps: int | None = None) -> Outputs | AdapterParseError:
        texts, calls = completion.texts or [""], completion.tool_calls
        try:
            return [self._output(text, calls[at] if at < len(calls) else (), steps) for at, text in enumerate(texts)]
        except AdapterParseError as error:
            return error

    def _output(self, text: str | None, calls: Sequence[Mapping[str, Any]], steps: int | None) -> dict[str, Any]:
        if calls and tool_fields(self.signature).calls is not None:
            return with_calls(self.signature, self._read_beside_calls(text, steps), calls)
        if not text:
            # Also where every output is optional: DSPy takes an empty text for no answer.
            raise AdapterParseError(
                "The model returned an empty answer.",
                adapter=self.compiled.dspy_adapter,
                expected=tuple(self.signature.output_fields),
            )
        values = self._parsed(text, steps)
        return values if self.compiled.signature is self.signature else with_calls(self.signature, values, ())

    def _read_beside_calls(self, text: str | None, steps: int | None) -> dict[str, Any]:
        """Return the outputs in a text that came with tool calls; it need not be readable."""
        try:
            return self._parsed(text, steps) if text and self.compiled.signature.output_fields else {}
        except AdapterParseError:
            return {}

    def _parsed(self, text: str, steps: int | None) -> dict[str, Any]:
        return self.compiled.parse(text, budget=ParseBudget(len(text), trial_steps=steps))

    def _left(self, began: float) -> float | None:
        """Return seconds until the deadline; None when there is none, or when it passed before the reply was there.

        Then the model's answer came in time, and its consumer took the rest: a stream that is read slowly.
        """
        return None if self.deadline is None or began > self.deadline else self.deadline - time.monotonic()

    def require_in_time(self, error: LMTimeoutError) -> None:
        """Check that a model was late, and not the whole call: an LM's own `timeout` bounds each attempt.

        Raises:
            CallTimeout: the call's deadline is over.
        """
        if self.deadline is not None and self.deadline - time.monotonic() < TICK_S:
            raise self._late() from error

    def _require_in_time(self, began: float) -> None:
        left = self._left(began)
        if left is not None and left < 0:
            raise self._late()

    def _late(self) -> CallTimeout:
        timeout = round((self.deadline or 0.0) - self.started, 3)
        return CallTimeout("native", "predict", timeout=timeout, phase="running")


# By process, since threads do not survive a fork. Weak: the last reply that is read takes the threads with it.
_made: Final[weakref.WeakValueDictionary[int, Executor]] = weakref.WeakValueDictionary()


def _threads() -> Executor:
    """Return the threads for long replies; whoever waits for one holds them."""
    threads = _made.get(os.getpid())
    if threads is None:
        from concurrent.futures import ThreadPoolExecutor  # and logging with it

        # Two loops that come here at once make two pairs, of which one is forgotten: harmless, and no lock to inherit.
        threads = _made[os.getpid()] = ThreadPoolExecutor(THREADS, thread_name_prefix="dspex-replies")
    return threads
