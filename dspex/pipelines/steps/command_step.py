"""`command(...)`: call a command of a pool's own bridge as a step, in the run's session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...adapters.plain_data import to_wire
from ...errors import InvalidReturn
from ..core.step import Step, checked_policy, names_of
from .runnable import RunnableOutcome, Scope
from .step_factories import fallback_step
from .worker_step import RunnableStep

if TYPE_CHECKING:
    from ...pools.supervising import MadeCall


def command(
    pool: str,
    command: str,
    /,
    *,
    reads: Sequence[str] | str = (),
    writes: Sequence[str] | str = (),
    name: str | None = None,
    into: str | None = None,
    when: Callable[..., Any] | str | None = None,
    timeout: float | None = None,
    retry: int | None = None,
    fallback: Any = None,
    keep: Sequence[str] | str = (),
    stateful: bool = False,
    **arguments: Any,
) -> Step:
    """Return a step that calls a command of a pool's bridge, in the run's session.

    The values that it `reads`, and `arguments`, are the command's arguments. It gives a dict that holds `writes`, or
    any value for `into=`. Only with `retry=` is it tried again. `stateful=True` says that it uses the session's state.
    """
    names_of((pool,), "pool")
    names_of((command,), "command")
    runnable = CommandRunnable(
        pool,
        command,
        names_of(reads, "reads"),
        outputs=names_of(writes, "writes"),
        arguments=arguments,
        is_stateful=stateful,
    )
    policy = checked_policy(when=when, timeout=timeout, retry=retry, fallback=fallback_step(fallback, into=into))
    kept = names_of(keep, "keep")
    return RunnableStep(name=name, policy=policy, into=into, keep=kept, runnable=runnable, label=command)


@dataclass(frozen=True)
class CommandRunnable:
    """Runs the command; what it returns beside `outputs` goes to the step's record."""

    pool: str
    command: str
    inputs: tuple[str, ...] = ()
    optional_inputs: frozenset[str] = frozenset()
    outputs: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    is_stateful: bool = False

    may_repeat = False  # nobody here knows what it does, so running it again is the user's word to give

    def run(self, inputs: Mapping[str, Any], scope: Scope) -> RunnableOutcome:
        pool = scope.supervisor.pool(self.pool)
        return self._outcome(
            pool.invoke(self.command, self._arguments(inputs), cancel=scope.cancel.on_set, **_options(scope))
        )

    async def arun(self, inputs: Mapping[str, Any], scope: Scope) -> RunnableOutcome:
        pool = scope.supervisor.pool(self.pool)
        return self._outcome(await pool.ainvoke(self.command, self._arguments(inputs), **_options(scope)))

    def _arguments(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {**self.arguments, **{name: to_wire(value, name) for name, value in inputs.items()}}

    def _outcome(self, call: MadeCall) -> RunnableOutcome:
        value = call.result()
        where: dict[str, Any] = {
            "route": f"python:{call.worker_name}",
            "worker": call.worker_name,
            "generation": call.generation,
        }
        if not self.outputs:
            return RunnableOutcome({"value": value}, **where)
        if not isinstance(value, dict) or not value.keys() >= set(self.outputs):
            got = f"a dict of {', '.join(map(repr, value))}" if isinstance(value, dict) else f"a {type(value).__name__}"
            raise InvalidReturn(
                f"The command {self.command!r} of pool {self.pool!r} is to give {', '.join(map(repr, self.outputs))}; "
                f"it gave {got}. A value without names needs into=."
            )
        outputs = {name: value.pop(name) for name in self.outputs}
        return RunnableOutcome(outputs, extra=value, **where)


def _options(scope: Scope) -> dict[str, Any]:
    return {"session": scope.key, "timeout": scope.timeout, "idempotent": scope.idempotent}
