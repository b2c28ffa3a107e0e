"""Report an optimizer's progress: from its callbacks, its log's headings and its metric's calls.

DSPy's optimizers report nothing but text on stdout. `Progress` counts, decides when a job must end (cancelled, out of
memory), and keeps what the job's thread has not fetched yet. Its methods run on the optimizer's threads.
"""

from __future__ import annotations

import itertools
import logging
import re
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

import dspy
from dspy.utils.callback import BaseCallback

from ...context import Context
from ..calls.call_context import CallUsage, in_call
from ..dspy_errors import is_out_of_memory
from ..metrics.metric_scores import BadMetric, Metric, comparable
from ..observing.dspys_log import WHOLE

_ABSENT: Any = object()  # what DSPy did not give
_STAGE = re.compile(r"==> STEP \d: (.+?) <==")
_TRIALS = re.compile(r"Trial (\d+) / (\d+)")
_STAGES = {"BOOTSTRAP FEWSHOT EXAMPLES": "bootstrap", "PROPOSE INSTRUCTION CANDIDATES": "propose"}


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
        self.trials: list[dict[str, Any]] = []
        self.best: float | None = None
        self._ctx = ctx
        self.call_usage = call_usage
        self._put = put
        self._stage = "start"
        self._planned: int | None = None
        self._lock = threading.Lock()

    @property
    def errors(self) -> dict[str, int]:
        return {"metric": self.metric_errors, "lm": self.call_usage.lm_errors}

    def check(self) -> None:
        """Raise if the job must end: called before every example and every evaluation.

        Raises:
            Cancelled: the caller has gone.
            JobEnded: some thread of the job ran out of memory, or the parent carries no LM request any more.
        """
        self._ctx.check_cancelled()
        if self.end is not None:
            raise JobEnded(self.end)

    @property
    def end(self) -> BaseException | None:
        """The error that ends the job, or None: an optimizer would make a score of it and report success."""
        return self.fatal or self.call_usage.refused

    def enter(self, stage: str, message: str = "") -> None:
        """Report that a stage begins."""
        self._stage = stage
        self._report(message=message, is_kept=True)

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

    def stop(self, cause: BaseException) -> NoReturn:
        """End the job: this thread now, the others at their next check."""
        self.fatal = cause
        raise JobEnded(cause)

    def scored(self, score: float, kind: str, examples: int) -> None:
        """Note that a candidate was scored on so many examples."""
        with self._lock:
            number = len(self.trials) + 1
            self.trials.append({"trial": number, "kind": kind, "score": score, "examples": examples})
            if kind == "full" and (self.best is None or score > self.best):
                self.best = score
        self._report(score=score, is_kept=True)

    def planned(self, trials: int) -> None:
        """Note how many trials the optimizer plans."""
        self._planned = trials

    def _report(self, message: str = "", score: float | None = None, *, is_kept: bool = False) -> None:
        self._put(
            {
                "stage": self._stage,
                "trial": len(self.trials),
                # DSPy does not count its evaluation of the default program among the trials that it announces.
                "trials": None if self._planned is None else max(self._planned, len(self.trials)),
                "score": score,
                "best": self.best,
                "examples": self.metric_calls,
                "errors": self.errors,
                "message": message,
                "is_kept": is_kept,
            }
        )


class ProgressCallbacks(BaseCallback):  # type: ignore[misc]
    """DSPy's callbacks: every evaluation is a trial; a MemoryError in any module ends the job."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._open: dict[str, tuple[str, int]] = {}

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self._progress.check()
        about = inputs.get("callback_metadata") or {}
        kind = "minibatch" if about.get("metric_key") == "eval_minibatch" else "full"
        self._open[call_id] = (kind, len(inputs.get("devset") or instance.devset))

    def on_evaluate_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        kind, examples = self._open.pop(call_id, ("full", 0))
        if exception is None and outputs is not None:
            self._progress.scored(float(outputs.score), kind, examples)

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self._progress.check()

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        if is_out_of_memory(exception):
            self._progress.stop(MemoryError("the worker ran out of memory while it optimized"))


class HeadingReader(logging.Handler):
    """Reads stages and the number of trials from the optimizer's log; its other lines hold prompts: dropped."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.INFO)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        line = str(getattr(record, WHOLE, record.msg))
        if stage := _STAGE.search(line):
            self._progress.enter(_STAGES.get(stage[1], "search"))
        elif trial := _TRIALS.search(line):
            self._progress.planned(int(trial[2]))


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


def dspy_settings(progress: Progress) -> dict[str, Any]:
    """Return the settings under which an optimizer reports to `progress`."""
    return {"callbacks": [*dspy.settings.get("callbacks", []), ProgressCallbacks(progress)]}
