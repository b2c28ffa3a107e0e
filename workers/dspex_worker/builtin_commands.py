"""The commands that every bridge answers: `ping`, `echo` and `commands`."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .context import Context
from .memory.procfs import rss_of

if TYPE_CHECKING:
    from .bridge import Bridge, Command

_started = time.monotonic()


def ping(ctx: Context) -> dict[str, Any]:
    """Return {pid, generation, worker, uptime_s, rss_bytes} of the worker that answers."""
    return {
        "pid": os.getpid(),
        "generation": ctx.generation,
        "worker": ctx.worker,
        "uptime_s": time.monotonic() - _started,
        "rss_bytes": rss_of(os.getpid()),
    }


def echo(ctx: Context, /, **arguments: Any) -> dict[str, Any]:
    """Return the arguments."""
    return arguments


def lister(bridge: Bridge) -> Callable[[Context], list[dict[str, Any]]]:
    """Return the command `commands` of this bridge."""

    def commands(ctx: Context) -> list[dict[str, Any]]:
        """Return every command: its name, arguments, use of a session, and the first line of its docstring."""
        return [_described(bridge.commands[name]) for name in sorted(bridge.commands)]

    return commands


def _described(command: Command) -> dict[str, Any]:
    arguments = []
    try:
        parameters = list(inspect.signature(command.function).parameters.values())[1:]  # without the context
    except (TypeError, ValueError):  # a callable that tells nothing of itself
        parameters = []
    for parameter in parameters:
        is_open = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        kind = "" if parameter.annotation is parameter.empty else str(_named(parameter.annotation))
        is_needed = parameter.default is parameter.empty and not is_open
        default = None if is_needed or is_open else repr(parameter.default)[:200]
        arguments.append(
            {"name": str(parameter).split(":")[0].split("=")[0].strip(), "type": kind, "needed": is_needed,
             "default": default}
        )  # fmt: skip
    return {
        "name": command.name,
        "about": (inspect.getdoc(command.function) or "").split("\n")[0],
        "arguments": arguments,
        **command.facts(),
    }


def _named(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
