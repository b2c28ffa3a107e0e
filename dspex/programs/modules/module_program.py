"""A user's own module or function as a program: it runs in workers, as it was written.

With a signature its inputs and outputs are checked and typed. Without one it is *open*: it takes what its `forward` or
`aforward` takes, which a worker says when it is asked, and gives what that returns.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from ... import defaults
from ...adapters.validation import CrossedInputs, added_outputs, open_inputs
from ...errors import InvalidInput, NotConfigured, UnknownName
from ...scoped_defaults import akept_open
from ...services.code import VALUE, SentCode
from ...services.services import services_of
from ...signatures.signature import Signature, signature_of_fields
from ...types.chunk import Chunk
from ...types.prediction import Prediction, S_co
from ..calling.program import Program
from ..options.routing import GENERAL_POOL, Candidate
from ..worker import worker_answers
from ..worker.worker_questions import answer_about

if TYPE_CHECKING:
    from ...lm.record import LM
    from ...pools.supervising import Supervising
    from ...services.services import Services

OPEN: Signature = signature_of_fields({}, "What the module itself takes and gives.")


@dataclass(frozen=True)
class ModuleProgram(Program[S_co]):
    """A program of a user's own module, class, factory or function; `label` is its name for people."""

    label: str = ""
    code: tuple[SentCode, ...] = ()  # what of it is sent by value
    given: str | None = None  # the name of the arguments of its constructor that are sent by value
    given_names: tuple[str, ...] = ()  # which they are
    version: str = ""  # of the files that a named module lies in
    source: str = ""  # of a class that is sent by value: DSPy's Refine shows it to a model
    is_function: bool = False
    isolate: bool = False

    @property
    def is_open(self) -> bool:
        return self.signature is OPEN

    @property
    def is_own(self) -> bool:
        return True

    @property
    def withheld(self) -> tuple[str, ...]:
        return self.given_names

    @property
    def name_shown(self) -> str:
        return self.label

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs; of an open program a worker is asked for them, once.

        Raises:
            UnknownName, InvalidInput, RemoteError: it cannot be made.
        """
        return self.inputs_named(self.described) if self.is_open else super().inputs

    @cached_property
    def described(self) -> Mapping[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride] - asked for once
        """What a worker says of it: "inputs", of these "required" and "texts", "takes_any", "predictors"."""
        return worker_answers.describes(*answer_about(self, "describe_program"))

    @property
    def supervisor_used(self) -> Supervising:
        return self.supervisor or defaults.prepared_supervisor(self.announce)

    @property
    def lm_of_workers(self) -> LM | None:
        try:
            return self.lm_used
        except NotConfigured:  # it may need none, and says so itself if it does
            return None

    # -- calling: as DSPy's modules are called, also by position -----------------------------------------------------

    def __call__(self, *arguments: Any, **inputs: Any) -> Prediction[S_co]:
        """Run it; blocks. What `forward` takes by position may be given so.

        Raises:
            InvalidInput: inputs that it does not take; nothing was sent to a language model.
            RemoteError: what the module itself raised.
            LMError, CallTimeout, WorkerDied, ...: as for any program.
        """
        return super().__call__(**self.named(arguments, inputs))

    async def acall(self, *arguments: Any, **inputs: Any) -> Prediction[S_co]:
        """`__call__`, awaited; a module's `aforward` runs, where it has one. Cancelling the task cancels the call."""
        return await super().acall(**await self._anamed(arguments, inputs))

    def stream(self, *arguments: Any, **inputs: Any) -> Iterator[Chunk | Prediction[S_co]]:
        """Yield the text of each predictor's outputs as it arrives, then the prediction."""
        return super().stream(**self.named(arguments, inputs))

    def astream(self, *arguments: Any, **inputs: Any) -> AsyncIterator[Chunk | Prediction[S_co]]:
        """`stream`, for `async for`."""
        return akept_open(self._streamed(arguments, inputs))

    async def _streamed(
        self, arguments: Sequence[Any], inputs: Mapping[str, Any]
    ) -> AsyncIterator[Chunk | Prediction[S_co]]:
        parts = super().astream(**await self._anamed(arguments, inputs))
        async with contextlib.aclosing(cast("AsyncGenerator[Chunk | Prediction[S_co]]", parts)):
            async for part in parts:
                yield part

    def named(self, arguments: Sequence[Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs by name; those that were given by position get the names that `forward` has for them.

        Raises:
            InvalidInput: it takes fewer by position, or one was given twice.
        """
        if not arguments:
            return dict(inputs)
        if not self.is_open:
            by_name = ", ".join(f"{name}=..." for name in self.inputs)
            raise InvalidInput(f"{self.label} has a signature and takes its inputs by name: {by_name}.")
        names, rest = self.described["positional"], self.described["rest"]
        if len(arguments) > len(names) and rest is None:
            taken = f"{len(names)} ({', '.join(names)})" if names else "none"
            raise InvalidInput(f"{self.label} takes {taken} of its inputs by position, not {len(arguments)}.")
        given = dict(zip(names, arguments, strict=False))
        if rest is not None and len(arguments) > len(names):
            given[rest] = list(arguments[len(names) :])
        for name in given.keys() & inputs.keys():
            raise InvalidInput(f"{self.label} was given {name!r} twice: by position and by name.", field=name)
        return {**given, **inputs}

    async def _anamed(self, arguments: Sequence[Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(inputs) if not arguments else await asyncio.to_thread(self.named, arguments, inputs)

    # ----------------------------------------------------------------------------------------------------------------

    def candidate(self, lm: LM | None) -> Candidate:
        return Candidate(self.label, None, None, bool(self.tools), None if lm is None else lm.obstacle)

    def checked(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(inputs) if self.is_open else super().checked(inputs)

    def crossed(self, inputs: Mapping[str, Any]) -> CrossedInputs:
        return open_inputs(inputs, allow_markers=self.allow_markers) if self.is_open else super().crossed(inputs)

    def typed(self, outputs: Mapping[str, Any], objects: Mapping[str, Any] | None = None) -> dict[str, Any]:
        if not self.is_open:
            return super().typed(outputs, objects)
        return added_outputs(outputs, objects or {}, self.packages)

    @property
    def packages(self) -> frozenset[str]:
        """The packages whose classes it may give, where they are loaded here: its own, and the script's."""
        return frozenset({"__main__", self.module.partition(":")[0].partition(".")[0]})

    def to_wire(self) -> dict[str, Any]:
        wire = super().to_wire()
        if self.is_open:
            wire["signature"] = None
        more = {
            "label": self.label,
            "given": self.given,
            "isolate": self.isolate,
            "function": self.is_function,
            "source": self.source,
            "version": self.version,
        }
        wire.update({name: value for name, value in more.items() if value})
        if any(code.lms for code in self.code):
            record = services_of(self.supervisor_used).lm_record
            wire["held"] = {code.name: [record(lm) for lm in code.lms] for code in self.code}
        return wire

    def announce(self, supervisor: Supervising | None) -> None:
        """Let the pool know that its workers import the module, so that their successors are forked with it."""
        is_named = not self.module.startswith(VALUE) and not self.is_named_by_file
        if supervisor is None or not is_named or supervisor.is_forked or GENERAL_POOL not in supervisor.pools:
            return
        supervisor.pool(GENERAL_POOL).learn(self.module.partition(":")[0], self.version)

    def require_importable(self, supervisor: Supervising | None) -> None:
        """Check that a module which a file named is in a pool's `imports`; what is imported, the workers decide.

        Raises:
            UnknownName: it is not.
        """
        if not self.is_named_by_file or supervisor is None:
            return
        allowed = {name for pool in supervisor.pools for name in supervisor.pool(pool).config.imports}
        if self.module.partition(":")[0] not in allowed:
            advice = (
                f"A saved file has nothing imported: if you trust the module, give it, as in dspex.load(path, "
                f"program=dspex.module({self.module!r}))."
            )
            known = [f"{name}:..." for name in allowed]
            raise UnknownName("module", self.module, known, where="the pool's imports", advice=advice)

    @contextlib.contextmanager
    def registered(self, services: Services) -> Generator[None]:
        self.require_importable(services.supervisor)
        self.announce(services.supervisor)
        with super().registered(services), services.code.registered(self.code):
            yield

    def fields_shown(self) -> Iterator[tuple[str, Any]]:
        return iter(()) if self.is_open else super().fields_shown()  # else a worker would be asked

    def __repr__(self) -> str:
        if not self.is_open:
            return super().__repr__()
        repeats = "" if self.idempotent is None else f", idempotent={self.idempotent}"
        return f"<{self.label}{repeats}>"
