"""Run a loop of attempts over an inner program, on either route: the base of all strategies.

The timeout of a strategy bounds all of its attempts together. Its usage and cost are those of all attempts, failed ones
included. A strategy has no text to stream: its stream gives the prediction alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from dspex_worker.user_calls import Mismatch, require_arguments

from ...errors import CallTimeout, SettingsError
from ...lm.usage import Account
from ...signatures.signature import Signature
from ...types.chunk import Chunk
from ...types.prediction import Prediction, with_facts
from ..calling.program import DEFAULT_TIMEOUT, Program
from ..options.predictor_names import require_predictors, within, without
from ..options.routing import NATIVE_MODULES, Candidate
from .attempts import HINT, Attempt, Loop, adrive, drive, with_hint

if TYPE_CHECKING:
    from ...adapters.validation import CrossedInputs
    from ...lm.record import LM
    from ...pools.supervising import MadeCall
    from ...services.sent_types import SentTypes
    from ...services.services import Services

_OWN = frozenset(field.name for field in dataclasses.fields(Program)) - {"module"}


@dataclass(frozen=True)
class Strategy(Program):
    """A program over an inner one, whose call options, state and demos are its own."""

    inner_module: str = "dspy.Predict"
    asked: Program | None = None  # the program that it was made of, for what is its alone

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lms:
            object.__setattr__(self, "lms", without(self.lms))
            require_predictors(self.inner_module, self.lms)

    @classmethod
    def made(cls, module: str, inner: Program, **own: Any) -> Self:
        """Return the strategy over `inner`.

        Raises:
            SettingsError: `inner` is a strategy itself.
        """
        if isinstance(inner, Strategy) or inner.module in _STRATEGY_NAMES:
            raise SettingsError(f"{module} asks a module of DSPy's, not {inner.module}.", key="module")
        shared = {name: getattr(inner, name) for name in _OWN}
        return cls(module=module, inner_module=inner.module, asked=inner, **shared, **own)

    @cached_property
    def inner(self) -> Program:
        """The program that it asks, with its own call options."""
        shared = {name: getattr(self, name) for name in _OWN}
        return dataclasses.replace(self.asked or Program(self.inner_module, self.signature), **shared)

    def require_savable(self) -> None:
        """Raise: what repeats or chooses is a function of this process."""
        raise SettingsError(
            f"{self.module} asks in a way that a file cannot hold (its functions are this process's): save the "
            f"program that it asks, and put it into the strategy again when it is loaded.",
            key="program",
        )

    def attempts(self, inputs: Mapping[str, Any]) -> Loop:
        """Return the loop over the checked inputs."""
        raise NotImplementedError

    # -- natively ------------------------------------------------------------------------------------------------

    def run_here(self, inputs: Mapping[str, Any]) -> Prediction:
        limit = Limit(self.module, DEFAULT_TIMEOUT if self.timeout is None else self.timeout)
        with Account(self.module) as account:
            made = drive(self.attempts(self._checked(inputs)), lambda one: _here(*self._asking(one, inputs, limit)))
        return accounted(made, account)

    async def arun_here(self, inputs: Mapping[str, Any]) -> Prediction:
        limit = Limit(self.module, DEFAULT_TIMEOUT if self.timeout is None else self.timeout)
        with Account(self.module) as account:
            made = await adrive(
                self.attempts(self._checked(inputs)), lambda one: _ahere(*self._asking(one, inputs, limit))
            )
        return accounted(made, account)

    def stream_here(self, inputs: Mapping[str, Any]) -> Iterator[Chunk | Prediction]:
        yield self.run_here(inputs)

    async def astream_here(self, inputs: Mapping[str, Any]) -> AsyncIterator[Chunk | Prediction]:
        yield await self.arun_here(inputs)

    def stream_in_worker(self, inputs: Mapping[str, Any]) -> Iterator[Chunk | Prediction]:
        yield self.run_in_worker(inputs)[0]

    async def astream_in_worker(self, inputs: Mapping[str, Any]) -> AsyncIterator[Chunk | Prediction]:
        yield (await self.arun_in_worker(inputs))[0]

    def with_state(self, state: Mapping[str, Any], **changes: Any) -> Self:
        # DSPy names the parts of a state by the path to them; the inner program's begin with `module`.
        parts = {name.removeprefix("module."): part for name, part in state.items() if name != "metadata"}
        return dataclasses.replace(self, state=parts.get("module", parts), **changes)

    # -- looking at it -------------------------------------------------------------------------------------------

    @property
    def lm_used(self) -> LM:
        return self.inner.lm_used

    def wire_lms(self, services: Services) -> dict[str, Any]:
        return {key: within(lms) for key, lms in super().wire_lms(services).items()}

    def candidate(self, lm: LM | None) -> Candidate:
        return self.inner.candidate(lm)

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.inner.inputs

    @property
    def described(self) -> Mapping[str, Any]:
        return self.inner.described

    @property
    def is_open(self) -> bool:
        return self.inner.is_open

    @property
    def is_own(self) -> bool:
        return self.inner.is_own

    def checked(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return self.inner.checked(inputs)

    @property
    def sent(self) -> SentTypes:
        return self.inner.sent

    @property
    def packages(self) -> frozenset[str]:
        return self.inner.packages

    def crossed(self, inputs: Mapping[str, Any]) -> CrossedInputs:
        return self.inner.crossed(inputs)

    def typed(self, outputs: Mapping[str, Any], objects: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self.inner.typed(outputs, objects)

    @contextlib.contextmanager
    def registered(self, services: Services) -> Generator[None]:
        with self.inner.registered(services):
            yield

    def inner_wire(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the wire form of DSPy's module `name` over the inner program, with these options beside that."""
        inner = self.inner.to_wire()
        outer: dict[str, Any] = {key: inner.pop(key) for key in ("signature", "tools") if key in inner}
        return {**outer, "module": name, "options": {"module": inner, **options}, "state": None}

    @property
    def first_rollout(self) -> int:
        """The rollout id that attempts are counted from."""
        return int(self.rollout_id or self.config.get("rollout_id") or 0)

    @property
    def is_of_requests(self) -> bool:
        return False  # its functions are the user's, unless a strategy says otherwise

    @property
    def answered(self) -> Signature:
        return self.inner.answered

    def __repr__(self) -> str:
        return f"<{self.module} of {self.inner!r}>"

    # ============================================================================================================

    def _checked(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return self.inner.checked(inputs)

    def _asking(self, attempt: Attempt, inputs: Mapping[str, Any], limit: Limit) -> tuple[Program, Mapping[str, Any]]:
        """Return the program that an attempt asks, and its inputs."""
        changes = {"config": self.config_used, "timeout": limit.left(), **self._differing(attempt)}
        program = dataclasses.replace(self.inner, **changes)
        if not attempt.feedback or program.is_own:  # a user's module has no place for a hint: it is asked anew
            return program, inputs
        return hinted(program), {**inputs, HINT: "\n".join(attempt.feedback)}

    def _differing(self, attempt: Attempt) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        if attempt.rollout_id is not None:
            changes["rollout_id"] = attempt.rollout_id
        if attempt.temperature is not None:
            changes["config"] = {**self.config_used, "temperature": attempt.temperature}
        return changes


class Limit:
    """The time that all attempts share; None where the pool's default bounds each."""

    def __init__(self, what: str, timeout: float | None) -> None:
        self._what = what
        self._timeout = timeout
        self._ends = math.inf if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        """Return the seconds for the next attempt.

        Raises:
            CallTimeout: there are none.
        """
        if self._timeout is None or self._timeout == math.inf:
            return self._timeout
        left = self._ends - time.monotonic()
        if left <= 0:
            raise CallTimeout("native", self._what, timeout=self._timeout, phase="running")
        return left


class RepeatingStrategy(Strategy):
    """A strategy whose loop runs in this process on both routes; in a worker, each attempt is a call."""

    def run_in_worker(self, inputs: Mapping[str, Any], **how: Any) -> tuple[Prediction, MadeCall | None]:
        timeout, calls = how.pop("timeout", None), _Calls()
        limit = Limit(self.module, self.timeout if timeout is None else timeout)

        def ask(attempt: Attempt) -> Prediction:
            program, given = self._asking(attempt, inputs, limit)
            return calls.noted(program.run_in_worker(given, **how))

        with Account(self.module) as account:
            made = drive(self.attempts(self._checked(inputs)), ask)
        return accounted(made, account), calls.last

    async def arun_in_worker(self, inputs: Mapping[str, Any], **how: Any) -> tuple[Prediction, MadeCall | None]:
        timeout, calls = how.pop("timeout", None), _Calls()
        limit = Limit(self.module, self.timeout if timeout is None else timeout)

        async def ask(attempt: Attempt) -> Prediction:
            program, given = self._asking(attempt, inputs, limit)
            return calls.noted(await program.arun_in_worker(given, **how))

        with Account(self.module) as account:
            made = await adrive(self.attempts(self._checked(inputs)), ask)
        return accounted(made, account), calls.last

    def to_wire(self) -> dict[str, Any]:
        raise SettingsError(
            f"{self.module} has no form that a worker could run as a whole; optimize or evaluate the program that it "
            f"asks, or score it here with dspex.map.",
            key="program",
        )


class _Calls:
    """The calls of a loop, of which the last is reported."""

    def __init__(self) -> None:
        self.last: MadeCall | None = None

    def noted(self, made: tuple[Prediction, MadeCall | None]) -> Prediction:
        prediction, self.last = made
        return prediction


def hinted(program: Program) -> Program:
    """Return the program with the input `hint_`; a saved state is applied to its signature first.

    Raises:
        SettingsError: its state names other fields.
    """
    if program.module in NATIVE_MODULES:
        served = program.served
        return dataclasses.replace(
            program,
            module="dspy.Predict",
            signature=with_hint(served.signature),
            demos=served.demos,
            state=None,
            prefix_sha256=None,
        )
    if program.state is not None:
        raise SettingsError(
            f"A saved {program.module} cannot be given hints: its state names other fields.", key="state"
        )
    return dataclasses.replace(program, signature=with_hint(program.signature))


def require_function(function: Any, key: str, what: str, *arguments: str, may_await: bool = False) -> None:
    """Check that a function of this process can be called with these arguments by position.

    Raises:
        SettingsError: it cannot.
    """
    try:
        require_arguments(function, what, *arguments, may_await=may_await)
    except Mismatch as error:
        raise SettingsError(str(error), key=key) from error


def accounted(made: Prediction, account: Account) -> Prediction:
    """Return the prediction with what all attempts used."""
    return with_facts(
        made,
        usage=account.stats()["models"],
        cached=not account.requests and account.cached_requests > 0,
        cost_usd=account.cost,
    )


def _here(program: Program, inputs: Mapping[str, Any]) -> Prediction:
    return program.run_here(inputs)


async def _ahere(program: Program, inputs: Mapping[str, Any]) -> Prediction:
    return await program.arun_here(inputs)


_STRATEGY_NAMES = frozenset({"dspy.BestOfN", "dspy.Refine", "dspy.majority", "dspex.Assertions", "dspex.RAG"})
