"""What is evaluated: a program, anything with `acall` (a pipeline), or a function; each asked for one example's answer.

Nothing here bounds or counts: `evaluation_run` does. Functions that block run in threads of the evaluation.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import Parameter
from typing import TYPE_CHECKING, Any, Protocol

from dspex_worker.user_calls import is_asynchronous

from ...errors import InvalidInput, SettingsError
from ...services.user_threads import UserThreads, as_error
from ...signatures.signature import Signature
from ...types.prediction import Prediction
from ..calling.program import Program
from ..examples.devset import DevsetRow
from ..factories.given_program import given_program, is_open, known_inputs
from ..options.routing import GENERAL_POOL

if TYPE_CHECKING:
    from ...pools.supervising import Supervising

DEFAULT_ROWS = 8  # at a time, natively and of functions; DSPy's own number of threads
_WHOLE_IN_WORKERS = frozenset({"dspy.BestOfN", "dspy.Refine"})  # strategies whose loop may run in a worker
_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Evaluated(Protocol):
    """What is evaluated."""

    @property
    def inputs(self) -> Sequence[str] | None:
        """The names of its inputs, None if it takes what it is given."""
        ...

    @property
    def at_once(self) -> int:
        """How many rows it answers at a time."""
        ...

    @property
    def signature(self) -> Signature | None:
        """The signature of its answers, if nothing but that says what they are."""
        ...

    @property
    def pool(self) -> str:
        """The pool that it runs in, or "native"."""
        ...

    def require(self, rows: Sequence[DevsetRow]) -> None:
        """Check what can be checked before anything is paid."""
        ...

    async def ask(self, row: DevsetRow, threads: UserThreads) -> Any:
        """Return its answer to a row."""
        ...


def evaluated(what: Any, supervisor: Supervising | None, *, awaits: bool = False) -> Evaluated:
    """Return what was given as something to evaluate; a signature is a program that predicts.

    Raises:
        InvalidInput, SignatureError: it is nothing that answers.
    """
    asked = given_program(what, supervisor)
    if asked is not None:
        program: Program = asked if supervisor is None else asked.using(supervisor=supervisor)
        return EvaluatedProgram(program if program.timeout is not None else program.using(timeout=math.inf), awaits)
    if inspect.iscoroutinefunction(getattr(what, "acall", None)):
        return EvaluatedRunnable(what, supervisor)
    if callable(what) and not isinstance(what, type):
        return EvaluatedFunction(what)
    raise InvalidInput(
        f"evaluate needs a program, such as dspex.predictor('predict', 'question -> answer'), a signature, a pipeline "
        f"or a function, not {what!r}.",
        field="program",
    )


@dataclass(frozen=True)
class EvaluatedProgram:
    """A program, by its own route, one call for each row. It has no time limit but its own `timeout`."""

    program: Program[Any]
    awaits: bool = False  # an own module's `aforward`, where it has one

    @property
    def inputs(self) -> Sequence[str]:
        return known_inputs(self.program)

    @property
    def signature(self) -> Signature | None:
        return None if self.program.is_own else self.program.answered

    @property
    def pool(self) -> str:
        return self.program.decision.pool or "native"

    @property
    def at_once(self) -> int:
        program = self.program
        if program.is_native:
            return DEFAULT_ROWS
        pool = program.supervisor_used.pool(GENERAL_POOL)
        return int(pool.stats()["size"]) * pool.config.concurrency

    def require(self, rows: Sequence[DevsetRow]) -> None:
        program = self.program
        _ = program.lm_of_workers, program.decision
        if not self.is_open and set(program.inputs) != set(program.signature.input_fields):
            return  # it finds some of them by itself, as RAG does
        for at, row in enumerate(rows):
            try:
                program.crossed(row.inputs)
            except InvalidInput as error:
                error.args = (f"devset[{at}]: {error}",)
                raise

    async def ask(self, row: DevsetRow, threads: UserThreads) -> Any:
        program = self.program
        blocks = hasattr(program, "attempts") and (program.is_native or program.module not in _WHOLE_IN_WORKERS)
        if blocks:  # rewards, checks and retrievers are functions of the user's, called between its requests
            return await threads.result(partial(program, **row.inputs))
        if program.is_own and not self.awaits:  # as DSPy's Evaluate: `forward`, where there is `aforward` too
            return (await program.arun_in_worker(row.inputs, awaits=False))[0]
        return await program.acall(**row.inputs)

    @property
    def is_open(self) -> bool:
        """Whether it is a user's own module without a signature."""
        return is_open(self.program)


