"""The interface between a pipeline's run and its DSPy steps, and their calls to the general pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ...cancel_flag import CancelFlag
from ...pools.session import session_key
from ...signatures.annotations import allows_none
from ...signatures.signature import Signature
from ..core.results import Optimization

if TYPE_CHECKING:
    from ...lm.record import LM
    from ...pools.supervising import MadeCall, Supervising


@dataclass(frozen=True)
class Scope:
    """What a run passes to its steps. `session` is the caller's own id; `timeout` is in seconds, inf for none."""

    supervisor: Supervising
    lm: LM | None = None
    session: str | None = None
    timeout: float | None = None
    idempotent: bool = False
    on_progress: Callable[[dict[str, Any]], object] | None = None
    cancel: CancelFlag = field(default_factory=CancelFlag)

    @property
    def key(self) -> str | None:
        return None if self.session is None else session_key(self.session)


@dataclass(frozen=True)
class RunnableOutcome:
    """The outcome of a step: its declared outputs, additions of its module (`extra`), and how it ran."""

    outputs: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)
    route: str = ""
    worker: str = ""
    generation: int | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    cached: bool = False
    optimized: Optimization | None = None


class Runnable(Protocol):
    """A DSPy step. `outputs` are the fields of its signature as the user wrote it.

    `may_repeat` says whether it may run once more, unasked, when its worker dies: False wherever code of a user's runs.
    """

    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def optional_inputs(self) -> frozenset[str]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def may_repeat(self) -> bool: ...
    @property
    def pool(self) -> str: ...
    @property
    def is_stateful(self) -> bool: ...
    def run(self, inputs: Mapping[str, Any], scope: Scope) -> RunnableOutcome: ...
    async def arun(self, inputs: Mapping[str, Any], scope: Scope) -> RunnableOutcome: ...


def invoke(supervisor: Supervising, pool: str, command: str, arguments: dict[str, Any], scope: Scope) -> MadeCall:
    """Call and wait, unless the run's step is cancelled meanwhile."""
    return supervisor.pool(pool).invoke(command, arguments, cancel=scope.cancel.on_set, **options_of(scope))


def options_of(scope: Scope) -> dict[str, Any]:
    return {"session": scope.key, "timeout": scope.timeout, "idempotent": scope.idempotent}


def outcome_of(prediction: Any, outputs: Sequence[str], call: MadeCall | None) -> RunnableOutcome:
    values = dict(prediction.items())
    declared = {name: values.pop(name) for name in outputs if name in values}
    worker = call.worker_name if call is not None else ""
    generation = call.generation if call is not None else None
    return RunnableOutcome(declared, values, prediction.route, worker, generation, prediction.usage, prediction.cached)


def optional_inputs_of(sig: Signature) -> frozenset[str]:
    return frozenset(
        name for name, made in sig.input_fields.items() if made.has_default or allows_none(made.annotation)
    )
