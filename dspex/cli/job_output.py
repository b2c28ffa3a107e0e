"""Print what came of an optimization, and save it: the summary for people or JSON, the program as its file has it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import DspexError
from .outputs import plain_of
from .printed_units import span
from .printing import print_error, print_json, print_line

if TYPE_CHECKING:
    from ..programs.optimization.job import OptimizationJob
    from ..programs.saving.optimized import Optimized


def print_outcome(
    job: OptimizationJob[Any],
    best: Optimized[Any] | None,
    output: str | None,
    *,
    as_json: bool,
    error: Exception | None = None,
    resume: str | None = None,
    report: str | None = None,
) -> None:
    """Save the best to `output`, else print it; say how it did, and what command goes on with a job that was ended."""
    saved = _saved(best, output)
    if best is not None and report is not None:
        _write_report(best, report)
    if as_json:
        print_json(_facts(job, best, output if saved else None, error, resume))
    elif best is not None and output is None:
        print_line(json.dumps(best.document(), indent=2, default=repr))
    say = print_error if output is None or as_json or error is not None or job.state != "done" else print_line
    if error is not None:
        print_error(f"{type(error).__name__}: {error}")
    if not as_json:
        say(_summary(job, best, output if saved else None))
    if resume is not None:
        print_error(f"to go on: {resume}")


def _saved(best: Optimized[Any] | None, output: str | None) -> bool:
    if best is None or output is None:
        return False
    try:
        best.save(output)
    except (OSError, DspexError) as error:  # what was paid for is not lost: it is printed
        print_error(f"it cannot be saved to {output}, so it is printed: {error}")
        print_line(json.dumps(best.document(), default=repr))
        return False
    return True


def _write_report(best: Optimized[Any], path: str) -> None:
    try:
        best.report(path)
    except OSError as error:
        print_error(f"the report cannot be written to {path}: {error}")
    else:
        print_error(f"report: {path}")


def _summary(job: OptimizationJob[Any], best: Optimized[Any] | None, saved: str | None) -> str:
    how = "" if job.state == "done" else f"{job.state}, best so far: "
    told = "nothing was scored" if best is None else _scores(best)
    where = f"; saved to {saved}" if saved else ""
    progress = job.progress
    cost = "" if progress.cost is None else f", {progress.cost:.4f} USD"
    spent = f"{progress.requests:,} requests, {progress.tokens:,} tokens{cost}, {span(progress.elapsed)}"
    return f"{how}{told}{where} ({spent})"


def _scores(best: Optimized[Any]) -> str:
    score = "not scored" if best.score is None else f"score {best.score:g}"
    if best.baseline_score is None:
        return score
    verdict = ", no better" if best.score is not None and best.score <= best.baseline_score else ""
    return f"{score} (baseline {best.baseline_score:g}{verdict})"


def _facts(
    job: OptimizationJob[Any],
    best: Optimized[Any] | None,
    saved: str | None,
    error: Exception | None,
    resume: str | None,
) -> dict[str, Any]:
    progress = job.progress
    trials = [] if best is None else best.trials
    return {
        "id": job.id,
        "state": job.state,
        "error": None if error is None else f"{type(error).__name__}: {error}",
        "score": None if best is None else best.score,
        "baseline_score": None if best is None else best.baseline_score,
        "trials": [{name: plain_of(one) for name, one in trial.items() if name != "demos"} for trial in trials],
        "requests": progress.requests,
        "tokens": progress.tokens,
        "cost_usd": progress.cost,
        "seconds": round(progress.elapsed, 3),
        "journal": None if job.journal is None else str(job.journal),
        "resume": resume,
        "output": saved,
        **({} if best is None or saved else {"program": best.document()}),
    }
