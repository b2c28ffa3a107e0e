"""Run a program in a worker: send its spec and inputs, register what the worker may call back for, read the reply.

The caller's thread or task makes the call; the worker's LM requests, tools and rewards come back to this process.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from .. import defaults
from ..adapters.injection import suspected_fields
from ..events import Name
from ..lm.usage import Account, counters_in
from ..services.services import services_of
from ..services.tools import new_set_id, tools_among
from ..types.prediction import Prediction
from . import worker_answers
from .routing import GENERAL_POOL

if TYPE_CHECKING:
    from ..pools.call import Call
    from ..pools.supervisor import Supervisor
    from ..types.chunk import Chunk
    from .spec import ProgramSpec

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

    def run(self, inputs: Mapping[str, Any], **how: Unpack[WorkerCallOptions]) -> tuple[Any, Call]:
        """Run it; return the prediction (of an open program: what it returned) with the call that made it."""
        with self._sent(inputs) as (supervisor, arguments), Account("call") as account:
            pool = supervisor.pool(GENERAL_POOL)
            call = pool.invoke("run", arguments, cancel=how.get("cancel"), **self._options(how))
        return self._prediction(call.result(), call.worker_name, account), call

    async def arun(self, inputs: Mapping[str, Any], **how: Unpack[WorkerCallOptions]) -> tuple[Any, Call]:
        """`run`, awaited."""
        with self._sent(inputs, awaits=how.get("awaits", True)) as (supervisor, arguments), Account("call") as account:
            call = await supervisor.pool(GENERAL_POOL).ainvoke("run", arguments, **self._options(how))
        return self._prediction(call.result(), call.worker_name, account), call

    def stream(self, inputs: Mapping[str, Any]) -> Iterator[Chunk | Prediction]:
        """Yield the output fields' text as it arrives, then the prediction."""
        with self._sent(inputs) as (supervisor, arguments):
            with Account("call") as account:  # the call keeps the context that it is made in
                chunks = supervisor.stream(GENERAL_POOL, "run_stream", arguments, timeout=self.spec.timeout)
            with chunks:
                for chunk in chunks:
                    yield worker_answers.chunk(chunk, chunks.worker)
                yield self._prediction(chunks.value, chunks.worker, account)

    async def astream(self, inputs: Mapping[str, Any]) -> AsyncIterator[Chunk | Prediction]:
        """`stream`, for `async for`."""
        with self._sent(inputs, awaits=True) as (supervisor, arguments):
            with Account("call") as account:
                chunks = supervisor.astream(GENERAL_POOL, "run_stream", arguments, timeout=self.spec.timeout)
            async with chunks:
                async for chunk in chunks:
                    yield worker_answers.chunk(chunk, chunks.worker)
                yield self._prediction(chunks.value, chunks.worker, account)

    @contextlib.contextmanager
    def _sent(self, inputs: Mapping[str, Any], *, awaits: bool = False) -> Generator[tuple[Supervisor, dict[str, Any]]]:
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
        arguments = {
            "spec": spec.to_wire() | spec.wire_lms(services),
            "inputs": crossed.plain,
            "lm": None if lm is None else services.lm_record(lm),
            "adapter": spec.wire_adapter(lm),
            "config": dict(spec.config_used),
            "rollout_id": spec.rollout_id,
            **({"carried": carried} if carried else {}),
            **({"tool_set": new_set_id()} if given else {}),
            **({"awaits": True} if awaits and spec.is_own else {}),
        }
        with spec.registered(services), services.tools.registered(str(arguments.get("tool_set")), given):
            yield supervisor, arguments

    def _options(self, how: WorkerCallOptions) -> dict[str, Any]:
        timeout = how.get("timeout")
        return {
            "session": how.get("session"),
            "timeout": self.spec.timeout if timeout is None else timeout,
            "idempotent": how.get("retry", True) and self.spec.may_repeat,
        }

    def _prediction(self, reply: Any, worker: str, account: Account) -> Any:
        reply = worker_answers.prediction(reply, worker)
        usage = reply.get("usage") or {}
        self._count_direct(usage, account)
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
        )

    def _count_direct(self, usage: Mapping[str, Mapping[str, Any]], account: Account) -> None:
        """Count what a worker's own connections used, as far as its module reports it: this process saw none of it."""
        lm = self.spec.lm_of_workers
        if lm is not None and lm.direct:
            pools = services_of(self.spec.supervisor_used).accounts.of(GENERAL_POOL, None)
            for used in usage.values():
                defaults.client().usage.add(lm, counters_in(used), (account, *pools))
