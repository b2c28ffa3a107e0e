"""Say what is wrong with a command line: one line, with near names and where the help is."""

from __future__ import annotations

from difflib import SequenceMatcher

import click

from .exit_codes import USAGE

ABOUT = 0.1  # of likeness, where 1 is the same


class CommandRefusal(click.ClickException):
    """The command line, its files or the settings are wrong; nothing was asked."""

    exit_code = USAGE


def refused(error: Exception, more: str = "") -> CommandRefusal:
    """Return what to raise for an error that the command line is to blame for: its first line.

    What follows shows a place in a text that is before the user's eyes.
    """
    return CommandRefusal(f"{str(error).splitlines()[0]}{more}")


def told(error: click.ClickException) -> str:
    """Return what is wrong with near names, and on a second line how the command is used."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return error.format_message()
    usage = " ".join(context.get_usage().split()).removeprefix("usage: ")
    return f"{_fault(error)}\nusage: {usage} ({context.command_path} --help)"


def _fault(error: click.ClickException) -> str:
    if isinstance(error, click.NoSuchOption):
        return f"No such option: {error.option_name}.{_near(error.option_name, error.possibilities)}"
    if isinstance(error, click.exceptions.NoSuchCommand):
        return f"No such command: {error.command_name}.{_near(error.command_name, error.possibilities)}"
    return f"{error.format_message().rstrip('.')}."


def _near(name: str, names: list[str] | None) -> str:
    """Return the nearest, and what is about as near."""
    likeness = {one: SequenceMatcher(None, name, one).ratio() for one in names or ()}
    near = [one for one in likeness if likeness[one] > max(likeness.values()) - ABOUT]
    return f" Did you mean {' or '.join(near)}?" if near else ""
