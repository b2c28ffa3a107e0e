"""`JobRun`: carry out one optimization in a thread: send it, follow it, resume it when its worker dies, and end it.

The thread has a copy of the caller's contextvars, with the job's account and its kept answers open: the requests that
workers make for the job find both there.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Generic

from ...errors import MetricTimeout, OptimizationStopped, WorkerDied, WorkerMemoryExceeded
from ...events import Name
from ...pools.streams import Stream
from ...services.kept_answers import KeptAnswers, recording
from ...services.services import services_of
from ...types.prediction import S_co
from ..options.routing import OPTIMIZER_POOL
from ..reports.job_facts import JobFacts
from ..saving.optimized import Optimized
from .cancel_request import CancelRequests
from .checked_optimization import CheckedOptimization
from .held_out_test import HeldOutTest
from .host_stops import ended_with_host
from .job_budget import JobAccount
from .job_clock import JobClock
from .job_events import LAST_KINDS, JobEvent, JobEventKind, JobEventLog
from .job_progress import JobProgress, ProgressTracker
from .journal import Journal
from .tried_candidates import TriedCandidates

RESUMES_MOST = 3  # workers that may die of one job before it fails
Listener = Callable[[JobEvent, JobProgress], object]


class JobRun(Generic[S_co]):
    """One optimization under way. `start` once; `cancel` at any time, from any thread."""

    def __init__(
        self,
        id: str,
        checked: CheckedOptimization[S_co],
        journal: Journal,
        account: JobAccount,
        *,
        timeout: float | None,
        uses_kept_metrics: bool = True,
    ) -> None:
        self.id = id
        self.checked = checked
        self.journal = journal
        self.account = account
        self.events = JobEventLog()
        self.listeners: list[Listener] = []  # called in the job's thread
        self.outcome: Future[Optimized[S_co]] = Future()
        self.state: JobEventKind = "queued"
        self.worker = ""
        self._services = services_of(checked.student.supervisor_used)
        self._uses_kept_metrics = uses_kept_metrics
        self._lock = threading.Lock()
        self._clock = JobClock(timeout)
        self._tracker = ProgressTracker(self._clock.began)
        self._stage = ""
        self._stream: Stream | None = None
        self._held_out = HeldOutTest()
        self._tested_result: Optimized[S_co] | None = None  # while it is tested
        self._is_cancelled = False
        self._tried = TriedCandidates(journal.candidates, account)
        self._requests = None if journal.path is None else CancelRequests(journal.path, self.cancel)
        journal.on_trouble = self.warn

    # -- any thread ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, in a thread with the caller's contextvars."""
        context = contextvars.copy_context()
        self.outcome.set_running_or_notify_cancel()  # from now on it is not cancelled by who waits for it
        if self.journal.torn:
            self.warn(f"The journal's last line was torn ({self.journal.torn} bytes); it was dropped.")
        known = len(self._tried.all)
        self._say("queued", {"message": f"{known} candidates are known" if known else ""})
        self._emit(Name.JOB_STARTED, known=known)
        if self._requests is not None:
            self._requests.start()
        threading.Thread(target=context.run, args=(self._run,), name="dspex-optimization", daemon=True).start()

    def warn(self, text: str) -> None:
        """Say what the job's caller should know."""
        self._say("warning", {"message": text})

    def cancel(self) -> bool:
        """End the job: its waits end now, and its worker is free; False if it has ended already."""
        with self._lock:
            if self.outcome.done() or self._is_cancelled:
                return not self.outcome.done()
            self._is_cancelled = True
            stream = self._stream
        self._enter("cancelling")
        if stream is not None:
            stream.close()
        self._held_out.cancel()
        return True

    @property
    def has_worker(self) -> bool:
        """Whether a worker has it, which may not have reported yet."""
        return self._stream is not None and bool(self._stream.worker)

    @property
    def progress(self) -> JobProgress:
        """How far it is."""
        return self._tracker.at(self._clock.now, self.account.spent, is_over=self._clock.is_over)

    @property
    def partial(self) -> Optimized[S_co] | None:
        """The best program so far."""
        if self._tested_result is not None:
            return self._tested_result
        return self.checked.partial(self._tried.all, self.worker, self._facts(self.state))

    def _facts(self, state: str) -> JobFacts:
        return self.checked.facts(self.id, state, self.account.spent, self.progress.elapsed)

    # -- the job's thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            value = self._found()
            result = self.checked.optimized(value, self.worker, self._tried.now, self._facts("done"))
            if result.is_worse:
                self.warn(result.verdict)
            if self.checked.testset is not None:
                result = self._tested(result)
        except BaseException as error:  # it belongs to whoever waits for the job
            self._fail(error)
        else:
            scores = {"score": result.score, "baseline_score": result.baseline_score}
            self._end("done", {**scores, "found_score": result.found_score, "kept_baseline": result.kept_baseline})
            self.outcome.set_result(result)

    def _tested(self, result: Optimized[S_co]) -> Optimized[S_co]:
        """Return the result with its comparison on the held-out examples; if that fails, the result is `partial`."""
        self._tested_result = result
        self._say("stage", {"stage": "test", "message": f"{len(self.checked.testset or ())} held-out examples"})
        test = self._held_out.compare(self.checked, result, self.account, self._clock.left(self.checked.pool.name))
        return replace(result, test=test, job=self._facts("done"))

    def _found(self) -> Any:
        """Return a worker's answer; one that dies is followed by another."""
        deaths = 0
        while True:
            try:
                return self._followed(attempt=1 + self.journal.deaths)
            except (WorkerDied, WorkerMemoryExceeded) as error:
                if self._is_cancelled:
                    raise self._stopped() from error
                deaths += 1
                if deaths > RESUMES_MOST or getattr(error, "cause", "") == "stopped":
                    raise
                self._replace(error)

    def _followed(self, attempt: int) -> Any:
        answers = KeptAnswers(self, metrics=self._uses_kept_metrics)
        checked = self.checked
        with recording(answers), self.account, checked.sent() as sent:
            stream = checked.pool.stream(
                "optimize",
                {**sent, "attempt": attempt},
                timeout=self._clock.left(self.checked.pool.name),
                session=checked.session,
                is_trusted=checked.student.is_trusted,
            )
            with self._lock:
                self._stream = stream
                is_cancelled = self._is_cancelled
            if is_cancelled:
                stream.close()
            with stream:
                for report in stream:
                    self.worker = stream.worker
                    self._take(report)
            if self._is_cancelled:
                raise self._stopped()
            self.worker = stream.worker
            return stream.value

    def _take(self, report: dict[str, Any]) -> None:
        """Take a worker's report: to events, the journal and those who look on."""
        if self.state == "queued":
            self._enter("running", {"worker": self.worker})
        if (hung := report.get("hung")) is not None:  # raised here it ends the call, and with it the worker
            raise MetricTimeout(str(hung["metric"]), example=str(hung["example"]), limit=float(hung["limit"]))
        if (warning := self.account.unbounded()) is not None:
            self.warn(warning)
        told, is_message = report.pop("candidate", None), report.pop("is_warning", None)
        self._tracker.take(report, self._clock.now)
        if told is not None:
            self._take_candidate(told, report)
        elif is_message is not None:
            self._say("warning" if is_message else "message", {"message": str(report.get("message", ""))})
        elif report.get("stage") != self._stage or report.get("message"):
            self._stage = str(report.get("stage"))
            self._say("stage", report)
        else:
            self._say("heartbeat" if "waiting" in report else "progress", report)

    def _take_candidate(self, told: dict[str, Any], report: Mapping[str, Any]) -> None:
        tried = self._tried.take(told)
        candidate = tried.candidate
        if candidate.kind == "baseline":
            self._tracker.scored_baseline(candidate.score)
        if tried.is_known:
            return
        if tried.is_other:
            self._diverge(tried.place)
        self.journal.append_candidate(candidate.told(with_state=tried.has_new_state))
        self._say("candidate", {**report, "candidate": candidate.told(with_state=True)})

    def _diverge(self, place: int) -> None:
        """Say that an earlier worker had found something else."""
        text = (
            f"From candidate {place} on the optimizer comes to others than before: its metric or its program does not "
            f"answer the same twice. What it finds now counts."
        )
        self.journal.append("diverged", {"number": place})
        self._say("warning", {"message": text})

    def _replace(self, error: BaseException) -> None:
        """Let another worker go on where this one died."""
        known = self._tried.begin_anew()
        self.journal.deaths += 1
        self.journal.append("worker", {"worker": self.worker, "error": type(error).__name__})
        self._tracker.replaced(1 + self.journal.deaths)
        self._emit(Name.JOB_RESUMED, worker=self.worker, reason=type(error).__name__, deaths=self.journal.deaths)
        self._say("worker_died", {"worker": self.worker, "message": str(error)})
        self._say("resumed", {"message": f"{known} candidates are known", "worker": ""})

    # -- the answers that are kept: see `AnswerStore` ------------------------------------------------------------

    def answer(self, key: str) -> Mapping[str, Any] | None:
        return self.journal.answer(key)

    def keep(self, key: str, kind: str, answer: Mapping[str, Any]) -> None:
        self.journal.spent = self.account.spent
        self.journal.keep(key, kind, answer)

    # -- the end -------------------------------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
        if self._is_cancelled and not isinstance(error, OptimizationStopped):
            stopped = self._stopped()
            stopped.__cause__ = error
            error = stopped
        try:
            partial = self.partial
        except Exception:  # of a state that cannot be: the error that ended the job says more
            partial = None
        error.partial = partial  # type: ignore[attr-defined]
        state: JobEventKind = "stopped" if isinstance(error, OptimizationStopped) else "failed"
        with_host = {"is_host_stopped": True} if state == "failed" and ended_with_host(error) else {}
        self._end(state, {"error": type(error).__name__, "message": str(error), **with_host})
        self.outcome.set_exception(error)

    def _end(self, state: JobEventKind, facts: Mapping[str, Any]) -> None:
        self._clock.end()
        if self._requests is not None:
            self._requests.stop()
        self.journal.append("end", {"state": state, **facts, "spent": self.account.spent})
        self.journal.close()
        spent = {name: self.account.spent[name] for name in ("requests", "tokens")}
        self._emit(Name.JOB_ENDED, reason=state, worker=self.worker, error=facts.get("error", ""), **spent)
        self._enter(state, facts)

    def _stopped(self) -> OptimizationStopped:
        return OptimizationStopped(
            f"The optimization by {self.checked.optimizer} was cancelled; `partial` holds the best that it had found."
        )

    def _emit(self, name: Name, **facts: Any) -> None:
        """Emit an event of the supervisor's, if it runs."""
        known = {"job": self.id, "optimizer": self.checked.optimizer, "pool": OPTIMIZER_POOL}
        self._services.emit(name, **known, **facts)

    def _enter(self, state: JobEventKind, facts: Mapping[str, Any] | None = None) -> None:
        with self._lock:
            if self.state in LAST_KINDS:
                return
            self.state = state
        self._say(state, facts or {})

    def _say(self, kind: JobEventKind, facts: Mapping[str, Any]) -> None:
        event = self.events.add(kind, facts)
        for listener in tuple(self.listeners):
            listener(event, self.progress)