@dataclass(frozen=True)
class EvaluatedRunnable:
    """A pipeline, or whatever else has `acall`; its inputs are those that it says it needs."""

    what: Any
    supervisor: Supervising | None
    signature: None = None
    pool: str = "native"
    at_once: int = DEFAULT_ROWS

    @property
    def inputs(self) -> Sequence[str] | None:
        names = getattr(self.what, "inputs", None)
        return tuple(names) if names else None  # a pipeline that begins with an open module does not know them

    def require(self, rows: Sequence[DevsetRow]) -> None:
        if self.supervisor is not None and not hasattr(self.what, "arun"):
            raise SettingsError(f"supervisor= is for programs and pipelines, not for {self.what!r}.", key="supervisor")
        if callable(validate := getattr(self.what, "validate", None)):
            for row in rows:
                validate(row.inputs)

    async def ask(self, row: DevsetRow, threads: UserThreads) -> Any:
        if self.supervisor is None:
            return as_prediction(await self.what.acall(**row.inputs))
        return as_prediction(await self.what.arun(dict(row.inputs), supervisor=self.supervisor))


@dataclass(frozen=True)
class EvaluatedFunction:
    """A function, plain or asynchronous: of the inputs by their names, or of the whole example.

    It gets the example if it has one parameter that it requires, which no field is called: `lambda example: ...`.
    """

    function: Callable[..., Any]
    signature: None = None
    pool: str = "native"
    at_once: int = DEFAULT_ROWS

    @property
    def inputs(self) -> Sequence[str] | None:
        parameters = self._parameters
        if parameters is None or any(each.kind is Parameter.VAR_KEYWORD for each in parameters):
            return None
        # One with a default could have a label's name: it is given if it is named.
        by_name = [each for each in parameters if each.kind in (*_BY_POSITION, Parameter.KEYWORD_ONLY)]
        return [each.name for each in by_name if each.default is Parameter.empty]

    def require(self, rows: Sequence[DevsetRow]) -> None:
        for row in rows:
            if self._takes_example(row):
                continue
            try:
                inspect.signature(self.function).bind(**row.inputs)
            except TypeError as error:
                raise InvalidInput(
                    f"{self.function!r} cannot be called with the inputs {', '.join(row.inputs) or '(none)'}: {error}. "
                    f"Name what goes in with inputs=[...], or give a function of the example.",
                    field="program",
                ) from None
            except ValueError:  # it has no signature to ask
                return

    async def ask(self, row: DevsetRow, threads: UserThreads) -> Any:
        given = (row.example,) if self._takes_example(row) else ()
        called = partial(self.function, *given, **({} if given else row.inputs))
        if is_asynchronous(self.function):
            return as_prediction(await awaited(called()))
        made = await threads.result(called)
        return as_prediction(await awaited(made) if inspect.isawaitable(made) else made)

    def _takes_example(self, row: DevsetRow) -> bool:
        every = self._parameters
        if every is None:
            return False
        needed = [one for one in every if one.default is Parameter.empty and one.kind in _BY_POSITION]
        others = [one for one in every if one.default is Parameter.empty and one.kind is Parameter.KEYWORD_ONLY]
        return len(needed) == 1 and not others and needed[0].name not in row.example.keys()  # noqa: SIM118

    @property
    def _parameters(self) -> list[Parameter] | None:
        try:
            return list(inspect.signature(self.function).parameters.values())
        except (TypeError, ValueError):
            return None


def as_prediction(made: Any) -> Any:
    """Return what holds outputs by name as a Prediction; predictions and plain values are as they are."""
    if hasattr(made, "toDict") or not (hasattr(made, "keys") and hasattr(made, "__getitem__")):
        return made
    usage, cost = getattr(made, "usage", {}), getattr(made, "cost_usd", None)
    values = {str(name): made[name] for name in made.keys()}  # noqa: SIM118 - no Mapping
    return Prediction(values, usage=usage if isinstance(usage, Mapping) else {}, cost_usd=cost, route="")


async def awaited(made: Awaitable[Any]) -> Any:
    """Return what a coroutine of the user's gives; it cannot end this task, which only a cancellation does.

    Raises:
        RuntimeError: it ended with what would end this process, or this task, were it raised here.
    """
    try:
        return await made
    except Exception:  # an error of its own is the row's, as it is
        raise
    except BaseException as error:  # what would end this task, unless it is this task's own cancellation
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        raise as_error(error) from error
