"""Serve the general pool: DSPy programs, retrievers and evaluation; `dspex_worker.programs` does the work.

Runs in workers with up to `concurrency` calls at a time. DSPy is imported by `warm`, in the fork server, not here.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from dspex_worker.bridge import Bridge, Context, Settings
from dspex_worker.programs import dspy_setup

if TYPE_CHECKING:
    from dspex_worker.programs.commands import Programs

bridge = Bridge("dspy")
programs: Programs  # bound by `setup`, before the first call


@bridge.warm
def warm(settings: Settings) -> None:
    dspy_setup.warm(settings)


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
def run(ctx: Context, **call: Any) -> dict[str, Any]:
    return programs.run(ctx, **call)


@bridge.command()
def run_stream(ctx: Context, **call: Any) -> Generator[dict[str, Any], None, dict[str, Any]]:
    from dspex_worker.programs.streaming.field_streams import run_stream

    return (yield from run_stream(programs, ctx, **call))


@bridge.command()
def render(ctx: Context, **call: Any) -> dict[str, Any]:
    return programs.render(ctx, **call)


@bridge.command()
def retrieve(ctx: Context, **call: Any) -> dict[str, Any]:
    from dspex_worker.programs.retrievers import retrieve

    return retrieve(programs.imports_of(ctx), ctx, **call)


@bridge.command()
def evaluate(ctx: Context, **call: Any) -> Generator[dict[str, Any], None, dict[str, Any]]:
    from dspex_worker.programs.evaluating.scored_rows import evaluate

    return (yield from evaluate(programs, ctx, **call))


@bridge.command()
def score(ctx: Context, **call: Any) -> dict[str, Any]:
    from dspex_worker.programs.evaluating.prediction_scores import score

    return score(programs, ctx, **call)


@bridge.command()
def describe_program(ctx: Context, **call: Any) -> dict[str, Any]:
    return programs.describe_program(ctx, **call)


@bridge.command()
def state_of(ctx: Context, **call: Any) -> dict[str, Any]:
    return programs.state_of(ctx, **call)


@bridge.command()
def signature_of(ctx: Context, **call: Any) -> dict[str, Any]:
    return programs.signature_of(ctx, call["import"])
