"""What the layers above the pools keep for one supervisor: its workers' way to LMs, tools and metrics of the host.

`services_of` makes it once per supervisor and registers the handlers of the workers' reverse calls; the pools stay
ignorant of what these do.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from dspex_worker.user_calls import Convention, Mismatch, metric_convention

from .. import defaults
from ..errors import InvalidInput, SettingsError, UnknownName
from ..events import Name
from ..lm.forwarding import Origin
from ..lm.lm_client import LMClient
from ..lm.record import LM
from ..lm.usage import set_process_budget
from ..pools.callbacks import Callback
from ..pools.supervisor import Supervisor
from ..types.example import Example
from ..types.prediction import Prediction
from ..usage_stats import UsageStats
from .accounts import Accounts
from .registry import Registry
from .tools import ToolSets

_making = threading.Lock()


class Services:
    """One supervisor's LM traffic, tools and metrics."""

    def __init__(self, supervisor: Supervisor, client: LMClient) -> None:
        self.supervisor = supervisor
        self.client = client
        self.tools = ToolSets()
        self.metrics = Metrics()
        self.accounts = Accounts(supervisor.budgets)
        self.kept: dict[str, Any] = {}  # what optimising steps have found, by content (P8)
        set_process_budget(client.usage, supervisor.config.tables)
        client.listen(self)
        supervisor.register("lm.request", self._forward)
        supervisor.register("tool.call", self.tools.call)
        supervisor.register("metric.call", self.metrics.call)

    def usage(self, pool: str, session: str | None = None) -> UsageStats:
        """What a pool, or one session in it, has used so far."""
        return self.accounts.stats(pool, session)

    def lm_record(self, lm: LM) -> dict[str, Any]:
        """Make the LM known to the workers' traffic and give what a worker is told of it: never a key, but for
        `direct=True`."""
        self.client.register(lm)
        record = lm.to_wire()
        record["fallbacks"] = [self.lm_record(fallback) for fallback in lm.fallbacks]
        return {**record, "api_key": lm.api_key} if lm.direct else record

    def tell(self, name: Name, **facts: Any) -> bool:
        """Emit an event of the native side as this supervisor's; False when it does not run."""
        if not self.supervisor.is_running:
            return False
        self.supervisor.emit(name, **facts)
        return True

    async def _forward(self, request: Callback) -> AsyncIterator[Any]:
        async with contextlib.aclosing(
            self.client.aforward(request.arguments, deadline=request.deadline, origin=self._origin(request))
        ) as body:
            async for part in body:
                yield part

    def _origin(self, request: Callback) -> Origin:
        """Who pays for a worker's request, and whose ids its events bear."""
        call = request.outer
        emit = functools.partial(
            self.supervisor.emit,
            pool=request.pool.name,
            worker=call.worker_name,
            session=call.session_name or None,
            call=call.id,
        )
        return Origin(self.accounts.of(request.pool.name, call.session), emit)


class Metrics:
    """Metrics and rewards of the host, by the id that a job carries."""

    def __init__(self) -> None:
        self._metrics: Registry[tuple[Callable[..., Any], Convention]] = Registry()

    @contextlib.contextmanager
    def lent(self, metric: Callable[..., Any], id: str | None = None) -> Iterator[str]:
        """Let workers call `metric` for the time of the block, under the id that it gives.

        Raises:
            SettingsError: it cannot be called as DSPy calls a metric.
        """
        known = id or secrets.token_hex(8)
        with self._metrics.lent(known, (metric, checked_convention(metric))):
            yield known

    def call(self, request: Callback) -> Any:
        """Answer a "metric.call": a number, or a bool, as the metric gives it."""
        request.require(id=str, example=dict, prediction=dict)
        arguments = request.arguments
        found = self._metrics.get(str(arguments["id"]))
        if found is None:
            raise UnknownName("metric", str(arguments["id"]), ())
        metric, convention = found
        placed, named = convention.arguments(_given(arguments))
        return _plain_score(metric(*placed, **named))


def services_of(supervisor: Supervisor) -> Services:
    """Give the supervisor's services; made once."""
    services = supervisor.services
    if services is None:
        with _making:
            services = supervisor.services
            if services is None:
                services = supervisor.services = Services(supervisor, defaults.client())
    assert isinstance(services, Services)
    return services


def _renew_lock() -> None:
    """In a forked child: a thread that is not here may have held it."""
    global _making
    _making = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def checked_convention(metric: Callable[..., Any]) -> Convention:
    """How a metric of the host's is to be called. Raises: SettingsError, when it cannot be."""
    try:
        return metric_convention(metric)
    except Mismatch as error:
        raise SettingsError(str(error), key="metric") from error


def _given(arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    """What DSPy gave to the metric over there, as far as it can cross."""
    example = Example(arguments["example"], arguments.get("inputs"))
    trace, pred_trace = _trace(arguments.get("trace")), _trace(arguments.get("pred_trace"))
    every = (example, Prediction(arguments["prediction"]), trace, arguments.get("pred_name"), pred_trace)
    count = arguments.get("given")
    return every[: max(2, count)] if isinstance(count, int) else every


def _trace(steps: Any) -> list[tuple[str, dict[str, Any], Prediction]] | None:
    """The steps as DSPy's tuples: the predictor (here the name of its class), its inputs, and what it gave."""
    return None if steps is None else [(name, inputs, Prediction(outputs)) for name, inputs, outputs in steps]


def _plain_score(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return value
    score = getattr(value, "score", None)
    if isinstance(score, bool | int | float):
        return {"score": score, "feedback": str(getattr(value, "feedback", ""))}
    if isinstance(value, dict) and "score" in value:
        return {"score": float(value["score"]), "feedback": str(value.get("feedback", ""))}
    item = getattr(value, "item", None)  # numpy's scalars
    if callable(item):
        return item()
    raise InvalidInput(f"A metric gives a number or a bool, not {type(value).__name__}.")
