"""Call a program: DSPy's modules, natively or in a worker; callers need not know which.

    qa = dspex.predictor("chain_of_thought", "question -> answer")
    qa(question="...")            # blocks
    await qa.acall(question="...")

A `Program` is immutable and thread-safe. The module's state (demos, instructions) is sent with each call as part of its
spec, and workers keep built modules by the spec's digest: losing a worker loses nothing. What asks such a program more
than once (`strategies`) is a Program too. The functions that make programs are in `program_factories.py`.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Self, Unpack, cast

from ... import defaults
from ...adapters.adapter_names import name_of
from ...adapters.compiled_signature import CompiledSignature
from ...errors import UnknownName
from ...events import Name
from ...lm.call_history import CallHistory, HistoryEntry
from ...lm.given_lms import takes_lms
from ...lm.observing import checked_callbacks, entries_wanted
from ...scoped_defaults import akept_open, kept_open, scoped
from ...signatures.signature import Signature
from ...types.chunk import Chunk
from ...types.prediction import Prediction, S_co
from ..native.native_route import NativePredictor
from ..options import program_options
from ..options.predictor_names import ONLY_PREDICTORS, predictor_lms
from ..options.program_options import ProgramOptions
from ..options.routing import GENERAL_POOL, NATIVE_MODULES, Candidate, Decision, Reason, decide
from ..worker.program_spec import ProgramSpec
from .mapped_rows import current_row

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from ...adapters.adapter_record import AdapterRecord
    from ...adapters.given_adapter import Adapter
    from ...lm.record import LM
    from ...pools.supervising import MadeCall
    from ...scoped_defaults import ScopedDefaults
    from ..worker.worker_route import WorkerCallOptions, WorkerCalls

    S = TypeVar("S", bound=Signature, default=Any)  # the class-style signature that a program is made of

DEFAULT_TIMEOUT = 120.0  # seconds; the general pool's default, for the native route too


@dataclass(frozen=True)
class Program(ProgramSpec, Generic[S_co]):
    """A module, its signature and state, and how to call it. Call it with its inputs as keyword arguments.

    `Program[QA]`, made of `class QA(dspex.Signature)`, gives `Prediction[QA]`.
    """

    # -- calling -------------------------------------------------------------------------------------------------

    def __call__(self, **inputs: Any) -> Prediction[S_co]:
        """Run it; blocks.

        Raises:
            NotConfigured, InvalidInput, UnsafeInput, EncodeError: before anything is sent.
            LMError, AdapterParseError: the same classes on both routes.
            CallTimeout, WorkerDied and the pools' other errors: when it runs in a worker.
        """
        return self.run_here(inputs) if self.is_native else self.run_in_worker(inputs)[0]

    async def acall(self, **inputs: Any) -> Prediction[S_co]:
        """`__call__`, awaited; cancelling the task cancels the call."""
        return await self.arun_here(inputs) if self.is_native else (await self.arun_in_worker(inputs))[0]

    def stream(self, **inputs: Any) -> Iterator[Chunk | Prediction[S_co]]:
        """Yield the output fields' text as it arrives (`Chunk(field, text)`), then the Prediction."""
        return kept_open(self.stream_here(inputs) if self.is_native else self.stream_in_worker(inputs))

    def astream(self, **inputs: Any) -> AsyncIterator[Chunk | Prediction[S_co]]:
        """`stream`, for `async for`."""
        return akept_open(self.astream_here(inputs) if self.is_native else self.astream_in_worker(inputs))

    @takes_lms
    def using(self, **options: Unpack[ProgramOptions]) -> Self:
        """Return the same program with other call options (lm, adapter, config, implementation, timeout, ...).

        Raises:
            UnknownName, SettingsError, InvalidInput: an option or a value that cannot be.
        """
        return replace(self, **call_options(options))

    def with_state(self, state: Mapping[str, Any], **changes: Any) -> Self:
        """Return the same program with the state that an optimizer found for it."""
        return replace(self, state=state, **changes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON that `dspex.load` reads, and DSPy's own `load` too; blocks while a worker gives its state.

        The file holds no LM, key or endpoint; of a module of yours it holds what its predictors have.

        Raises:
            SettingsError: no file can hold the program.
        """
        from ..files.saved_file import write  # with the workers' answers, which native calls do not need
        from ..worker.program_document import program_document
        from ..worker.saved_demos import dumped

        self.require_savable()
        saved = dumped(self)
        write(path, program_document(self, saved.state, saved.versions, {}))

    def require_savable(self) -> None:
        """Check that a file can hold it: a strategy's raises."""

    # -- natively ------------------------------------------------------------------------------------------------

    def run_here(self, inputs: Mapping[str, Any]) -> Prediction[S_co]:
        """Run it natively, whatever was decided."""
        if (row := current_row()) is not None:
            return row.run(self.arun_here(inputs))
        return self._predictor.predict(defaults.client(), inputs, deadline=self._deadline())

    def arun_here(self, inputs: Mapping[str, Any]) -> Coroutine[Any, Any, Prediction[S_co]]:
        """`run_here`, awaited."""
        return self._predictor.apredict(defaults.client(), inputs, deadline=self._deadline())

    def stream_here(self, inputs: Mapping[str, Any]) -> Iterator[Chunk | Prediction[S_co]]:
        """Stream it natively, whatever was decided."""
        return self._predictor.stream(defaults.client(), inputs, deadline=self._deadline())

    def astream_here(self, inputs: Mapping[str, Any]) -> AsyncIterator[Chunk | Prediction[S_co]]:
        """`stream_here`, for `async for`."""
        return self._predictor.astream(defaults.client(), inputs, deadline=self._deadline())

    # -- in a worker ---------------------------------------------------------------------------------------------

    def run_in_worker(
        self, inputs: Mapping[str, Any], **how: Unpack[WorkerCallOptions]
    ) -> tuple[Prediction[S_co], MadeCall | None]:
        """Run it in the general pool, whatever was decided; return the prediction and the call that made it."""
        return self._worker_calls.run(inputs, **how)

    async def arun_in_worker(
        self, inputs: Mapping[str, Any], **how: Unpack[WorkerCallOptions]
    ) -> tuple[Prediction[S_co], MadeCall | None]:
        """`run_in_worker`, awaited."""
        return await self._worker_calls.arun(inputs, **how)

    def stream_in_worker(self, inputs: Mapping[str, Any]) -> Iterator[Chunk | Prediction[S_co]]:
        """Stream it from a worker, whatever was decided."""
        return self._worker_calls.stream(inputs)

    def astream_in_worker(self, inputs: Mapping[str, Any]) -> AsyncIterator[Chunk | Prediction[S_co]]:
        """`stream_in_worker`, for `async for`."""
        return self._worker_calls.astream(inputs)

    @property
    def _worker_calls(self) -> WorkerCalls:
        from ..worker.worker_route import WorkerCalls  # and with it the pools, which a native call does not need

        return WorkerCalls(self)

    # -- seeing it -----------------------------------------------------------------------------------------------

    @property
    def history(self) -> tuple[HistoryEntry, ...]:
        """What was asked for it, and answered, the oldest first: kept after `using(history=True)`.

        After `dspex.configure(history=True)` too, as long as the process's history holds it. Programs made of one with
        a history of its own share it.
        """
        if isinstance(self.kept, CallHistory):
            return self.kept.entries()
        return defaults.observing().history.entries(self.history_key)

    def render(self, **inputs: Any) -> list[dict[str, Any]]:
        """Return the messages that its first request to the model would hold; no model is asked.

        A module without a native form runs in a worker up to that request, with all that it does before.

        Raises:
            NotConfigured, InvalidInput, UnsafeInput, EncodeError: as when it is called.
            CallTimeout, WorkerDied and the pools' other errors: when it is rendered in a worker.
        """
        return self.render_here(inputs) if self.is_native else self._worker_calls.render(inputs)

    async def arender(self, **inputs: Any) -> list[dict[str, Any]]:
        """`render`, awaited."""
        return self.render_here(inputs) if self.is_native else await self._worker_calls.arender(inputs)

    def render_here(self, inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Render it natively, whatever was decided."""
        return self._native.render(inputs)

    # -- where it runs -------------------------------------------------------------------------------------------

    @property
    def decision(self) -> Decision:
        """Where it runs, and why: decided once for an LM and adapter, which may be those of a `dspex.context`."""
        lm = None if self.implementation == "python" else self.lm_of_workers
        adapter = self.adapter_used
        known: tuple[LM | None, Adapter | None, Decision] | None = self.__dict__.get("_decided")
        if known is not None and known[0] is lm and known[1] == adapter:
            return known[2]
        decision = self._decide(lm)
        self.__dict__["_decided"] = (lm, adapter, decision)
        return decision

    def _decide(self, lm: LM | None) -> Decision:
        decision = decide(self.candidate(lm), self.implementation)
        if decision.reason is Reason.PREFIX:
            defaults.client().emit(Name.ROUTE_CHANGED, module=self.module, pool=decision.pool, reason="prefix")
        return decision

    @property
    def is_native(self) -> bool:
        """Whether it runs natively."""
        return self.decision.implementation == "native"

    def candidate(self, lm: LM | None) -> Candidate:
        """Return the facts that the router decides by."""
        own, lm_obstacle = self.own_adapter, None if lm is None else lm.obstacle
        if self.module not in NATIVE_MODULES or own is not None:
            return Candidate(self.module, None, None if own is None else own.name, bool(self.tools), lm_obstacle)
        unsupported, obstacle = None, None
        prefix_differs = False
        if lm is not None and self.served.problem is None:
            native = self._native_for(lm)
            unsupported, obstacle = native.unsupported(), self._obstacle_of(native)
            prefix_differs = unsupported is None and self._differs(native.compiled)
        return Candidate(
            self.module,
            unsupported,
            None,
            bool(self.tools),
            lm_obstacle,
            prefix_differs,
            self.served.problem or self._unserved_option(),
            obstacle,
            worker_python=self._worker_python(),
        )

    def __deepcopy__(self, memo: object) -> Self:
        return self  # nothing of it changes, and its LM's key is not copied about

    def __repr__(self) -> str:
        repeats = "" if self.idempotent is None else f", idempotent={self.idempotent}"
        return f"<{self.name_shown} {', '.join(self.inputs)} -> {', '.join(self.outputs)}{repeats}>"

    def _repr_html_(self) -> str:
        from ...html_views import table  # at first need: notebooks alone show it

        return table(self.facts(), title=self.name_shown)

    def __rich_repr__(self) -> Iterator[tuple[str, Any]]:
        yield from self.facts()

    # ============================================================================================================

    def _worker_python(self) -> str | None:
        """Return the interpreter of its workers, where that is another one."""
        supervisor = self.supervisor or defaults.running_supervisor()
        if supervisor is None or GENERAL_POOL not in supervisor.pools:
            return None
        python = supervisor.pool(GENERAL_POOL).config.interpreter
        return None if python == sys.executable else python

    def _obstacle_of(self, native: NativePredictor) -> tuple[Reason, str] | None:
        second = native.extraction_lm
        return None if second is None or second.native else (Reason.LANGUAGE_MODEL, "the extraction model")

    def _unserved_option(self) -> str | None:
        return f"option {next(iter(self.options))!r}" if self.options else None

    def _differs(self, compiled: CompiledSignature) -> bool:
        if self.prefix_sha256 is None:
            return False
        return compiled.prefix_hash(self.served.demos) != self.prefix_sha256

    @property
    def _native(self) -> NativePredictor:
        """The native predictor for the LM that it uses now."""
        return self._native_for(self.lm_used)

    @property
    def _predictor(self) -> NativePredictor:
        """The native predictor for one call: one that shows itself, if somebody wants to see it."""
        observer = self.observer
        if observer is None:
            return self._native
        native = self._native
        if native.adapter == "two_step":
            from ..native.watched_two_step import WatchedTwoStep

            return WatchedTwoStep.of(native, self.module, observer)
        from ..native.watched_predictor import WatchedPredictor

        return WatchedPredictor.of(native, self.module, observer)

    def _native_for(self, lm: LM) -> NativePredictor:
        """Return the native predictor for an LM, made once as long as the LM and the open block are the same."""
        adapter = self.adapter_used
        second = None if adapter is None or isinstance(adapter, str) else self.extraction_lm
        known: tuple[Any, ScopedDefaults, Adapter | None, NativePredictor] | None = self.__dict__.get("_native_side")
        if known is not None and known[3].lm is lm and known[:3] == (second, scoped(), adapter):
            return known[3]
        made = _kind_of(name_of(adapter) or "")(
            self.served.signature,
            lm,
            adapter=cast("str | AdapterRecord | None", adapter),  # an own one runs in workers
            demos=self.served.demos,
            config=self.config_used,
            rollout_id=self.rollout_id,
            allow_markers=self.allow_markers,
            use_native_function_calling=self.use_native_function_calling,
            name=ONLY_PREDICTORS.get(self.module, "self"),
        )
        made.extraction_lm = second
        self.__dict__["_native_side"] = (second, scoped(), adapter, made)
        return made

    def _deadline(self) -> float | None:
        timeout = DEFAULT_TIMEOUT if self.timeout is None else self.timeout
        return None if timeout == math.inf else time.monotonic() + timeout


def _kind_of(adapter: str) -> type[NativePredictor]:
    if adapter != "two_step":
        return NativePredictor
    from ..native.two_step_route import TwoStepPredictor

    return TwoStepPredictor


def _kept(history: bool | int | None) -> CallHistory | bool | None:
    """Return the history that a program is to have, False for none at all, None where the process decides."""
    if history is None:
        return None
    most = entries_wanted(history)
    return CallHistory(most) if most else False


def call_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as a program keeps them.

    Raises:
        UnknownName: one is no call option.
        SettingsError, InvalidInput: an LM or demonstrations that cannot be.
    """
    options = dict(given)
    for name in options:
        if name not in program_options.NAMES:
            raise UnknownName("call option", name, program_options.NAMES, where="using()")
    if options.get("adapter") is not None:
        options["adapter"] = program_options.checked_adapter(options["adapter"])
    if options.get("lm") is not None:
        options["lm"] = defaults.as_lm_or_name(options["lm"])
    if "lms" in options:
        options["lms"] = predictor_lms(options["lms"])
    if "demos" in options:
        options["demos"] = program_options.checked_demos(options["demos"])
    if "config" in options:
        options["config"] = {} if options["config"] is None else options["config"]
    if "history" in options:
        options["kept"] = _kept(options.pop("history"))
    if "callbacks" in options:
        options["callbacks"] = checked_callbacks(options["callbacks"] or ())
    if options.get("trace", False) is None:
        options["trace"] = False
    return options
