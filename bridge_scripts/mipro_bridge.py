"""Serve the optimizer pool: optimizing and evaluation; `dspex_worker.programs` does the work.

Runs with one call at a time, on the worker's main thread, so that a signal can interrupt it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from dspex_worker.bridge import Bridge, Context, Settings
from dspex_worker.programs import dspy_setup

if TYPE_CHECKING:
    from dspex_worker.programs.commands import Programs

bridge = Bridge("mipro", runs_optimizers=True)
programs: Programs  # bound by `setup`, before the first call


@bridge.warm
def warm(settings: Settings) -> None:
    dspy_setup.warm(settings, optimizers=True)


@bridge.setup
def setup(settings: Settings) -> None:
    global programs
    programs = dspy_setup.setup(settings)


@bridge.teardown
def teardown(settings: Settings) -> None:
    programs.modules.close()


@bridge.command(cancel_safe=True)
def describe(ctx: Context) -> dict[str, Any]:
    return programs.describe(ctx)


@bridge.command()
def optimize(ctx: Context, **call: Any) -> Generator[dict[str, Any], None, dict[str, Any]]:
    from dspex_worker.programs.optimizing.optimization import optimize

    return (yield from optimize(programs, ctx, **call))


@bridge.command()
def score(ctx: Context, **call: Any) -> dict[str, Any]:
    from dspex_worker.programs.evaluating.prediction_scores import score

    return score(programs, ctx, **call)


@bridge.command()
def evaluate(ctx: Context, **call: Any) -> Generator[dict[str, Any], None, dict[str, Any]]:
    from dspex_worker.programs.evaluating.scored_rows import evaluate

    return (yield from evaluate(programs, ctx, **call))
