"""The group of all commands. Each is imported when it is used, so that all of them start quickly."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from .command_list import LISTED, SECTIONS
from .shell_command import CommonOption, ShellContext, better, common_options, context_settings, write_options


class CommandGroup(click.Group):
    """Commands by name; what stands before a command's name and is common to all is handed on to the command."""

    context_class = ShellContext

    def __init__(self, *args: Any, **how: Any) -> None:
        how.setdefault("context_settings", context_settings())
        super().__init__(*args, **how)
        self.params += common_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what stands before the command; `-json` is told of `--json`."""
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise better(error, words, ctx) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command and its words.

        Raises:
            click.NoSuchCommand: there is none; it names those that are near.
        """
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None:
            if ctx.resilient_parsing:
                return None, None, args[1:]
            raise click.exceptions.NoSuchCommand(name, possibilities=self.list_commands(ctx), ctx=ctx)
        before = [
            word
            for param in self.params
            if isinstance(param, CommonOption)
            for word in param.words(ctx.params.get(param.name or ""))
        ]
        return name, command, [*before, *args[1:]]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, then the options."""
        self.format_commands(ctx, formatter)
        write_options(self, ctx, formatter)


class RootGroup(CommandGroup):
    """The commands of `dspex`, as they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names, in the order of the help."""
        return list(LISTED)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one, imported now; None if there is none of this name."""
        return loaded(cmd_name) if cmd_name in LISTED else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of commands; nothing is imported for it."""
        for title, listed in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(one.name, one.summary) for one in listed])


def loaded(name: str) -> click.Command:
    """Return a command that is listed."""
    found: click.Command = getattr(importlib.import_module(f".{name}_command", __package__), name)
    return found


def commands() -> Mapping[str, click.Command]:
    """Return all of them, imported: for the docs."""
    return {name: loaded(name) for name in LISTED}


def _show_version(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from .. import __version__

        click.echo(f"dspex {__version__}")
        context.exit()


HELP = """Pools of DSPy workers, as a service.

\b
The first three steps:
  dspex init                                 # writes dspex.toml
  dspex start --config dspex.toml --daemon   # returns once it serves
  dspex call dspy                            # what its workers can do

`dspex COMMAND --help` tells more of a command."""

root = RootGroup(
    "dspex",
    help=HELP,
    params=[
        CommonOption(["--name"], metavar="NAME", help="The supervisor's name (default: default)."),
        CommonOption(["--socket"], metavar="PATH", help="Its control socket, instead of a name."),
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
            help="Show the version.",
        ),
    ],
)  # fmt: skip
