"""Read a command line as `dspex` does, without running the command."""

from __future__ import annotations

from typing import Any

from dspex.cli.command_group import CommandGroup, root


def read_words(words: list[str]) -> dict[str, Any]:
    """What the function of the command would be given; raises what click does for words that are wrong."""
    group: CommandGroup = root
    outer = root.make_context("dspex", list(words))
    while True:
        _, command, rest = group.resolve_command(outer, [*outer._protected_args, *outer.args])
        assert command is not None
        context = command.make_context(command.name, rest, parent=outer)
        if not isinstance(command, CommandGroup):
            return context.params
        group, outer = command, context
