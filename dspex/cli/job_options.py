"""The options of the commands that begin optimizations and look at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from .option_types import AMOUNT, COUNT, NAMES, POSITIVE
from .program_choice import ProgramChoice, program_words
from .shared_options import gathered, target_options
from .target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizeChoice(ProgramChoice):
    """What `dspex optimize` is asked; its `job_timeout` is the whole job's, in seconds."""

    data: str | None
    val: str | None
    metric: str | None
    optimizer: str | None
    auto: str | None
    option: tuple[str, ...]
    prompt_lm: str | None
    inputs: tuple[str, ...]
    limit: int | None
    max_requests: int | None
    max_tokens: int | None
    max_usd: float | None
    job_timeout: float | None
    output: str | None
    report: str | None
    journal: str | None
    resume: bool
    quiet: bool
    as_json: bool


def optimize_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give the function its `options`, an `OptimizeChoice`."""
    function = gathered(OptimizeChoice, "options")(function)
    for option in (
        click.option("--quiet", is_flag=True, help="Show no progress."),
        click.option("--resume", is_flag=True, help="Go on with the journal, if there is one; what it holds need not "
                     "be given again."),
        click.option("--journal", metavar="FILE", help="Where the job keeps what it has paid for (default: in the "
                     "settings' [jobs] folder, if there is one)."),
        click.option("--report", metavar="FILE", type=click.Path(), help="Where a page about the job is written, "
                     ".html."),
        click.option("--output", "-o", metavar="FILE", type=click.Path(), help="Where the best program is saved, .json "
                     "(default: it is printed)."),
        click.option("--max-usd", type=AMOUNT, metavar="USD", help="For requests whose price is known. A job that "
                     "reaches a limit keeps its best so far."),
        click.option("--max-tokens", type=COUNT, metavar="N", help="Of all requests together."),
        click.option("--max-requests", type=COUNT, metavar="N", help="To language models."),
        click.option("--limit", type=POSITIVE, metavar="N", help="Only the first N rows of each file."),
        click.option("--inputs", type=NAMES, default=(), metavar="A,B", help="The fields that go in (default: the "
                     "program's inputs)."),
        click.option("--prompt-lm", metavar="MODEL", help="The language model that writes instructions."),
        click.option("--option", multiple=True, metavar="NAME=VALUE", help="Another option of the optimizer; JSON, or "
                     "else text; may be given several times."),
        click.option("--auto", type=click.Choice(["light", "medium", "heavy", "none"]), help="How much miprov2 or "
                     "gepa tries."),
        click.option("--optimizer", metavar="NAME", help="Miprov2 (the default), gepa, copro, ..."),
        click.option("--metric", metavar="METRIC", help="Exact_match, f1, ..., or module:function."),
        click.option("--val", metavar="FILE", type=click.Path(), help="The rows to score candidates on (default: the "
                     "optimizer's own choice)."),
        click.argument("data", metavar="[FILE]", required=False, help="The rows to learn from: .jsonl, .json or .csv; "
                       "'-' is JSON lines from standard input."),
    ):  # fmt: skip
        function = option(function)
    return target_options(program_words(function, of="Of the whole job (default: none).", is_required=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsChoice:
    """Where jobs are looked for: at a service, and in a folder of journals."""

    folder: str | None
    config: str | None
    target: Target


def jobs_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give the function its `options`, a `JobsChoice`."""
    function = gathered(JobsChoice, "options")(function)
    for option in (
        click.option("--config", metavar="FILE", type=click.Path(), help="Settings (default: $DSPEX_CONFIG, else the "
                     "service's)."),
        click.option("--folder", metavar="DIR", type=click.Path(), help="Of the journals (default: the settings' "
                     "[jobs] folder)."),
    ):  # fmt: skip
        function = option(function)
    return target_options(function)
