"""Programs: handles on DSPy's modules that run natively or in a worker; callers need not know which.

    qa = dspex.predictor("chain_of_thought", "question -> answer")
    qa(question="...")            # blocks
    await qa.acall(question="...")

A `Program` is immutable and thread-safe. The module's state (demos, instructions) travels with each call as part of its
spec, and workers keep built modules by the spec's digest: losing a worker loses nothing.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from . import defaults
from .errors import InvalidInput, SettingsError, UnknownName
from .events import Name
from .inprocess.adapters.compiled import CompiledSignature, compile_signature
from .inprocess.adapters.safety import suspected_fields
from .inprocess.crossing import to_wire
from .inprocess.fields import OutputField
from .inprocess.lm.ledger import Account
from .inprocess.prediction import Prediction
from .inprocess.predictor import (
    Chunk,
    default_adapter,
    typed_outputs,
    wire_inputs,
)
from .inprocess.predictor import (
    apredict as native_apredict,
)
from .inprocess.predictor import (
    apredict_stream as native_apredict_stream,
)
from .inprocess.predictor import (
    predict as native_predict,
)
from .inprocess.predictor import (
    predict_stream as native_predict_stream,
)
from .inprocess.signatures import Signature, signature
from .router import GENERAL_POOL, Candidate, Decision, decide
from .services import services_of
from .states import NativeState, native_state
from .tools import Tool, named, new_set_id, specs_of

if TYPE_CHECKING:
    from .inprocess.lm.record import LM
    from .pools.calls import Call
    from .pools.supervisor import Supervisor

DEFAULT_TIMEOUT = 120.0  # seconds; the general pool's default, for the native route too

KINDS: Mapping[str, str] = {
    "predict": "dspy.Predict",
    "chain_of_thought": "dspy.ChainOfThought",
    "react": "dspy.ReAct",
    "react_v2": "dspy.ReActV2",
    "multi_chain_comparison": "dspy.MultiChainComparison",
    "best_of_n": "dspy.BestOfN",
    "refine": "dspy.Refine",
}
_CALL_OPTIONS = frozenset({"lm", "adapter", "config", "implementation", "timeout", "supervisor", "demos", "rollout_id"})


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
    prefix_sha256: str | None = None  # of a saved program: what DSPy rendered when it was saved
    allow_markers: bool = False
    tool_set: str = field(default_factory=new_set_id)

    # -- calling -----------------------------------------------------------------------------------------------

    def __call__(self, **inputs: Any) -> Prediction:
        """Run it; blocks.

        Raises:
            NotConfigured, InvalidInput, UnsafeInput, EncodeError: before anything is sent.
            LMError, AdapterParseError: the same classes on both routes.
            CallTimeout, WorkerDied and the pools' other errors: when it runs in a worker.
        """
        if self._is_native(inputs):
            return native_predict(defaults.client(), self._native.signature, inputs, **self._native_options())
        return self.run_in_worker(inputs)[0]

    async def acall(self, **inputs: Any) -> Prediction:
        """`__call__`, awaited; cancelling the task cancels the call."""
        if self._is_native(inputs):
            return await native_apredict(defaults.client(), self._native.signature, inputs, **self._native_options())
        return (await self.arun_in_worker(inputs))[0]

    def stream(self, **inputs: Any) -> Iterator[Chunk | Prediction]:
        """Give the output fields' text as it arrives (`Chunk(field, text)`), then the Prediction."""
        if self._is_native(inputs):
            yield from native_predict_stream(
                defaults.client(), self._native.signature, inputs, **self._native_options()
            )
            return
        supervisor = self._supervisor()
        arguments = self._arguments(inputs, supervisor)
        with Account("call") as account:  # the call keeps the context that it is made in
            chunks = supervisor.stream(GENERAL_POOL, "run_stream", arguments, timeout=self.timeout)
        with chunks:
            for chunk in chunks:
                yield Chunk(chunk["field"], chunk["text"])
            yield self._prediction(chunks.value, chunks.worker, account)

    async def astream(self, **inputs: Any) -> AsyncIterator[Chunk | Prediction]:
        """`stream`, for `async for`."""
        if self._is_native(inputs):
            options = self._native_options()
            # Closed with this one: a generator that is only forgotten waits for the loop's finalizer.
            async with contextlib.aclosing(
                native_apredict_stream(defaults.client(), self._native.signature, inputs, **options)
            ) as items:
                async for item in items:
                    yield item
            return
        supervisor = self._supervisor()
        arguments = self._arguments(inputs, supervisor)
        with Account("call") as account:
            chunks = supervisor.astream(GENERAL_POOL, "run_stream", arguments, timeout=self.timeout)
        async with chunks:
            async for chunk in chunks:
                yield Chunk(chunk["field"], chunk["text"])
            yield self._prediction(chunks.value, chunks.worker, account)

    def using(self, **options: Any) -> Program:
        """Give the same program with other call options (lm, adapter, config, implementation, timeout, ...)."""
        for name in options:
            if name not in _CALL_OPTIONS:
                raise UnknownName("call option", name, _CALL_OPTIONS, where="using()")
        if options.get("lm") is not None:
            options["lm"] = defaults.as_lm(options["lm"])
        if "demos" in options:
            options["demos"] = tuple(options["demos"])
        return replace(self, **options)

    # -- in a worker: for pipelines too -----------------------------------------------------------------------------

    def run_in_worker(
        self,
        inputs: Mapping[str, Any],
        *,
        session: str | None = None,
        timeout: float | None = None,
        retry: bool = True,
    ) -> tuple[Prediction, Call]:
        """Run it in the general pool, and give the prediction with the call that made it."""
        supervisor = self._supervisor()
        arguments = self._arguments(inputs, supervisor)
        with Account("call") as account:
            call = supervisor.pool(GENERAL_POOL).invoke("run", arguments, **self._pool_options(session, timeout, retry))
        return self._prediction(call.result(), call.worker_name, account), call

    async def arun_in_worker(
        self,
        inputs: Mapping[str, Any],
        *,
        session: str | None = None,
        timeout: float | None = None,
        retry: bool = True,
    ) -> tuple[Prediction, Call]:
        """`run_in_worker`, awaited."""
        supervisor = self._supervisor()
        arguments = self._arguments(inputs, supervisor)
        options = self._pool_options(session, timeout, retry)
        with Account("call") as account:
            call = await supervisor.pool(GENERAL_POOL).ainvoke("run", arguments, **options)
        return self._prediction(call.result(), call.worker_name, account), call

    # -- looking at it -------------------------------------------------------------------------------------------

    @cached_property
    def decision(self) -> Decision:
        """Where it runs, and why."""
        if self.implementation == "python":
            return decide(self._candidate(None), "python")
        lm = self.lm or defaults.configured_lm()
        return decide(self._candidate(lm), self.implementation)

    def spec(self) -> dict[str, Any]:
        """What a worker builds the module from."""
        spec: dict[str, Any] = {
            "module": self.module,
            "signature": self.signature.to_wire(),
            "options": dict(self.options),
            "state": self.state,
        }
        if self.demos:
            spec["demos"] = to_wire([dict(demo) for demo in self.demos], "demos")
        if self.tools or self.module in _AGENTS:
            spec["tools"] = specs_of(self.tools, self.tool_set)
        return spec

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.signature.input_fields)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The output fields of the signature as it was written; what a module adds (`reasoning`) is not among them."""
        return tuple(self.signature.output_fields)

    def __repr__(self) -> str:
        return f"<{self.module} {', '.join(self.inputs)} -> {', '.join(self.outputs)}>"

    # ============================================================================================================

    @cached_property
    def _native(self) -> NativeState:
        """What the native side serves: the signature with what the module adds and the state says, and the demos."""
        base = reasoned(self.signature) if self.module == "dspy.ChainOfThought" else self.signature
        return native_state(self.module, base, self.state, self.demos)

    def _candidate(self, lm: LM | None) -> Candidate:
        adapter = self.adapter or (default_adapter(lm) if lm is not None else "chat")
        if self.module not in ("dspy.Predict", "dspy.ChainOfThought"):
            return Candidate(self.module, None, adapter, bool(self.tools), lm is None or lm.native)
        unsupported: str | None = None
        prefix_differs = False
        if adapter in ("chat", "json") and self._native.problem is None:
            compiled = compile_signature(self._native.signature, adapter)
            unsupported = compiled.unsupported if lm is None else compiled.unsupported_with(lm)
            prefix_differs = unsupported is None and self._differs(compiled)
        return Candidate(
            self.module,
            unsupported,
            adapter,
            bool(self.tools),
            lm is None or lm.native,
            prefix_differs,
            self._native.problem or self._unserved_option(),
        )

    def _is_native(self, inputs: Mapping[str, Any]) -> bool:
        """Whether this call runs natively: the decision, unless what is in these inputs only DSPy formats."""
        if self.decision.implementation != "native":
            return False
        lm = self.lm or defaults.configured_lm()
        compiled = compile_signature(self._native.signature, self.adapter or default_adapter(lm))
        reason = compiled.unsupported_with(lm)
        if reason and self.implementation == "native":
            raise SettingsError(f"implementation='native' is not possible here: {reason}.", key="implementation")
        return not reason

    def _unserved_option(self) -> str | None:
        return f"option {next(iter(self.options))!r}" if self.options else None

    def _differs(self, compiled: CompiledSignature) -> bool:
        if self.prefix_sha256 is None:
            return False
        return compiled.prefix_hash(self._native.demos) != self.prefix_sha256

    def _native_options(self) -> dict[str, Any]:
        timeout = DEFAULT_TIMEOUT if self.timeout is None else self.timeout
        return {
            "lm": self.lm or defaults.configured_lm(),
            "adapter": self.adapter,
            "demos": self._native.demos,
            "config": self.config,
            "rollout_id": self.rollout_id,
            "deadline": None if timeout == math.inf else time.monotonic() + timeout,
            "allow_markers": self.allow_markers,
        }

    def _supervisor(self) -> Supervisor:
        return self.supervisor or defaults.default_supervisor()

    def _arguments(self, inputs: Mapping[str, Any], supervisor: Supervisor) -> dict[str, Any]:
        lm = self.lm or defaults.configured_lm()
        services = services_of(supervisor)
        services.tools.add(self.tool_set, self.tools)
        if lm.direct:
            services.client.ledger.check(services.accounts.of(GENERAL_POOL, None))  # others are checked as they pass by
        if suspected := suspected_fields(inputs):
            services.tell(Name.INPUT_SUSPECTED, fields=",".join(suspected), route=f"python:{GENERAL_POOL}")
        return {
            "spec": self.spec(),
            "inputs": wire_inputs(self.signature, inputs, allow_markers=self.allow_markers),
            "lm": services.lm_record(lm),
            "adapter": self.adapter or default_adapter(lm),
            "config": dict(self.config),
            "rollout_id": self.rollout_id,
        }

    def _count_direct(self, usage: Mapping[str, Mapping[str, Any]], account: Account) -> None:
        """Count what a worker's own connections used, as far as its module reports it: nothing of it passed by here."""
        lm = self.lm or defaults.configured_lm()
        if lm.direct:
            pools = services_of(self._supervisor()).accounts.of(GENERAL_POOL, None)
            for used in usage.values():
                defaults.client().ledger.add(lm, used, (account, *pools))

    def _pool_options(self, session: str | None, timeout: float | None, retry: bool) -> dict[str, Any]:
        # Running again repeats LM calls, which are cached or harmless; a tool might do something twice.
        return {
            "session": session,
            "timeout": self.timeout if timeout is None else timeout,
            "idempotent": retry and not self.tools,
        }

    def _prediction(self, reply: dict[str, Any], worker: str, account: Account) -> Prediction:
        known = reasoned(self.signature) if self.module == "dspy.ChainOfThought" else self.signature
        completions = [typed_outputs(known, each) for each in reply.get("completions") or ()]
        usage = reply.get("usage") or {}
        self._count_direct(usage, account)
        return Prediction(
            typed_outputs(known, reply["outputs"]),
            completions=completions,
            usage=usage,
            cached=bool(reply.get("cached", not usage)),
            cost_usd=account.cost,
            route=f"python:{worker}",
        )


