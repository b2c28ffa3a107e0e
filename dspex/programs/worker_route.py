"""A program's calls to workers: what is sent, what is lent for the time of the call, and what the reply means.

The caller's thread or task makes them; the workers' LM traffic, tools and rewards come back to this process.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import defaults
from ..adapters.injection import suspected_fields
from ..adapters.validation import crossed_inputs, typed_outputs
from ..events import Name
from ..lm.usage import Account
from ..services.services import services_of
from ..services.tools import new_set_id, tools_among
from ..types.prediction import Prediction
from . import worker_answers
from .routing import GENERAL_POOL

if TYPE_CHECKING:
    from ..pools.call import Call
    from ..pools.supervisor import Supervisor
    from ..types.chunk import Chunk
    from .program import Program

OnCancel = Callable[[Callable[[], None]], Callable[[], None]]


@dataclass(frozen=True, slots=True)
class WorkerCalls:
    """Calls of one program to the general pool."""

    program: Program

    def run(
        self,
        inputs: Mapping[str, Any],
        *,
        session: str | None = None,
        timeout: float | None = None,
        retry: bool = True,
        cancel: OnCancel | None = None,
    ) -> tuple[Prediction, Call]:
        """Run it, and give the prediction with the call that made it; `cancel` as in `Pool.invoke`."""
        options = self._options(session, timeout, retry)
        with self._sent(inputs) as (supervisor, arguments), Account("call") as account:
            call = supervisor.pool(GENERAL_POOL).invoke("run", arguments, cancel=cancel, **options)
        return self._prediction(call.result(), call.worker_name, account), call

    async def arun(
        self,
        inputs: Mapping[str, Any],
        *,
        session: str | None = None,
        timeout: float | None = None,
        retry: bool = True,
    ) -> tuple[Prediction, Call]:
        """`run`, awaited."""
        options = self._options(session, timeout, retry)
        with self._sent(inputs) as (supervisor, arguments), Account("call") as account:
            call = await supervisor.pool(GENERAL_POOL).ainvoke("run", arguments, **options)
        return self._prediction(call.result(), call.worker_name, account), call

    def stream(self, inputs: Mapping[str, Any]) -> Iterator[Chunk | Prediction]:
        """The output fields' text as it arrives, then the prediction."""
        with self._sent(inputs) as (supervisor, arguments):
            with Account("call") as account:  # the call keeps the context that it is made in
                chunks = supervisor.stream(GENERAL_POOL, "run_stream", arguments, timeout=self.program.timeout)
            with chunks:
                for chunk in chunks:
                    yield worker_answers.chunk(chunk, chunks.worker)
                yield self._prediction(chunks.value, chunks.worker, account)

    async def astream(self, inputs: Mapping[str, Any]) -> AsyncIterator[Chunk | Prediction]:
        """`stream`, for `async for`."""
        with self._sent(inputs) as (supervisor, arguments):
            with Account("call") as account:
                chunks = supervisor.astream(GENERAL_POOL, "run_stream", arguments, timeout=self.program.timeout)
            async with chunks:
                async for chunk in chunks:
                    yield worker_answers.chunk(chunk, chunks.worker)
                yield self._prediction(chunks.value, chunks.worker, account)

    @contextlib.contextmanager
    def _sent(self, inputs: Mapping[str, Any]) -> Iterator[tuple[Supervisor, dict[str, Any]]]:
        """The program's supervisor, and the arguments of a `run`.

        What the worker may call back for is lent to it for the block. What can be refused is, before workers start.
        """
        program = self.program
        lm = program.lm_used
        program.require_tools(lm)
        typed, wire = crossed_inputs(program.signature, inputs, allow_markers=program.allow_markers)
        supervisor = program.home()
        services = services_of(supervisor)
        if lm.direct:
            services.client.usage.check(services.accounts.of(GENERAL_POOL, None))  # others are checked as they pass by
        if suspected := suspected_fields(inputs):
            services.tell(Name.INPUT_SUSPECTED, fields=",".join(suspected), route=f"python:{GENERAL_POOL}")
        given = tools_among(typed)
        arguments = {
            "spec": program.spec(),
            "inputs": wire,
            "lm": services.lm_record(lm),
            "adapter": program.wire_adapter(lm),
            "config": dict(program.config_used),
            "rollout_id": program.rollout_id,
            **({"tool_set": new_set_id()} if given else {}),
        }
        with program.lent(services), services.tools.lent(str(arguments.get("tool_set")), given):
            yield supervisor, arguments

    def _options(self, session: str | None, timeout: float | None, retry: bool) -> dict[str, Any]:
        return {
            "session": session,
            "timeout": self.program.timeout if timeout is None else timeout,
            "idempotent": retry and self.program.may_repeat,
        }

    def _prediction(self, reply: Any, worker: str, account: Account) -> Prediction:
        reply = worker_answers.prediction(reply, worker)
        known = self.program.answered
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

    def _count_direct(self, usage: Mapping[str, Mapping[str, Any]], account: Account) -> None:
        """Count what a worker's own connections used, as far as its module reports it: nothing of it passed by here."""
        lm = self.program.lm_used
        if lm.direct:
            pools = services_of(self.program.home()).accounts.of(GENERAL_POOL, None)
            for used in usage.values():
                defaults.client().usage.add(lm, used, (account, *pools))
