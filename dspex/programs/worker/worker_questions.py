"""Ask a worker about a program: what it takes, what its state is. Nothing is run."""

from __future__ import annotations

from typing import Any

from ...services.services import services_of
from ..options.routing import GENERAL_POOL
from .program_spec import ProgramSpec


def answer_about(program: ProgramSpec, command: str) -> tuple[Any, str]:
    """Return what a command of the general pool says of a program, unchecked, and the worker's name. Blocks.

    Raises:
        UnknownName, InvalidInput, RemoteError: the program cannot be made.
    """
    supervisor = program.supervisor_used
    with program.registered(services_of(supervisor)):
        arguments = {"spec": program.to_wire()}
        call = supervisor.pool(GENERAL_POOL).invoke(command, arguments, is_trusted=program.is_trusted)
    return call.result(), call.worker_name