_AGENTS = frozenset({"dspy.ReAct", "dspy.ReActV2"})


# --- public functions ---------------------------------------------------------------------------------------------


def predictor(kind: str, sig: Any, **options: Any) -> Program:
    """Give a program: "predict", "chain_of_thought", "react" (tools=), "best_of_n", "refine", ... over a signature.

    `lm`, `adapter`, `config`, `implementation`, `timeout`, `supervisor` and `demos` say how it is called; other options
    are the module's own (as `n` and `reward_fn` of best_of_n).

    Raises:
        UnknownName: a kind or module that does not exist.
        SignatureError: a signature that cannot be read.
    """
    module = KINDS.get(kind, kind)
    if module not in KINDS.values() and ":" not in module:
        raise UnknownName("predictor", kind, [*KINDS, *KINDS.values()])
    known = sig if isinstance(sig, Signature) else signature(sig)
    how = {name: options.pop(name) for name in _CALL_OPTIONS & options.keys()}
    tools = named(options.pop("tools", ()))
    allow_markers = bool(options.pop("allow_markers", False))
    program = Program(module, known, _plain_options(module, options), tools, allow_markers=allow_markers)
    return program.using(**how) if how else program


def chain_of_thought(sig: Any, **options: Any) -> Program:
    """Give a program that reasons before it answers (`dspy.ChainOfThought`)."""
    return predictor("chain_of_thought", sig, **options)


