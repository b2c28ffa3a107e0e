"""A command of `dspex` as click has it: its common options, its help, and near names for options that it lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

HELP_WIDTH = 100  # characters at most: longer lines are hard to read


@dataclass(slots=True)
class Said:
    """What the command line says of every command; `obj` of the outermost context."""

    is_debug: bool = False
    is_verbose: bool = False
    color: str = "auto"


def said_of() -> Said:
    """Return what the running command was told; the defaults where none runs."""
    context = click.get_current_context(silent=True)
    found = None if context is None else context.find_root().obj
    return found if isinstance(found, Said) else Said()


class CommonOption(click.Option):
    """An option that stands before the command too: `dspex --json status`."""

    @classmethod
    def declared(cls, *words: str, **how: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Return the decorator that gives it to a function."""
        return click.option(*words, cls=cls, **how)

    def words(self, value: Any) -> list[str]:
        """Return how it is written, with this value; nothing where none was given."""
        if value is None or value is False or value == self.default:
            return []
        return [self.opts[0]] if self.is_flag else [self.opts[0], str(value)]


def common_options() -> list[click.Parameter]:
    """Return those of every command."""
    return [
        CommonOption(["--json", "as_json"], is_flag=True, help="Print JSON."),
        CommonOption(
            ["--color"],
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            expose_value=False,
            callback=_keep_color,
            help="Whether to use color (default: on a terminal; $NO_COLOR and $FORCE_COLOR are heeded).",
        ),
        CommonOption(
            ["--verbose", "-v"], is_flag=True, expose_value=False, callback=_keep, help="Say more on standard error."
        ),
        CommonOption(
            ["--debug"], is_flag=True, expose_value=False, callback=_keep, help="Show the traceback of an error."
        ),
    ]


def _keep(context: click.Context, option: click.Parameter, value: bool) -> None:
    said = context.find_root().obj
    if isinstance(said, Said) and value:
        setattr(said, f"is_{option.name}", True)


def _keep_color(context: click.Context, option: click.Parameter, value: str) -> None:
    said = context.find_root().obj
    if isinstance(said, Said) and value != "auto":
        said.color = value


class HelpText(click.HelpFormatter):
    """The text of a help page."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write the line that shows how a command is used."""
        super().write_usage(prog, args, "usage: ")


class ShellContext(click.Context):
    """What click keeps of a command that runs."""

    formatter_class = HelpText


class ShellCommand(click.Command):
    """One command. Its own options come first in its help, the common ones after them."""

    context_class = ShellContext

    def __init__(self, *args: Any, **how: Any) -> None:
        how.setdefault("context_settings", context_settings())
        super().__init__(*args, **how)
        taken = {word for param in self.params for word in param.opts}
        self.params += [option for option in common_options() if not taken & set(option.opts)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse them; `-json` is told of `--json`."""
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise better(error, words, ctx) from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, the common ones in a section of their own."""
        write_options(self, ctx, formatter)


def context_settings() -> dict[str, Any]:
    """Return what every command's context has."""
    return {"help_option_names": ["--help", "-h"], "max_content_width": HELP_WIDTH}


def write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write a command's own options, then the common ones."""
    own: list[tuple[str, str]] = []
    common: list[tuple[str, str]] = []
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None and not isinstance(param, click.Argument):
            is_common = isinstance(param, CommonOption) or "--help" in param.opts
            (common if is_common else own).append(record)
    for title, records in (("Options", own), ("Common options", common)):
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


def better(error: click.NoSuchOption, words: list[str], ctx: click.Context) -> click.NoSuchOption:
    """Return the error with the word as it was written: click takes `-json` for `-j`."""
    if error.option_name.startswith("--"):
        return error
    written = next((word for word in words if word.startswith(error.option_name) and len(word) > 2), error.option_name)
    known = [opt for param in ctx.command.get_params(ctx) for opt in param.opts if opt.startswith("--")]
    same = [opt for opt in known if opt == f"-{written.partition('=')[0]}"]
    return click.NoSuchOption(written, possibilities=same or known, ctx=ctx)
