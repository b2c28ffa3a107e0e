"""Ask one program for a request: once, as a stream, or for a batch; within the request's time and budget."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from ..errors import CallTimeout, InvalidInput
from ..types.chunk import Chunk
from ..types.prediction import Prediction
from .event_stream import ServedEvent
from .problems import problem_of
from .program_shape import ProgramShape, shape_of

if TYPE_CHECKING:
    from ..programs.calling.program import Program
    from .call_limits import AskedLimits

ROWS_AT_ONCE: Final = 16  # of one batch


class ProgramEndpoint:
    """A program under its name."""

    def __init__(self, name: str, program: Program[Any]) -> None:
        self.name = name
        self.program = program
        self._bound: tuple[float | None, Program[Any]] = program.timeout, program
        self._shape: ProgramShape | None = None if program.is_open else shape_of(name, program)

    @property
    def description(self) -> str:
        """What it does: the instructions of its signature."""
        return self.program.name_shown if self.program.is_open else self.program.signature.instructions

    async def shape(self) -> ProgramShape:
        """Return what it takes and gives; of a program without a signature a worker is asked, once."""
        if self._shape is None:
            self._shape = await asyncio.to_thread(shape_of, self.name, self.program)
        return self._shape

    async def ask(self, given: Any, asked: AskedLimits) -> tuple[Any, Mapping[str, Any]]:
        """Return the outputs as JSON has them, and the usage.

        Raises:
            MisfitInput: `given` does not fit.
            DspexError: as for any program.
        """
        inputs = await self._read(given)
        with asked.account:
            return await self._asked(inputs, asked.timeout)

    async def stream(self, given: Any, asked: AskedLimits) -> AsyncIterator[ServedEvent]:
        """Yield the chunks, the usage, then the prediction; errors as for `ask`."""
        inputs = await self._read(given)
        shape, program = await self.shape(), self._within(asked.timeout)
        with asked.account:
            parts = cast("AsyncGenerator[Any]", program.astream(**inputs))
            async with contextlib.aclosing(parts):
                async for part in parts:
                    if isinstance(part, Chunk):
                        said = {"predictor": part.predictor, "field": part.field, "text": part.text}
                        yield ServedEvent("chunk", said)
                    else:
                        yield ServedEvent("usage", usage_of(part))
                        yield ServedEvent("prediction", shape.write(part))

    async def ask_each(self, rows: Sequence[Any], asked: AskedLimits) -> list[dict[str, Any]]:
        """Return for each row its outputs and usage, or its problem; the time and the budget are those of all."""
        deadline = time.monotonic() + asked.timeout
        places = asyncio.Semaphore(ROWS_AT_ONCE)

        async def one(row: Any) -> dict[str, Any]:
            async with places:
                try:
                    left = deadline - time.monotonic()
                    inputs = await self._read(row)
                    if left <= 0:
                        raise CallTimeout("serve", self.name, timeout=asked.timeout, phase="queued")
                    outputs, usage = await self._asked(inputs, left)
                except Exception as error:  # the row's own; the others go on
                    return {"problem": problem_of(error, program=self.name).to_json()}
            return {"prediction": outputs, "usage": usage}

        with asked.account:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(row)) for row in rows]
        return [task.result() for task in tasks]

    # ============================================================================================================

    async def _read(self, given: Any) -> dict[str, Any]:
        if not isinstance(given, dict):
            raise InvalidInput(f"The inputs of {self.name!r} are an object, not {_kind(given)}.")
        return (await self.shape()).read(given)

    async def _asked(self, inputs: Mapping[str, Any], timeout: float) -> tuple[Any, Mapping[str, Any]]:
        made: Any = await self._within(timeout).acall(**inputs)
        return (await self.shape()).write(made), usage_of(made)

    def _within(self, timeout: float) -> Program[Any]:
        own, (bound, program) = self.program.timeout, self._bound
        if own is not None and own <= timeout:
            return self.program
        if bound != timeout:
            program = self.program.using(timeout=timeout)
            self._bound = timeout, program  # most requests ask for no other: what a program derives is made once
        return program


def usage_of(made: Any) -> dict[str, Any]:
    """Return what a prediction used, as callers are told: tokens, and dollars where the price is known."""
    if not isinstance(made, Prediction):
        return {}
    tokens = sum(counts.get("total_tokens") or 0 for counts in made.usage.values())
    return {"tokens": tokens, "cost_usd": made.cost_usd, "cached": made.cached, "finish_reason": made.finish_reason}


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a text", bool: "a truth value", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")
