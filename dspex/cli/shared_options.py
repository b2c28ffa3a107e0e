"""The options that every command has, and the declaration of a command.

    @command("resize")
    @target_options
    @click.argument("pool", shell_complete=pool_names)
    def resize(target: Target, pool: str, as_json: bool) -> None: ...

The function returns its exit code, or nothing for 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

from .command_group import CommandGroup
from .command_list import LISTED
from .option_types import SPAN
from .shell_command import CommonOption, ShellCommand
from .target import Target

Made = TypeVar("Made")
Function = Callable[..., Any]


def command(
    name: str, *, more: str = "", of: CommandGroup | None = None, summary: str = ""
) -> Callable[[Function], ShellCommand]:
    """Declare the command of this name, as it is listed; `more` is said in its help only.

    A command `of` a group has its summary here.
    """
    does = summary or LISTED[name].summary
    help = f"{said(does)}\n\n{more}" if more else said(does)

    def made(function: Function) -> ShellCommand:
        declared: ShellCommand = click.command(name, cls=ShellCommand, help=help, short_help=does)(function)
        if of is not None:
            of.add_command(declared)
        return declared

    return made


def group(name: str) -> CommandGroup:
    """Return the listed command of this name that has commands of its own."""
    return CommandGroup(name, help=said(LISTED[name].summary), short_help=LISTED[name].summary)


def said(summary: str) -> str:
    """Return a command's summary as a sentence."""
    return f"{summary[:1].upper()}{summary[1:]}."


def gathered(cls: type[Made], into: str) -> Callable[[Function], Function]:
    """Give the function the options that are fields of this dataclass as one of it, by the keyword `into`."""
    names = {one.name for one in fields(cls)}  # type: ignore[arg-type]

    def wrap(function: Function) -> Function:
        @functools.wraps(function)
        def with_gathered(**given: Any) -> Any:
            made = cls(**{name: given.pop(name) for name in names & given.keys()})
            return function(**{into: made}, **given)

        return with_gathered

    return wrap


def target_options(function: Function) -> Function:
    """Give the function its `target`: the supervisor that is meant."""
    function = gathered(Target, "target")(function)
    function = CommonOption.declared(
        "--socket", metavar="PATH", help="Its control socket, instead of a name.", shell_complete=_files
    )(function)
    return CommonOption.declared(
        "--name", metavar="NAME", help="The supervisor's name (default: default).", shell_complete=_supervisors
    )(function)


def timeout_option(meaning: str) -> Callable[[Function], Function]:
    """Give the function its `timeout`, in seconds; None if none was given."""
    return click.option("--timeout", type=SPAN, metavar="S", help=meaning)


def _files(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def _supervisors(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from .completions import supervisor_names

    return supervisor_names(incomplete)
