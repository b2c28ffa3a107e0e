"""The context of one run: its session, supervisor, LM, deadline and watchers. Any thread of the run uses it."""

from __future__ import annotations

import contextlib
import math
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from ... import defaults
from ...errors import DspexError, InvalidInput, UnknownName
from ...lm.usage import Account
from ...pools.session import session_key
from ...scoped_defaults import scoped
from ...types.chunk import Chunk
from .results import Result, StepRecord, Steps
from .run_events import EventKind, PipelineEvent

if TYPE_CHECKING:
    from ...defaults import LMLike
    from ...lm.record import LM
    from ...pools.supervising import Supervising


class RunOptions(TypedDict, total=False):
    """How a pipeline is run.

    `session` names a session of the caller's, which stays open; without, the run has one of its own. `timeout` is in
    seconds, for the whole run. `lm` is for the steps that name none. A budget bounds what all steps together use of
    language models, on both routes: the step that would go on after it is spent fails with BudgetExceeded.
    """

    session: str | None
    timeout: float | None
    supervisor: Supervising | None
    lm: LMLike | None
    budget_usd: float | None
    budget_tokens: int | None


class PipelineRun:
    """The context of one run: its session, supervisor, LM, deadline and watchers."""

    def __init__(
        self,
        name: str,
        *,
        session: str | None = None,
        timeout: float | None = None,
        supervisor: Supervising | None = None,
        lm: LM | None = None,
        budget_usd: float | None = None,
        budget_tokens: int | None = None,
    ) -> None:
        self.account = Account(f"the run of {name!r}", budget_usd=budget_usd, budget_tokens=budget_tokens)
        self.session = session if session is not None else secrets.token_hex(8)
        self.timeout = timeout
        self.lm = lm
        self.began = time.monotonic()
        self.deadline = math.inf if timeout is None else self.began + timeout
        self._is_session_ours = session is None
        self._supervisor = supervisor
        self._watcher: Callable[[PipelineEvent], None] | None = None
        self._touched: set[str] = set()
        self._lock = threading.Lock()

    def watch(self, watcher: Callable[[PipelineEvent], None]) -> None:
        """Call `watcher` with every event, from whichever thread it happens in; before the run starts."""
        self._watcher = watcher

    # -- for steps ---------------------------------------------------------------------------------------------

    def supervisor(self) -> Supervising:
        """Return the run's supervisor; the process's default one if none was named."""
        if self._supervisor is None:
            self._supervisor = defaults.default_supervisor()
        return self._supervisor

    @property
    def has_supervisor(self) -> bool:
        return self._supervisor is not None

    def lm_identity(self) -> str:
        """Return the identity of the run's language model, and of an open `dspex.context`; empty if it has none."""
        block = scoped().identity
        with contextlib.suppress(DspexError):
            return (self.lm or defaults.configured_lm(self._supervisor)).ref + block
        return block

    def touch(self, pool: str) -> None:
        """Note that a call of this run's session goes to the pool."""
        with self._lock:
            self._touched.add(pool)

    @property
    def is_watched(self) -> bool:
        return self._watcher is not None

    def progressed(self, step: str, report: Mapping[str, Any]) -> None:
        """Emit a step's progress; any thread."""
        self.emit(EventKind.STEP_PROGRESSED, step, facts=dict(report))

    def chunked(self, step: str, chunk: Chunk) -> None:
        """Emit a piece of a field's text; any thread."""
        self.emit(
            EventKind.STEP_CHUNK, step, facts={"field": chunk.field, "text": chunk.text, "predictor": chunk.predictor}
        )

    def emit(self, kind: EventKind, step: str = "", **facts: Any) -> None:
        if self._watcher is not None:
            self._watcher(PipelineEvent(kind, self.session, step, **facts))

    # -- its end -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the run's session in every pool that it went to; the caller's own stays open (P5)."""
        if not self._is_session_ours or self._supervisor is None:
            return
        with self._lock:
            touched = tuple(self._touched)
        for pool in touched:
            with contextlib.suppress(DspexError):  # the supervisor was stopped: there is no session any more
                self._supervisor.pool(pool).close_session(session_key(self.session))

    def result(self, state: Mapping[str, Any], records: Sequence[StepRecord]) -> Result:
        seconds = time.monotonic() - self.began
        return Result(state, Steps(records), seconds=seconds, session=self.session, cost_usd=self.account.cost)


def checked_options(options: RunOptions) -> dict[str, Any]:
    """Return the options as `PipelineRun` takes them.

    Raises:
        InvalidInput: a value that cannot be.
        UnknownName: an option that does not exist.
    """
    for name in options.keys() - RunOptions.__annotations__.keys():
        raise UnknownName("option", name, RunOptions.__annotations__, where="a run")
    timeout, session, lm = options.get("timeout"), options.get("session"), options.get("lm")
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if timeout is not None and not (is_number and timeout > 0):
        raise InvalidInput(f"timeout is {timeout!r}; it is a span in seconds, more than 0.", field="timeout")
    if session is not None and (not isinstance(session, str) or not session):
        raise InvalidInput("session is a name of the caller's: a str that is not empty.", field="session")
    return {**options, "lm": None if lm is None else defaults.as_lm(lm, options.get("supervisor"))}
