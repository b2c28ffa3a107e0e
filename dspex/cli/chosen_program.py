"""Choose where a command's program runs: in workers of its own, or in those of a running service."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING

from ..errors import SettingsError
from .program_choice import ProgramChoice
from .shell_program import ShellProgram, own_program

if TYPE_CHECKING:
    from .served_program import ServedProgram


@contextlib.contextmanager
def chosen_program(choice: ProgramChoice, *, size: int | None = 1) -> Generator[ShellProgram | ServedProgram]:
    """Yield the program; what was started or connected for it has ended after the block. `size`: of a pool of its own.

    Raises:
        SettingsError, InvalidInput, UnknownName, SignatureError: it cannot be made.
        NotRunning: no supervisor answers there.
    """
    if not is_served(choice):
        with own_program(choice, size=size) as program:
            yield ShellProgram(program)
        return
    from .served_program import served_program

    with served_program(choice) as served:
        yield served


def is_served(choice: ProgramChoice) -> bool:
    """Return whether a running service was named: by --name, --socket or, without --private, $DSPEX_SOCKET.

    Raises:
        SettingsError: both were asked for.
    """
    if choice.target.is_named and choice.private:
        raise SettingsError("--private runs workers of this command's own: no --name or --socket.", key="private")
    return choice.target.is_expected and not choice.private
