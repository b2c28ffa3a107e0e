"""The words that say which program a command runs, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from .option_types import SPAN
from .shared_options import gathered, target_options
from .target import Target

PROGRAM = "Package.module:Class, file.py:Class, 'question -> answer', or a saved program's file (.json)."


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramChoice:
    """A program, and where and how it runs."""

    program: str | None
    init: tuple[str, ...] = ()
    signature: str | None = None
    kind: str | None = None
    lm: str | None = None
    adapter: str | None = None
    timeout: float | None = None
    private: bool = False
    config: str | None = None
    target: Target = Target()


def program_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give the function its `choice`, a `ProgramChoice`."""
    return target_options(program_words(gathered(ProgramChoice, "choice")(function)))


def program_words(
    function: Callable[..., Any], *, of: str = "Of each call (default: the pool's).", is_required: bool = True
) -> Callable[..., Any]:
    """Declare the options of a `ProgramChoice`; `of` says what the timeout is of."""
    name = "timeout" if is_required else "job_timeout"
    for option in (
        click.option("--config", metavar="FILE", type=click.Path(), help="Settings of its own workers (default: "
                     "$DSPEX_CONFIG)."),
        click.option("--private", is_flag=True, help="By workers of its own, also where $DSPEX_SOCKET is set."),
        click.option("--timeout", name, type=SPAN, metavar="S", help=of),
        click.option("--adapter", metavar="NAME", help="Chat, json, xml, ..."),
        click.option("--lm", metavar="MODEL", help="The language model; of a service, one of its names."),
        click.option("--kind", metavar="KIND", help="Of a signature: predict (the default), chain_of_thought, ..."),
        click.option("--signature", metavar="TEXT", help="What a module takes and gives: 'question -> answer'."),
        click.option("--init", multiple=True, metavar="NAME=VALUE", help="An argument of its constructor; JSON, or "
                     "else text; may be given several times."),
        click.argument("program", metavar="PROGRAM" if is_required else "[PROGRAM]", required=is_required,
                       help=PROGRAM),
    ):  # fmt: skip
        function = option(function)
    return function
