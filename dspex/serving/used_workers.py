"""Start the workers that programs need with the application, and stop those that it started."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import defaults
from ..programs.options.routing import GENERAL_POOL

if TYPE_CHECKING:
    from ..pools.supervisor import Supervisor
    from ..programs.calling.program import Program


class UsedWorkers:
    """The supervisors of an application's programs; an asynchronous context."""

    def __init__(self, programs: Sequence[Program[Any]]) -> None:
        self._programs = programs
        self._started: list[Supervisor] = []
        self._used: list[Supervisor] = []
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

    def are_ready(self) -> bool:
        """Whether every supervisor that is used can run programs."""
        return all(self._is_ready(supervisor) for supervisor in self._used)

    def _is_ready(self, supervisor: Supervisor) -> bool:
        return supervisor.is_running and bool(supervisor.health()[GENERAL_POOL]["is_ready"])

    def _start(self) -> None:
        for program in self._programs:
            if program.is_native:
                continue
            own = program.supervisor
            if own is None:
                self._has_default |= defaults.running_supervisor() is None
                supervisor = program.supervisor_used
            else:
                supervisor = own
                if not supervisor.is_running:
                    self._started.append(supervisor)
                    supervisor.start()
            if supervisor not in self._used:
                self._used.append(supervisor)
        for supervisor in self._used:
            supervisor.wait_ready()

    def _stop(self) -> None:
        for supervisor in reversed(self._started):
            supervisor.stop()
        if self._has_default:
            defaults.stop_default_supervisor()
        self._started, self._used, self._has_default = [], [], False