def react(sig: Any, tools: Sequence[Callable[..., Any]], **options: Any) -> Program:
    """Give an agent (`dspy.ReAct`) whose tools are Python functions that run in this process."""
    return predictor("react", sig, tools=tools, **options)


def predict(
    sig: Any,
    inputs: Mapping[str, Any],
    *,
    lm: Any = None,
    adapter: str | None = None,
    demos: Sequence[Mapping[str, Any]] = (),
    config: Mapping[str, Any] | None = None,
    implementation: str = "auto",
    timeout: float | None = None,
    **options: Any,
) -> Prediction:
    """Ask a language model for a signature's outputs; see `Program.__call__` for what it raises."""
    return _one_shot(sig, lm, adapter, demos, config, implementation, timeout, options)(**inputs)


async def apredict(
    sig: Any,
    inputs: Mapping[str, Any],
    *,
    lm: Any = None,
    adapter: str | None = None,
    demos: Sequence[Mapping[str, Any]] = (),
    config: Mapping[str, Any] | None = None,
    implementation: str = "auto",
    timeout: float | None = None,
    **options: Any,
) -> Prediction:
    """`predict`, awaited."""
    program = _one_shot(sig, lm, adapter, demos, config, implementation, timeout, options)
    return await program.acall(**inputs)


