"""Start the workers that programs need with the application, and stop those that it started.

A client of a running service may stand for a supervisor: it is neither started nor stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import defaults
from ..errors import DspexError
from ..programs.options.routing import GENERAL_POOL
from ..telemetry.metrics_app import register_if_installed

if TYPE_CHECKING:
    from ..pools.supervising import Supervising
    from ..programs.calling.program import Program


class UsedWorkers:
    """The supervisors of an application's programs; an asynchronous context."""

    def __init__(self, programs: Sequence[Program[Any]]) -> None:
        self._programs = programs
        self._started: list[Supervising] = []
        self._used: list[Supervising] = []
        self._has_default = False

    async def __aenter__(self) -> UsedWorkers:
        """Start what is not running, and wait until it can take calls.

        Raises:
            NotConfigured: a program has no language model.
            WorkerBootError: the workers cannot start.
        """
        try:
            await asyncio.to_thread(self._start)
        except BaseException:  # also a signal: what was started must not stay
            await asyncio.to_thread(self._stop)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._stop)

    async def are_ready(self) -> bool:
        """Return whether every supervisor that is used can run programs."""
        return await asyncio.to_thread(lambda: all(map(_is_ready, tuple(self._used))))  # a client's asks its service

    def _start(self) -> None:
        from ..pools.supervisor import Supervisor  # with the pools, which native programs do not need

        for program in self._programs:
            if program.is_native:
                continue
            own = program.supervisor
            if own is None:
                self._has_default |= defaults.running_supervisor() is None
            elif isinstance(own, Supervisor) and not own.is_running:
                self._started.append(own)
                own.start()
            supervisor = program.supervisor_used
            if supervisor not in self._used:
                self._used.append(supervisor)
        own_ones = [supervisor for supervisor in self._used if isinstance(supervisor, Supervisor)]
        register_if_installed(own_ones)
        for supervisor in own_ones:
            supervisor.wait_ready()

    def _stop(self) -> None:
        for supervisor in reversed(self._started):
            supervisor.release()
        if self._has_default:
            defaults.stop_default_supervisor()
        self._started, self._used, self._has_default = [], [], False


def _is_ready(supervisor: Supervising) -> bool:
    try:
        return supervisor.is_running and bool(supervisor.health()[GENERAL_POOL]["is_ready"])
    except DspexError:  # its service does not answer
        return False
