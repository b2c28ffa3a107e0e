"""`CheckedOptimization`: an optimization that was checked and may be sent, and what is made of its answer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic

from dspex_worker.user_calls import name_of

from ...services.metric_job import MetricJob
from ...services.services import services_of
from ...types.prediction import S_co
from ..calling.program import Program
from ..factories.given_program import is_open
from ..factories.loading import rendered_prefix_hash
from ..files.saved_file import checked_state
from ..native.exchange_steps import default_adapter
from ..options.routing import OPTIMIZER_POOL
from ..reports.job_facts import JobFacts
from ..saving.optimized import Optimized
from ..worker import worker_answers
from .scored_candidate import ScoredCandidate, best_candidate, trials_of
from .spread_metric import SpreadMetric

if TYPE_CHECKING:
    from ...lm.record import LM
    from ...pools.supervising import PoolOfPrograms
    from .sent_optimizer_options import SentOptimizerOptions


@dataclass(frozen=True)
class CheckedOptimization(Generic[S_co]):
    """One optimization: the program, the optimizer, the metric and what it gets, and the rest of its arguments."""

    student: Program[S_co]
    optimizer: str
    metric: Any
    metric_job: MetricJob
    arguments: Mapping[str, Any]
    prompt_lm: LM | None = None
    session: str | None = None
    spread: SpreadMetric | None = None
    keeps_baseline: bool = True
    testset: Sequence[Any] | None = None  # held-out examples
    options: SentOptimizerOptions | None = None

    @property
    def pool(self) -> PoolOfPrograms:
        """The pool that it runs in."""
        return self.student.supervisor_used.pool(OPTIMIZER_POOL)

    @property
    def title(self) -> str:
        """The program's name for people, with what it takes and gives where that is declared."""
        student = self.student
        if is_open(student):
            return student.name_shown
        fields = (student.signature.input_fields, student.signature.output_fields)
        return f"{student.name_shown} ({' -> '.join(', '.join(names) for names in fields)})"

    @contextlib.contextmanager
    def sent(self) -> Generator[dict[str, Any]]:
        """Yield what a worker gets; what it may call back for is registered for the time of the block.

        Raises:
            SettingsError: the metric cannot be called as DSPy calls one.
        """
        student = self.student
        services = services_of(student.supervisor_used)
        with contextlib.ExitStack() as stack:
            described = stack.enter_context(services.metrics.described(self.metric, self.metric_job))
            if self.spread is not None:
                asked = stack.enter_context(services.metrics.described(self.spread, self.metric_job))
                described |= {**asked, "title": self.spread.__name__, "at_once": self.spread.at_once}
            if self.metric_job.limit_s != math.inf:  # of what runs in the worker
                described["limit_s"] = self.metric_job.limit_s
            for program in (student, *(() if self.options is None else self.options.programs)):
                stack.enter_context(program.registered(services))
            spec = student.to_wire() | student.wire_lms(services)
            yield {**self.arguments, "spec": spec, "metric": described}

    def optimized(
        self, value: Any, worker: str, candidates: Sequence[ScoredCandidate], facts: JobFacts
    ) -> Optimized[S_co]:
        """Return the program of a worker's answer, or the baseline; blocks, while a worker renders its prompt.

        The baseline is returned where it scored more on the same examples, unless that is not wanted.

        Raises:
            ProtocolError, InvalidInput: the answer is none.
        """
        found = worker_answers.optimized(value, worker)
        score, before = found.get("score"), found.get("baseline_score")
        is_kept = self.keeps_baseline and score is not None and before is not None and score < before
        baseline = self._baseline(candidates)
        made = self._with(found["state"])
        best = baseline if is_kept else made
        best = replace(best, prefix_sha256=rendered_prefix_hash(best))
        return Optimized(
            best,
            before if is_kept else score,
            before,
            trials_of(candidates) or found.get("trials", []),
            self.optimizer,
            found.get("versions", {}),
            found.get("errors", {}),
            worker,
            found_score=score,
            kept_baseline=is_kept,
            trial=0 if is_kept else len(candidates) - 1 if candidates else None,
            baseline=baseline,
            found=made if is_kept else None,
            job=facts,
            details=found.get("details") or {},
        )

    def partial(self, candidates: Sequence[ScoredCandidate], worker: str, facts: JobFacts) -> Optimized[S_co] | None:
        """Return the best of the candidates, None if there is none; nothing is asked of a worker.

        Raises:
            InvalidInput: its state is none.
        """
        best = best_candidate(candidates)
        if best is None or best.state is None:
            return None
        baseline = next((candidate.score for candidate in candidates if candidate.kind == "baseline"), None)
        program, trials = self._with(best.state), trials_of(candidates)
        return Optimized(
            program,
            best.score,
            baseline,
            trials,
            self.optimizer,
            worker=worker,
            trial=candidates.index(best),
            baseline=self._baseline(candidates),
            job=facts,
        )

    def facts(self, id: str, state: str, spent: Mapping[str, Any], seconds: float) -> JobFacts:
        """Return what a report says of the job."""
        priced = spent["requests"] - spent["unpriced_requests"]
        return JobFacts(
            id,
            state,
            self.metric_title,
            self.arguments["options"],
            spent["requests"],
            spent["cached_requests"],
            spent["tokens"],
            spent["cost_usd"] if priced else None,
            round(seconds, 3),
            self.arguments["inputs"],
            self.metric_job.examples,
        )

    @property
    def metric_title(self) -> str:
        """The metric's name."""
        metric = self.metric
        if isinstance(metric, Mapping):
            return str(metric.get("name") or metric.get("import") or "")
        return name_of(metric) if callable(metric) else str(metric)

    def _baseline(self, candidates: Sequence[ScoredCandidate]) -> Program[S_co]:
        """Return the program as it was given, with the state that was scored."""
        scored = next((one for one in candidates if one.kind == "baseline" and one.state is not None), None)
        return self.student if scored is None else self._with(scored.state)

    def _with(self, state: Any) -> Program[S_co]:
        student = self.student
        adapter: Any = student.adapter_used or (None if student.is_own else default_adapter(student.lm_used))
        return student.with_state(checked_state(state), adapter=adapter)
