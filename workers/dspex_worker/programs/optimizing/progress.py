"""Report an optimizer's progress: stages, candidates, messages, and the calls of its metric.

DSPy's optimizers report nothing but text on stdout. `Progress` counts, decides when a job must end (cancelled, out of
memory), and keeps what the job's thread has not fetched yet. Its methods run on the optimizer's threads.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

from ...context import Context
from ..calls.call_context import CallUsage, in_call
from ..metrics.metric_scores import BadMetric, Metric, comparable

_ABSENT: Any = object()  # what DSPy did not give
OWN_KINDS = ("baseline", "result")  # evaluations that the job makes, not the optimizer


class JobEnded(BaseException):
    """The job cannot go on; not an Exception, because optimizers take those for a score of zero."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Progress:
    """Counts and events of one job."""

    def __init__(
        self,
        ctx: Context,
        call_usage: CallUsage,
        put: Callable[[dict[str, Any]], None],
        secrets: tuple[str, ...] = (),
        title: str = "",
    ) -> None:
        self.secrets = secrets  # which no error of the job may hold
        self.title = title  # of the metric
        self.metric_calls = 0
        self.metric_errors = 0
        self.first_error: Exception | None = None
        self.last_error: Exception | None = None
        self.fatal: BaseException | None = None
        self.trials: list[dict[str, Any]] = []  # the optimizer's evaluations
        self.best: float | None = None  # of those on every example
        self.call_usage = call_usage
        self._ctx = ctx
        self._put = put
        self._stage = "start"
        self._told = ""
        self._number = 0  # of the next candidate
        self._planned: int | None = None
        self._metric_calls_planned: int | None = None
        self._step: tuple[int, int] | None = None
        self._attempts = {"done": 0, "taken": 0}
        self._lock = threading.Lock()

    @property
    def errors(self) -> dict[str, int]:
        return {"metric": self.metric_errors, "lm": self.call_usage.lm_errors}

    @property
    def end(self) -> BaseException | None:
        """The error that ends the job, or None: an optimizer would make a score of it and report success."""
        return self.fatal or self.call_usage.refused

    def check(self) -> None:
        """Raise if the job must end: called before every example and every evaluation.

        Raises:
            Cancelled: the caller has gone.
            JobEnded: some thread of the job ran out of memory, or the parent carries no LM request any more.
        """
        self._ctx.check_cancelled()
        if self.end is not None:
            raise JobEnded(self.end)

    def stop(self, cause: BaseException) -> NoReturn:
        """End the job: this thread now, the others at their next check."""
        self.fatal = cause
        raise JobEnded(cause)

    def enter(self, stage: str, message: str = "") -> None:
        """Report that a stage begins."""
        self._stage = stage
        self._report(message=message, is_kept=True)

    def enter_once(self, stage: str, message: str) -> None:
        """Report that a stage, or a part of it, begins, unless that was the last to begin."""
        if self._told != f"{stage}: {message}":
            self._told = f"{stage}: {message}"
            self.enter(stage, message)

    def planned(self, trials: int | None) -> None:
        """Note how many candidates the optimizer plans to evaluate."""
        self._planned = trials

    def planned_metric_calls(self, calls: int) -> None:
        """Note how many calls of the metric the optimizer has to spend."""
        self._metric_calls_planned = calls

    def step(self, number: int, count: int) -> None:
        """Note that an optimizer is at this of its steps, which are alike."""
        self._step = (number, count)
        self.enter("search", f"step {number} of {count}")

    def counted(self, metric: Metric) -> Metric:
        """Return the metric, counting its calls and errors; it has the five parameters that GEPA looks for.

        It gets as many of them as DSPy gave: that is how a metric with parameters of its own keeps them. What it gives
        is what DSPy's optimizers can use, whichever of them runs: see `comparable`.
        """

        def counting(
            example: Any, prediction: Any, trace: Any = _ABSENT, pred_name: Any = _ABSENT, pred_trace: Any = _ABSENT
        ) -> Any:
            self.check()
            about = itertools.takewhile(lambda each: each is not _ABSENT, (trace, pred_name, pred_trace))
            try:
                value = comparable(in_call(self._ctx, metric, example, prediction, *about), self.title)
            except (MemoryError, BadMetric) as error:
                self.stop(error)
            except Exception as error:  # the metric is the user's code
                with self._lock:
                    self.metric_errors += 1
                    self.first_error = self.first_error or error
                    self.last_error = error
                raise
            with self._lock:
                self.metric_calls += 1
            self._report()
            return value

        return counting

    def attempted(self, *, is_taken: bool) -> None:
        """Note that an example was run for a demonstration, and whether it gave one."""
        with self._lock:
            self._attempts["done"] += 1
            self._attempts["taken"] += is_taken
        self._report()

    def evaluated(self, candidate: dict[str, Any]) -> None:
        """Report a candidate: its kind, score, examples and state; see `CandidateReports`."""
        kind, score = candidate["kind"], candidate["score"]
        with self._lock:
            candidate["number"] = self._number
            self._number += 1
            if kind not in OWN_KINDS:
                trial = {"trial": len(self.trials) + 1, "kind": kind, "score": score}
                self.trials.append({**trial, "examples": candidate["examples"]})
            if kind != "minibatch" and (self.best is None or score > self.best):
                self.best = score
        self._report(score=score, is_kept=True, candidate=candidate)

    def say(self, text: str, *, is_warning: bool = False) -> None:
        """Report a message of DSPy's, without the secrets of the job's LMs."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        self._report(message=text, is_kept=True, is_warning=is_warning)

    def beat(self) -> dict[str, Any]:
        """Return a report for a time when nothing happens: how many LM requests wait, and the longest for how long."""
        waiting, longest_s = self.call_usage.waiting()
        return {**self._told_now(), "waiting": waiting, "longest_s": round(longest_s, 1)}

    def _report(self, message: str = "", score: float | None = None, *, is_kept: bool = False, **more: Any) -> None:
        self._put({**self._told_now(), "score": score, "message": message, "is_kept": is_kept, **more})

    def _told_now(self) -> dict[str, Any]:
        told = {
            "stage": self._stage,
            "trial": len(self.trials),
            "trials": None if self._planned is None else max(self._planned, len(self.trials)),
            "score": None,
            "best": self.best,
            "examples": self.metric_calls,
            "errors": self.errors,
            "message": "",
            "fraction": self._fraction(),
        }
        return told | ({"attempts": dict(self._attempts)} if self._attempts["done"] else {})

    def _fraction(self) -> float | None:
        """Return how much of the optimizer's work is done, None where nothing says how much there is."""
        if self._metric_calls_planned:
            scored: int = sum(trial["examples"] for trial in self.trials)
            return min(1.0, scored / self._metric_calls_planned)
        if self._step is not None:
            return (self._step[0] - 1) / self._step[1]
        return min(1.0, len(self.trials) / self._planned) if self._planned else None


class ProgressQueue:
    """Events for the job's thread to yield: trials and stages in order, of plain ticks only the newest."""

    def __init__(self) -> None:
        self._queue: deque[dict[str, Any]] = deque()
        self._ready = threading.Condition()

    def put(self, event: dict[str, Any]) -> None:
        """Add an event; it replaces a plain tick."""
        with self._ready:
            if self._queue and not self._queue[-1]["is_kept"]:
                self._queue.pop()
            self._queue.append(event)
            self._ready.notify()

    def take(self, timeout: float) -> dict[str, Any] | None:
        """Return the next event, or None if none came in `timeout` seconds."""
        with self._ready:
            if not self._queue:
                self._ready.wait(timeout)
            event = self._queue.popleft() if self._queue else None
        if event is None:
            return None
        return {name: value for name, value in event.items() if name != "is_kept"}
