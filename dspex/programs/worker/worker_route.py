"""Run a program in a worker: send its spec and inputs, register what the worker may call back for, read the reply.

The caller's thread or task makes the call; the worker's LM requests, tools and rewards come back to this process.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from ... import defaults
from ...adapters.injection import suspected_fields
from ...cancel_flag import current_flag
from ...errors import DspexError
from ...events import Name
from ...lm.usage import Account, counters_in
from ...services.services import services_of
from ...services.tools import new_set_id, tools_among
from ...types.logprobs import logprobs_told
from ...types.prediction import Prediction
from ...types.trace_step import TraceStep
from ..options.routing import GENERAL_POOL
from . import worker_answers

if TYPE_CHECKING:
    from ...pools.supervising import MadeCall, Supervising
    from ...types.chunk import Chunk
    from .program_spec import ProgramSpec

OnCancel = Callable[[Callable[[], None]], Callable[[], None]]


class WorkerCallOptions(TypedDict, total=False):
    """How one call is made in a worker: in which session (by its key), and within what time.

    `retry=False` forbids a second run after a worker's death; `cancel` is as in `Pool.invoke`, for blocking calls only.
    `awaits=False` has an awaited call run an own module's `forward` nevertheless.
    """

    session: str | None
    timeout: float | None
    retry: bool
    cancel: OnCancel | None
    awaits: bool


@dataclass(frozen=True, slots=True)
class WorkerCalls:
    """Calls of one program to the general pool."""

    spec: ProgramSpec

    def run(self, inputs: Mapping[str, Any], **how: Unpack[WorkerCallOptions]) -> tuple[Any, MadeCall]:
        """Run it; return the prediction (of an open program: what it returned) with the call that made it."""
        with self._sent(inputs) as (supervisor, arguments), Account("call") as account:
            pool = supervisor.pool(GENERAL_POOL)
            call = pool.invoke("run", arguments, cancel=how.get("cancel") or _on_cancel(), **self._options(how))
            reply = call.result()
        return self._prediction(reply, call.worker_name, account), call

    async def arun(self, inputs: Mapping[str, Any], **how: Unpack[WorkerCallOptions]) -> tuple[Any, MadeCall]:
        """`run`, awaited."""
        with self._sent(inputs, awaits=how.get("awaits", True)) as (supervisor, arguments), Account("call") as account:
            call = await supervisor.pool(GENERAL_POOL).ainvoke("run", arguments, **self._options(how))
            reply = call.result()
        return self._prediction(reply, call.worker_name, account), call

    def render(self, inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the messages of its first request; nothing is sent."""
        with self._sent(inputs) as (supervisor, arguments):
            call = supervisor.pool(GENERAL_POOL).invoke("render", _rendered(arguments), timeout=self.spec.timeout)
        return worker_answers.messages(call)

    async def arender(self, inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """`render`, awaited."""
        with self._sent(inputs) as (supervisor, arguments):
            pool = supervisor.pool(GENERAL_POOL)
            call = await pool.ainvoke("render", _rendered(arguments), timeout=self.spec.timeout)
        return worker_answers.messages(call)

    def stream(self, inputs: Mapping[str, Any]) -> Iterator[Chunk | Prediction]:
        """Yield the output fields' text as it arrives, then the prediction."""
        with self._sent(inputs) as (supervisor, arguments):
            with Account("call") as account:  # the call keeps the context that it is made in
                chunks = supervisor.pool(GENERAL_POOL).stream("run_stream", arguments, **self._stream_options)
            with chunks:
                for chunk in chunks:
                    yield worker_answers.chunk(chunk, chunks.worker)
                yield self._prediction(chunks.value, chunks.worker, account)

    async def astream(self, inputs: Mapping[str, Any]) -> AsyncIterator[Chunk | Prediction]:
        """`stream`, for `async for`."""
        with self._sent(inputs, awaits=True) as (supervisor, arguments):
            with Account("call") as account:
                chunks = supervisor.pool(GENERAL_POOL).astream("run_stream", arguments, **self._stream_options)
            async with chunks:
                async for chunk in chunks:
                    yield worker_answers.chunk(chunk, chunks.worker)
                yield self._prediction(chunks.value, chunks.worker, account)

    @contextlib.contextmanager
    def _sent(
        self, inputs: Mapping[str, Any], *, awaits: bool = False
    ) -> Generator[tuple[Supervising, dict[str, Any]]]:
        """Yield the program's supervisor and the arguments of a `run`; tools are registered for the block.

        What can be refused is refused here, before workers start.
        """
        spec = self.spec
        lm = spec.lm_of_workers
        spec.require_tools(lm)
        crossed = spec.crossed(inputs)
        supervisor = spec.supervisor_used
        services = services_of(supervisor)
        if lm is not None and lm.direct:
            services.client.usage.check(services.accounts.of(GENERAL_POOL, None))  # others are checked as they pass by
        if suspected := suspected_fields(inputs):
            services.emit(Name.INPUT_SUSPECTED, fields=",".join(suspected), route=f"python:{GENERAL_POOL}")
        given, carried = tools_among(crossed.typed), spec.sent.carried(crossed.carried)
        arguments: dict[str, Any] = {
            "spec": spec.to_wire() | spec.wire_lms(services),
            "inputs": crossed.plain,
            "lm": None if lm is None else services.lm_record(lm),
            "adapter": spec.wire_adapter(lm),
            "config": dict(spec.config_used),
            "rollout_id": spec.rollout_id,
            "want": {},  # why the answers ended, which every prediction says
            **({"carried": carried} if carried else {}),
            **({"tool_set": new_set_id()} if given else {}),
            **({"awaits": True} if awaits and spec.is_own else {}),
        }
        with contextlib.ExitStack() as registered:
            if (observer := spec.observer) is not None:
                id = new_set_id()
                arguments["want"] = observer.wanted(id)
                registered.enter_context(services.call_observers.registered(id, observer))
            registered.enter_context(spec.registered(services))
            registered.enter_context(services.tools.registered(str(arguments.get("tool_set")), given))
            yield supervisor, arguments

    def _options(self, how: WorkerCallOptions) -> dict[str, Any]:
        timeout = how.get("timeout")
        return {
            "session": how.get("session"),
            "timeout": self.spec.timeout if timeout is None else timeout,
            "idempotent": how.get("retry", True) and self.spec.may_repeat,
            "is_trusted": self.spec.is_trusted,
        }

    @property
    def _stream_options(self) -> dict[str, Any]:
        return {"timeout": self.spec.timeout, "is_trusted": self.spec.is_trusted}

    def _prediction(self, reply: Any, worker: str, account: Account) -> Any:
        reply = worker_answers.prediction(reply, worker)
        usage = reply.get("usage") or {}
        self._count_direct(usage, account, int(reply.get("truncated") or 0), worker)
        if "value" in reply:
            return worker_answers.returned(reply, worker, self.spec.packages)
        typed, (objects, *others) = self.spec.typed, reply["exact"]
        completions = list(map(typed, reply.get("completions") or (), others))
        return Prediction(
            typed(reply["outputs"], objects),
            completions=completions,
            usage=usage,
            cached=bool(reply.get("cached", not usage)),
            cost_usd=account.cost,
            route=f"python:{worker}",
            finish_reason=reply.get("finish_reason") or "",
            trace=[self._step(step) for step in reply.get("trace") or ()],
            logprobs=logprobs_told(reply.get("logprobs") or ()),
        )

    def _step(self, told: Mapping[str, Any]) -> TraceStep:
        """Return a step of the trace; the outputs of the program's own signature have its types."""
        outputs, known, began = told["outputs"], self.spec.answered, told.get("began")
        if outputs and outputs.keys() == known.output_fields.keys():
            with contextlib.suppress(DspexError):
                outputs = self.spec.typed(outputs)
        return TraceStep(
            told["predictor"],
            told["inputs"],
            outputs,
            seconds=told["seconds"],
            usage=told["usage"],
            finish_reason=told["finish_reason"],
            cached=told.get("cached") is True,
            error=str(told.get("error") or ""),
            is_cut=told.get("is_cut") is True,
            began=began if isinstance(began, float) and isfinite(began) and began > 0 else 0.0,
        )

    def _count_direct(
        self, usage: Mapping[str, Mapping[str, Any]], account: Account, truncated: int, worker: str
    ) -> None:
        """Count what a worker's own connections used, as far as its module reports it: this process saw none of it."""
        direct = self.spec.direct_lms if usage else {}
        if not direct:
            return
        pools = services_of(self.spec.supervisor_used).accounts.of(GENERAL_POOL, None)
        for model, used in usage.items():
            if (lm := direct.get(model)) is not None:
                defaults.client().usage.add(lm, counters_in(used), (account, *pools))
        if truncated:
            facts = {"model": ", ".join(direct), "count": truncated, "pool": GENERAL_POOL, "worker": worker}
            services_of(self.spec.supervisor_used).emit(Name.LM_TRUNCATED, **facts)


def _on_cancel() -> OnCancel | None:
    """Return what cancels a blocking call that is one of many, such as a row of `dspex.map`."""
    flag = current_flag()
    return None if flag is None else flag.on_set


def _rendered(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a `render`, of those of a `run`."""
    return {name: value for name, value in arguments.items() if name not in ("rollout_id", "want")}
