"""`ensemble`: several programs answer, and one answer is made of theirs (`dspy.Ensemble`).

Each is asked by its own route, so natively where it can be: one after the other, as in DSPy; beside each other when it
is awaited. What reduces their answers runs in this process.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, Unpack

from ...errors import InvalidInput, SettingsError, UnknownName
from ...lm.usage import Account
from ...signatures.signature import Signature
from ...types.chunk import Chunk
from ...types.prediction import Prediction
from ..calling.program import Program
from ..options.program_options import ProgramOptions
from ..options.routing import Decision
from .majority import majority_of
from .strategy import accounted, require_function

if TYPE_CHECKING:
    from ...lm.record import LM
    from ...pools.supervising import MadeCall

Reduce = Callable[[list[Prediction]], Prediction]


def ensemble(
    programs: Sequence[Any], *, reduce_fn: Reduce | None = None, size: int | None = None, field: str | None = None
) -> Ensemble:
    """Return a program that asks all of these and takes the commonest of their answers (`dspy.Ensemble`).

    `reduce_fn` makes one prediction of the list of theirs, in this process (None: the majority, which compares `field`,
    default the last output; DSPy's own gives the list). `size` asks so many of them, drawn at random for each call.

    Raises:
        InvalidInput, SettingsError, UnknownName: programs or options that cannot be.
    """
    return Ensemble.of(programs, reduce_fn=reduce_fn, size=size, field=field)


@dataclass(frozen=True)
class Ensemble(Program):
    """A program that asks several; see `dspex.ensemble`."""

    members: tuple[Program, ...] = ()
    reduce_fn: Reduce | None = None
    size: int | None = None
    field: str | None = None

    @classmethod
    def of(
        cls,
        programs: Sequence[Any],
        *,
        reduce_fn: Reduce | None = None,
        size: int | None = None,
        field: str | None = None,
    ) -> Ensemble:
        """Return the program over these.

        Raises:
            InvalidInput, SettingsError, UnknownName: programs or options that cannot be.
        """
        members = tuple(one if isinstance(one, Program) else getattr(one, "program", None) for one in programs)
        found = tuple(one for one in members if isinstance(one, Program))
        if not found or len(found) != len(members):
            raise InvalidInput("An ensemble is made of programs, at least one.", field="programs")
        if reduce_fn is not None:
            require_function(reduce_fn, "reduce_fn", "function that reduces", "predictions")
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= len(found)):
            raise InvalidInput(f"size is {size!r}; it is a whole number, 1 to {len(found)}.", field="size")
        first = found[0]
        if field is not None and not first.is_open and field not in first.answered.output_fields:
            raise UnknownName("output", field, first.answered.output_fields, where=repr(first))
        if field is not None and reduce_fn is not None:
            raise SettingsError("field says what the majority compares, and reduce_fn takes its place.", key="field")
        how: Any = {"supervisor": first.supervisor}
        return cls("dspex.Ensemble", first.signature, members=found, **how, reduce_fn=reduce_fn, size=size, field=field)

    def using(self, **options: Unpack[ProgramOptions]) -> Self:
        return dataclasses.replace(self, members=tuple(one.using(**options) for one in self.members))

    # -- calling: each member by its own route ---------------------------------------------------------------------

    def run_here(self, inputs: Mapping[str, Any]) -> Prediction:
        with Account(self.module) as account:
            made = self._reduced([member(**inputs) for member in self._asked()])
        return accounted(made, account)

    async def arun_here(self, inputs: Mapping[str, Any]) -> Prediction:
        with Account(self.module) as account:
            made = self._reduced(list(await asyncio.gather(*(one.acall(**inputs) for one in self._asked()))))
        return accounted(made, account)

    def run_in_worker(self, inputs: Mapping[str, Any], **how: Any) -> tuple[Prediction, MadeCall | None]:
        return self.run_here(inputs), None

    async def arun_in_worker(self, inputs: Mapping[str, Any], **how: Any) -> tuple[Prediction, MadeCall | None]:
        return await self.arun_here(inputs), None

    def stream_here(self, inputs: Mapping[str, Any]) -> Iterator[Chunk | Prediction]:
        yield self.run_here(inputs)

    async def astream_here(self, inputs: Mapping[str, Any]) -> AsyncIterator[Chunk | Prediction]:
        yield await self.arun_here(inputs)

    def stream_in_worker(self, inputs: Mapping[str, Any]) -> Iterator[Chunk | Prediction]:
        return self.stream_here(inputs)

    def astream_in_worker(self, inputs: Mapping[str, Any]) -> AsyncIterator[Chunk | Prediction]:
        return self.astream_here(inputs)

    # -- looking at it -----------------------------------------------------------------------------------------------

    @property
    def decision(self) -> Decision:
        """Where it runs: where the first does that is not native, else where all do."""
        return next((one.decision for one in self.members if not one.is_native), self.members[0].decision)

    @property
    def lm_used(self) -> LM:
        return self.members[0].lm_used

    @property
    def is_open(self) -> bool:
        return self.members[0].is_open

    @property
    def answered(self) -> Signature:
        return self.members[0].answered

    @property
    def is_of_requests(self) -> bool:
        return all(one.is_of_requests for one in self.members)

    def to_wire(self) -> dict[str, Any]:
        raise SettingsError(
            "An ensemble has no form that a worker could run as a whole: optimize or evaluate what it asks.",
            key="program",
        )

    def __repr__(self) -> str:
        return f"<ensemble of {', '.join(map(repr, self.members))}>"

    # ================================================================================================================

    def _asked(self) -> Sequence[Program]:
        return self.members if self.size is None else random.sample(self.members, self.size)

    def _reduced(self, predictions: list[Prediction]) -> Prediction:
        if self.reduce_fn is None:
            return majority_of(predictions, field=self.field)
        made: Any = self.reduce_fn(predictions)
        if not isinstance(made, Prediction):
            raise SettingsError(
                f"reduce_fn gave a {type(made).__name__}; it gives one prediction for several.", key="reduce_fn"
            )
        return made
