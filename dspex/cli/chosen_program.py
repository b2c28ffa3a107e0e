"""Choose where a command's program runs: in workers of its own, or in those of a running service."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Generator
from typing import TYPE_CHECKING

from ..errors import SettingsError
from .shell_program import ShellProgram, own_program

if TYPE_CHECKING:
    from .served_program import ServedProgram


@contextlib.contextmanager
def chosen_program(options: argparse.Namespace, *, size: int | None = 1) -> Generator[ShellProgram | ServedProgram]:
    """Yield the program; what was started or connected for it has ended after the block. `size`: of a pool of its own.

    Raises:
        SettingsError, InvalidInput, UnknownName, SignatureError: it cannot be made.
        NotRunning: no supervisor answers there.
    """
    if not is_served(options):
        with own_program(options, size=size) as program:
            yield ShellProgram(program)
        return
    from .served_program import served_program

    with served_program(options) as served:
        yield served


def is_served(options: argparse.Namespace) -> bool:
    """Return whether a running service was named: by --name, --socket or, without --private, $DSPEX_SOCKET.

    Raises:
        SettingsError: both were asked for.
    """
    named = options.name is not None or options.socket is not None
    if named and options.private:
        raise SettingsError("--private runs workers of this command's own: no --name or --socket.", key="private")
    return named or (bool(os.environ.get("DSPEX_SOCKET")) and not options.private)