def predict_stream(sig: Any, inputs: Mapping[str, Any], **options: Any) -> Iterator[Chunk | Prediction]:
    """`predict`, giving the fields' text as it arrives, then the prediction."""
    return predictor("predict", sig, **options).stream(**inputs)


def apredict_stream(sig: Any, inputs: Mapping[str, Any], **options: Any) -> AsyncIterator[Chunk | Prediction]:
    """`predict_stream`, for `async for`."""
    return predictor("predict", sig, **options).astream(**inputs)


def explain(kind: str, sig: Any = None, **options: Any) -> Decision:
    """Say where a program of this kind would run, and why; nothing is called.

    Raises:
        NotConfigured: it depends on the LM, and none is configured.
    """
    from .router import OPTIMIZER_POOL, Reason

    if kind in ("optimize", "optimizer"):
        return Decision("python", OPTIMIZER_POOL, Reason.OPTIMIZER)
    if sig is None:
        raise InvalidInput("explain needs the signature too, such as explain('predict', 'question -> answer').")
    return predictor(kind, sig, **options).decision


def reasoned(sig: Signature) -> Signature:
    """Give the signature with the `reasoning` that ChainOfThought puts before the outputs."""
    if "reasoning" in sig.output_fields:
        return sig
    return sig.derive("reasoned", lambda plain: plain.prepend("reasoning", OutputField(desc="${reasoning}"), str))


def _one_shot(
    sig: Any,
    lm: Any,
    adapter: str | None,
    demos: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any] | None,
    implementation: str,
    timeout: float | None,
    options: Mapping[str, Any],
) -> Program:
    known = sig if isinstance(sig, Signature) else signature(sig)
    unknown = options.keys() - {"supervisor", "rollout_id", "allow_markers"}
    if unknown:
        raise UnknownName("option", min(unknown), [*_CALL_OPTIONS, "allow_markers"], where="predict()")
    return Program(
        "dspy.Predict",
        known,
        demos=tuple(demos),
        lm=None if lm is None else defaults.as_lm(lm),
        adapter=adapter,
        config=config or {},
        implementation=implementation,
        timeout=timeout,
        **options,
    )


def _plain_options(module: str, options: dict[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        if callable(value):
            raise SettingsError(
                f"The option {name!r} of {module} is a function; give a metric by name or import path, such as "
                f"{{'name': 'exact_match'}} or {{'import': 'module:function'}}.",
                key=name,
            )
    return options
