"""Programs: handles on DSPy's modules that run natively or in a worker; callers need not know which.

    qa = dspex.predictor("chain_of_thought", "question -> answer")
    qa(question="...")            # blocks
    await qa.acall(question="...")

A `Program` is immutable and thread-safe. The module's state (demos, instructions) travels with each call as part of its
spec, and workers keep built modules by the spec's digest: losing a worker loses nothing. What asks such a program more
than once (`dspex/strategies`) is a Program too. The functions that make programs are in `predictors.py`.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .. import defaults
from ..adapters.compiled_signature import CompiledSignature
from ..adapters.function_calling import asked_signature, is_native_by_default
from ..adapters.injection import refuse_marked_texts
from ..adapters.validation import demo_to_wire
from ..errors import SettingsError, UnknownName
from ..events import Name
from ..services.tools import new_set_id, specs_of
from ..signatures.annotations import classes_in, is_dspy_type
from ..signatures.field import OutputField
from ..signatures.signature import Signature
from ..signatures.wire_form import imports_types, signature_to_wire
from ..types.chunk import Chunk
from ..types.prediction import Prediction
from .native_route import NativePredictor, default_adapter
from .program_state import NativeState, demos_of, native_state
from .routing import GENERAL_POOL, NATIVE_MODULES, Candidate, Decision, Reason, decide

if TYPE_CHECKING:
    from ..lm.record import LM
    from ..pools.call import Call
    from ..pools.supervisor import Supervisor
    from ..services.services import Services
    from ..types.tool import Tool
    from .worker_route import WorkerCalls

DEFAULT_TIMEOUT = 120.0  # seconds; the general pool's default, for the native route too
CALL_OPTIONS = frozenset(
    {
        *("lm", "adapter", "config", "implementation", "timeout", "supervisor", "demos", "rollout_id"),
        *("use_native_function_calling", "idempotent"),
    }
)
_OF_REQUESTS = frozenset({"dspy.Predict", "dspy.ChainOfThought", "dspy.MultiChainComparison"})
_AGENTS = frozenset({"dspy.ReAct", "dspy.ReActV2"})


@dataclass(frozen=True)
class Program:
    """A module, its signature and state, and how to call it. Call it with its inputs as keyword arguments."""

    module: str
    signature: Signature
    options: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Tool, ...] = ()
    state: Mapping[str, Any] | None = None
    demos: tuple[Mapping[str, Any], ...] = ()
    lm: LM | None = None
    adapter: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    implementation: str = "auto"
    timeout: float | None = None
    rollout_id: int | None = None
    supervisor: Supervisor | None = None
    use_native_function_calling: bool | None = None  # None: as DSPy's adapter has it, json yes, chat no
    prefix_sha256: str | None = None  # of a saved program: what DSPy rendered when it was saved
    allow_markers: bool = False
    idempotent: bool | None = None  # None: it may run again after a worker's death if it is made of LM requests alone
    tool_set: str = ""  # the id under which workers ask for what is of the host's

    def __post_init__(self) -> None:
        if not self.tool_set and (self.tools or self.module not in NATIVE_MODULES):
            object.__setattr__(self, "tool_set", new_set_id())
        if self.idempotent is not None and not isinstance(self.idempotent, bool):
            raise SettingsError(
                f"idempotent is {self.idempotent!r}; it is True (it may run once more if its worker dies), False, or "
                f"None (only what is made of LM requests alone may).",
                key="idempotent",
            )

    # -- calling -----------------------------------------------------------------------------------------------

    def __call__(self, **inputs: Any) -> Prediction:
        """Run it; blocks.

        Raises:
            NotConfigured, InvalidInput, UnsafeInput, EncodeError: before anything is sent.
            LMError, AdapterParseError: the same classes on both routes.
            CallTimeout, WorkerDied and the pools' other errors: when it runs in a worker.
        """
        return self.run_here(inputs) if self.is_native else self.run_in_worker(inputs)[0]

    async def acall(self, **inputs: Any) -> Prediction:
        """`__call__`, awaited; cancelling the task cancels the call."""
        return await self.arun_here(inputs) if self.is_native else (await self.arun_in_worker(inputs))[0]

    def stream(self, **inputs: Any) -> Iterator[Chunk | Prediction]:
        """Give the output fields' text as it arrives (`Chunk(field, text)`), then the Prediction."""
        return self.stream_here(inputs) if self.is_native else self.stream_in_worker(inputs)

    def astream(self, **inputs: Any) -> AsyncIterator[Chunk | Prediction]:
        """`stream`, for `async for`."""
        return self.astream_here(inputs) if self.is_native else self.astream_in_worker(inputs)

    def using(self, **options: Any) -> Program:
        """Give the same program with other call options (lm, adapter, config, implementation, timeout, ...).

        `idempotent=True` says that it may run once more if its worker dies.
        """
        for name in options:
            if name not in CALL_OPTIONS:
                raise UnknownName("call option", name, CALL_OPTIONS, where="using()")
        if options.get("lm") is not None:
            options["lm"] = defaults.as_lm(options["lm"])
        if "demos" in options:
            options["demos"] = tuple(options["demos"])
        return replace(self, **options)

    def with_state(self, state: Mapping[str, Any], **changes: Any) -> Program:
        """Give the same program with the state that an optimizer found for it."""
        return replace(self, state=state, **changes)

    # -- natively ------------------------------------------------------------------------------------------------

    def run_here(self, inputs: Mapping[str, Any]) -> Prediction:
        """Run it natively, whatever was decided."""
        return self._native.predict(defaults.client(), inputs, deadline=self._deadline())

    def arun_here(self, inputs: Mapping[str, Any]) -> Coroutine[Any, Any, Prediction]:
        """`run_here`, awaited."""
        return self._native.apredict(defaults.client(), inputs, deadline=self._deadline())

    def stream_here(self, inputs: Mapping[str, Any]) -> Iterator[Chunk | Prediction]:
        """Stream it natively, whatever was decided."""
        return self._native.stream(defaults.client(), inputs, deadline=self._deadline())

    def astream_here(self, inputs: Mapping[str, Any]) -> AsyncIterator[Chunk | Prediction]:
        """`stream_here`, for `async for`."""
        return self._native.astream(defaults.client(), inputs, deadline=self._deadline())

    # -- in a worker ---------------------------------------------------------------------------------------------

    def run_in_worker(self, inputs: Mapping[str, Any], **how: Any) -> tuple[Prediction, Call | None]:
        """Run it in the general pool, whatever was decided; `how` and the call that made it: see `WorkerCalls.run`."""
        return self._worker_calls.run(inputs, **how)

    async def arun_in_worker(self, inputs: Mapping[str, Any], **how: Any) -> tuple[Prediction, Call | None]:
        """`run_in_worker`, awaited."""
        return await self._worker_calls.arun(inputs, **how)

    def stream_in_worker(self, inputs: Mapping[str, Any]) -> Iterator[Chunk | Prediction]:
        """Stream it from a worker, whatever was decided."""
        return self._worker_calls.stream(inputs)

    def astream_in_worker(self, inputs: Mapping[str, Any]) -> AsyncIterator[Chunk | Prediction]:
        """`stream_in_worker`, for `async for`."""
        return self._worker_calls.astream(inputs)

    @property
    def _worker_calls(self) -> WorkerCalls:
        from .worker_route import WorkerCalls  # and with it the pools, which a native call does not need

        return WorkerCalls(self)

    @contextlib.contextmanager
    def lent(self, services: Services) -> Iterator[None]:
        """Lend what the program's spec refers to for the block: its tools."""
        with services.tools.lent(self.tool_set, self.tools):
            yield

    # -- looking at it -------------------------------------------------------------------------------------------

    @cached_property
    def decision(self) -> Decision:
        """Where it runs, and why."""
        if self.implementation == "python":
            return decide(self.candidate(None), "python")
        decision = decide(self.candidate(self.lm_used), self.implementation)
        if decision.reason is Reason.PREFIX:
            defaults.client().emit(Name.ROUTE_CHANGED, module=self.module, pool=decision.pool, reason="prefix")
        return decision

    @property
    def is_native(self) -> bool:
        """Whether it runs natively."""
        return self.decision.implementation == "native"

    @property
    def may_repeat(self) -> bool:
        """Whether it may run once more when its worker dies: as `idempotent` says, else if no code of a user's runs.

        LM requests are cached or harmless; a module, a tool, a retriever, a reward or a type of the user's might do
        something twice.
        """
        return self.is_of_requests if self.idempotent is None else self.idempotent

    @property
    def is_of_requests(self) -> bool:
        """Whether it is made of LM requests alone: a module of DSPy's, without anything that a user wrote."""
        return self.module in _OF_REQUESTS and not self.tools and not imports_types(self.signature)

    def candidate(self, lm: LM | None) -> Candidate:
        """What the router looks at."""
        if self.module not in NATIVE_MODULES:
            return Candidate(self.module, None, self.adapter, bool(self.tools), lm is None or lm.native)
        native = None if lm is None else self._native_for(lm)
        adapter = self.adapter if native is None else native.adapter
        unsupported: str | None = None
        prefix_differs = False
        if lm is not None and native is not None and adapter in ("chat", "json") and self.served.problem is None:
            unsupported = native.compiled.unsupported_with(lm)
            prefix_differs = unsupported is None and self._differs(native.compiled)
        return Candidate(
            self.module,
            unsupported,
            adapter,
            bool(self.tools),
            lm is None or lm.native,
            prefix_differs,
            self.served.problem or self._unserved_option(),
            worker_python=self._worker_python(),
        )

    def spec(self) -> dict[str, Any]:
        """What a worker builds the module from.

        Raises: UnsafeInput for a demo with DSPy's custom-type marker in a field of another type, unless allow_markers.
        """
        if not self.allow_markers:
            self._refuse_marked_demos()
        spec: dict[str, Any] = {
            "module": self.module,
            "signature": signature_to_wire(self.signature),
            "options": dict(self.options),
            "state": self.state,
        }
        if self.demos:
            spec["demos"] = [demo_to_wire(demo, f"demos[{at}]") for at, demo in enumerate(self.demos)]
        if self.tools or self.module in _AGENTS:
            spec["tools"] = specs_of(self.tools, self.tool_set)
        return spec

    def _refuse_marked_demos(self) -> None:
        """As the native side does. Which fields a user's module has inside, and of which types, is not known here."""
        sig = self.signature
        may_be_marked = {
            name for name, field in sig.input_fields.items() if any(map(is_dspy_type, classes_in(field.annotation)))
        }
        for demo in (*self.demos, *(demos_of(self.state) if ":" not in self.module else ())):
            refuse_marked_texts(demo, but=may_be_marked | sig.output_fields.keys())

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.signature.input_fields)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The output fields of the signature as it was written; what a module adds (`reasoning`) is not among them."""
        return tuple(self.signature.output_fields)

    @property
    def lm_used(self) -> LM:
        """Its own language model, or the configured one. Raises: NotConfigured."""
        return self.lm or defaults.configured_lm()

    @property
    def config_used(self) -> Mapping[str, Any]:
        """The options of its LM calls."""
        return self.config

    @cached_property
    def served(self) -> NativeState:
        """What the native side serves: the signature with what the module adds and the state says, and the demos."""
        return native_state(self.module, self.answered, self.state, self.demos)

    @property
    def answered(self) -> Signature:
        """The signature with what the module adds to the outputs."""
        return reasoned(self.signature) if self.module == "dspy.ChainOfThought" else self.signature

    def home(self) -> Supervisor:
        """The supervisor whose workers run it."""
        return self.supervisor or defaults.default_supervisor()

    def wire_adapter(self, lm: LM) -> str | dict[str, Any]:
        """The adapter as a worker is told of it."""
        name, is_native = self.adapter or default_adapter(lm), self.use_native_function_calling
        return name if is_native is None else {"name": name, "use_native_function_calling": is_native}

    def require_tools(self, lm: LM) -> None:
        """Raises InvalidInput when the model is to give tool calls natively and no input holds tools."""
        asked_signature(self.signature, lm, self._uses_native_calls(self.adapter or default_adapter(lm)))

    def __repr__(self) -> str:
        repeats = "" if self.idempotent is None else f", idempotent={self.idempotent}"
        return f"<{self.module} {', '.join(self.inputs)} -> {', '.join(self.outputs)}{repeats}>"

    # ============================================================================================================

    def _uses_native_calls(self, adapter: str) -> bool:
        given = self.use_native_function_calling
        return is_native_by_default(adapter) if given is None else given

    def _worker_python(self) -> str | None:
        """The interpreter of the workers that it has, where that is another one."""
        supervisor = self.supervisor or defaults.running_supervisor()
        if supervisor is None or GENERAL_POOL not in supervisor.pools:
            return None
        python = supervisor.pool(GENERAL_POOL).config.python
        return None if python == sys.executable else python

    def _unserved_option(self) -> str | None:
        return f"option {next(iter(self.options))!r}" if self.options else None

    def _differs(self, compiled: CompiledSignature) -> bool:
        if self.prefix_sha256 is None:
            return False
        return compiled.prefix_hash(self.served.demos) != self.prefix_sha256

    @property
    def _native(self) -> NativePredictor:
        """Its native side for the LM that it uses now."""
        known: NativePredictor | None = self.__dict__.get("_native_side")
        return known if known is not None and known.lm is self.lm else self._native_for(self.lm_used)

    def _native_for(self, lm: LM) -> NativePredictor:
        """Return its native side for an LM, made once as long as the LM is the same."""
        known: NativePredictor | None = self.__dict__.get("_native_side")
        if known is not None and known.lm is lm:
            return known
        made = NativePredictor(
            self.served.signature,
            lm,
            adapter=self.adapter,
            demos=self.served.demos,
            config=self.config_used,
            rollout_id=self.rollout_id,
            allow_markers=self.allow_markers,
            use_native_function_calling=self.use_native_function_calling,
        )
        self.__dict__["_native_side"] = made
        return made

    def _deadline(self) -> float | None:
        timeout = DEFAULT_TIMEOUT if self.timeout is None else self.timeout
        return None if timeout == math.inf else time.monotonic() + timeout


def reasoned(sig: Signature) -> Signature:
    """Give the signature with the `reasoning` that ChainOfThought puts before the outputs."""
    if "reasoning" in sig.output_fields:
        return sig
    return sig.derive("reasoned", lambda plain: plain.prepend("reasoning", OutputField(desc="${reasoning}"), str))
