"""Run one program over many inputs: in order, bounded, with errors kept in their rows."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast, overload

from ...errors import InvalidInput, SettingsError
from .mapped_rows import MappedRows

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class AwaitedProgram(Protocol[T_co]):
    """A program that `amap` awaits."""

    async def acall(self, **inputs: Any) -> T_co: ...


@dataclass(frozen=True, slots=True)
class Row(Generic[T]):
    """The result of one input: `value`, or `error`."""

    index: int
    inputs: Any
    value: T | None = None
    error: BaseException | None = None

    def result(self) -> T:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return cast(T, self.value)


def map(program: Callable[..., T], inputs: Iterable[Any], *, max_in_flight: int = 64) -> Iterator[Row[T]]:
    """Call `program(**row)` for each row of inputs and yield Rows in their order, `max_in_flight` of them at a time.

    The inputs are read as places come free, so they may be endless. A row that fails carries its error; the others go
    on. Leaving the loop early, or Ctrl-C, starts no more rows and cancels the calls of programs that are in flight;
    what else a function of yours does runs to its end in its thread.

    Raises:
        SettingsError, InvalidInput: what is given cannot be mapped; nothing ran.
    """
    _require_runnable(program, inputs, max_in_flight)
    return _mapped(program, inputs, max_in_flight)


@overload
def amap(
    program: AwaitedProgram[T], inputs: Iterable[Any] | AsyncIterable[Any], *, max_in_flight: int = ...
) -> AsyncIterator[Row[T]]: ...
@overload
def amap(
    program: Callable[..., Awaitable[T]], inputs: Iterable[Any] | AsyncIterable[Any], *, max_in_flight: int = ...
) -> AsyncIterator[Row[T]]: ...
def amap(
    program: Any, inputs: Iterable[Any] | AsyncIterable[Any], *, max_in_flight: int = 64
) -> AsyncIterator[Row[Any]]:
    """`map`, awaiting `program.acall(**row)`, or `program(**row)`; leaving the loop early cancels what runs."""
    _require_runnable(program, inputs, max_in_flight)
    return _amapped(program, inputs, max_in_flight)


def _mapped(program: Callable[..., T], inputs: Iterable[Any], max_in_flight: int) -> Iterator[Row[T]]:
    executor = ThreadPoolExecutor(max_in_flight, thread_name_prefix="dspex-map")
    waiting: deque[Future[Row[T]]] = deque()
    rows = MappedRows()

    def one(index: int, row: Any) -> Row[T]:
        with rows.row():
            return _call(program, index, row)

    try:
        for index, row in enumerate(inputs):
            waiting.append(executor.submit(contextvars.copy_context().run, one, index, row))
            if len(waiting) >= max_in_flight:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        rows.cancel()
        rows.close()


async def _amapped(program: Any, inputs: Any, max_in_flight: int) -> AsyncIterator[Row[Any]]:
    waiting: deque[asyncio.Task[Row[Any]]] = deque()
    index = 0
    try:
        async for row in _each(inputs):
            waiting.append(asyncio.create_task(_acall(program, index, row)))
            index += 1
            if len(waiting) >= max_in_flight:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _call(program: Callable[..., T], index: int, row: Any) -> Row[T]:
    try:
        value = program(**row) if isinstance(row, Mapping) else program(row)
    except Exception as error:  # the row's own; `result()` raises it
        return Row(index, row, error=error)
    return Row(index, row, value)


async def _acall(program: Any, index: int, row: Any) -> Row[Any]:
    call = getattr(program, "acall", program)
    try:
        value = await (call(**row) if isinstance(row, Mapping) else call(row))
    except Exception as error:  # as in `_call`
        return Row(index, row, error=error)
    return Row(index, row, value)


async def _each(inputs: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(inputs, AsyncIterable):
        async for row in inputs:
            yield row
    else:
        for row in inputs:
            yield row


def _require_runnable(program: Any, inputs: Any, max_in_flight: int) -> None:
    if not callable(program) and not hasattr(program, "acall"):
        raise InvalidInput(f"What is mapped is a program or a function, not {program!r}.", field="program")
    if not isinstance(inputs, Iterable | AsyncIterable):
        raise InvalidInput(f"The inputs are an iterable of rows, not a {type(inputs).__name__}.", field="inputs")
    if isinstance(max_in_flight, bool) or not isinstance(max_in_flight, int) or max_in_flight < 1:
        raise SettingsError(
            f"max_in_flight is {max_in_flight!r}; it is a whole number, 1 or more.", key="max_in_flight"
        )
