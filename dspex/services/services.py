"""Host services for workers: LM requests, tools, metrics, code.

`services_of` makes them once per supervisor and registers the handlers of the workers' callbacks; the pools do not know
what these do.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from .. import defaults
from ..events import Name
from ..lm.cache_settings import set_process_cache
from ..lm.forwarding import Origin, require_request
from ..lm.lm_client import LMClient
from ..lm.record import LM
from ..lm.usage import set_process_budget
from ..pools.callbacks import Callback
from ..pools.supervising import Supervising
from ..usage_stats import UsageStats
from .accounts import Accounts
from .call_observers import CallObservers
from .code import CodeStore
from .described_lms import DescribedLMs
from .kept_answers import akept, kept, kept_answers
from .metrics import Metrics
from .running_jobs import RunningJobs
from .served_lms import is_served_ref, lm_of_ref
from .tools import ToolSets

LATER_S = 1.0  # that a request may take beyond its call, which ends first, as CallTimeout, and ends the request
_making = threading.Lock()


class Services:
    """The LM requests, tools, metrics and code of one supervisor's workers."""

    def __init__(self, supervisor: Supervising, client: LMClient) -> None:
        self.supervisor = supervisor
        self.client = client
        self.tools = ToolSets()
        self.metrics = Metrics()
        self.call_observers = CallObservers(client)
        self.code = CodeStore()
        self.jobs = RunningJobs()
        self.accounts = Accounts(supervisor.budgets)
        self.described_lms = DescribedLMs(supervisor, self.lm_record, self._known)
        self.kept: dict[str, object] = {}  # what optimizer steps have found, by content (P8)
        set_process_budget(client.usage, supervisor.config.tables)
        set_process_cache(client, supervisor.cache, supervisor.config.tables)
        client.listen(self)
        supervisor.register("lm.request", self._forward)
        supervisor.register("lm.describe", self.described_lms.describe)
        supervisor.register("tool.call", kept(self.tools.call))
        supervisor.register("metric.call", akept(self.metrics.call))
        supervisor.register("metric.spread", self.metrics.call_here)  # computed anew where it is asked again
        supervisor.register("call.seen", self.call_observers.seen)
        supervisor.register("code.get", self.code.get)
        supervisor.register("code.path", self.code.path)

    def usage(self, pool: str, session: str | None = None) -> UsageStats:
        """Return what a pool, or one session in it, has used so far."""
        return self.accounts.stats(pool, session)

    def lm_record(self, lm: LM) -> dict[str, Any]:
        """Let workers ask this LM, and return what they need of it: no key, unless the LM is `direct`."""
        self.client.register(lm)
        record = dict(_described(lm))
        if lm.fallbacks:
            record["fallbacks"] = [self.lm_record(fallback) for fallback in lm.fallbacks]
        if not lm.direct:
            return record
        return {
            **record,
            "api_key": lm.api_key,
            "headers": dict(lm.headers),
            "direct_options": dict(lm.direct_options),
        }

    def emit(self, name: Name, **facts: Any) -> bool:
        """Emit an event of the native side as this supervisor's; False when it does not run."""
        if not self.supervisor.is_running:
            return False
        self.supervisor.emit(name, **facts)
        return True

    def _known(self, ref: str) -> LM | None:
        return lm_of_ref(ref, self.supervisor) if is_served_ref(ref) else self.client.known(ref)

    async def _forward(self, request: Callback) -> AsyncIterator[Any]:
        answers = kept_answers()
        if answers is None:
            return self._forwarded(request)
        require_request(request.arguments)
        return answers.of_lm(request.arguments, functools.partial(self._forwarded, request))

    def _forwarded(self, request: Callback) -> AsyncGenerator[Any, None]:
        deadline = request.deadline + LATER_S
        return self.client.aforward(request.arguments, deadline=deadline, origin=self._origin(request))

    def _origin(self, request: Callback) -> Origin:
        """Return who pays for a worker's request, and who emits its events with the call's ids."""
        call = request.outer
        emit = functools.partial(
            self.supervisor.emit,
            pool=request.pool.name,
            worker=call.worker_name,
            session=call.session_name or None,
            call=call.id,
        )
        own = self.described_lms.of(request.worker)
        ref = str(request.arguments.get("lm"))
        if is_served_ref(ref):
            own = {**own, ref: lm_of_ref(ref, self.supervisor)}
        return Origin(self.accounts.of(request.pool.name, call.session), emit, own)


@functools.lru_cache(maxsize=256)
def _described(lm: LM) -> dict[str, Any]:
    return lm.to_wire()  # an LM never changes, and calls name the same few


def services_of(supervisor: Supervising) -> Services:
    """Return the supervisor's services; made once."""
    services = supervisor.services
    if services is None:
        with _making:
            services = supervisor.services
            if services is None:
                services = supervisor.services = Services(supervisor, defaults.client())
    assert isinstance(services, Services)
    return services


def _renew_lock() -> None:
    """Replace the lock in a forked child, where the thread that held it is gone."""
    global _making
    _making = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
