"""Track whether a supervisor runs, and in which process: started, stopped, or a forked child's copy (C13)."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

from ..errors import ForkedSupervisor, PoolClosed


class Ownership:
    """The ownership of one supervisor; its pools ask it before every call."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # while it starts, or begins to stop
        self.is_started = False
        self.is_stopped = False
        self.supervisor: object = None  # kept by whoever has this: a pool, or a call that is being made
        self._owner = 0  # the process that started it
        self._running_in = 0  # the same, while it runs

    def begin(self) -> None:
        """Note that it runs, in this process. The lock is held."""
        self._owner = self._running_in = os.getpid()
        self.is_started = True

    def end(self) -> bool:
        """Note that it is stopped; True if it ran until now. The lock is held."""
        was_running = self.is_started and not self.is_stopped
        self.is_stopped = True
        self._running_in = 0
        return was_running

    @property
    def is_running(self) -> bool:
        return self._running_in == os.getpid()

    @property
    def is_forked(self) -> bool:
        """Whether this is a forked child of the process that started it."""
        return self.is_started and self._owner != os.getpid()

    def check_usable(self) -> None:
        """Raise ForkedSupervisor in a forked child, PoolClosed where it is not started, or stopped.

        Raises:
            ForkedSupervisor: this is a forked child of the process that started it.
            PoolClosed: it is not started, or stopped.
        """
        if self._running_in == os.getpid():
            return
        self.check_own_process()
        if not self.is_started:
            raise PoolClosed("This supervisor is not started: call start(), or use it as a context manager.")
        raise PoolClosed("This supervisor was stopped.")

    def check_own_process(self) -> None:
        """Raise ForkedSupervisor in a forked child, before it touches a lock or a pipe of its parent's.

        Raises:
            ForkedSupervisor: this is a forked child of the process that started it.
        """
        if self.is_started and self._owner != os.getpid():  # `is_forked`, in place: each call and chunk asks
            raise ForkedSupervisor(
                f"This supervisor belongs to process {self._owner}; process {os.getpid()} was forked from it and must "
                f"start one of its own (the default one of dspex.configure does so by itself)."
            )

    def __str__(self) -> str:
        if self.is_stopped:
            return "stopped"
        if self.is_forked:
            return f"of process {self._owner}"
        return "running" if self.is_started else "not started"


class KnowsOfForks(Protocol):
    """An owner of descriptors that a forked child must close."""

    def after_fork(self) -> None: ...


_living: weakref.WeakSet[KnowsOfForks] = weakref.WeakSet()


def call_after_fork(owner: KnowsOfForks) -> None:
    """Have `owner.after_fork()` called in forked children of this process, as long as the owner is here."""
    _living.add(owner)


def _after_fork_of_all() -> None:
    for owner in tuple(_living):
        owner.after_fork()
    _living.clear()  # once: a child of this child may have other files under these numbers


os.register_at_fork(after_in_child=_after_fork_of_all)


def call_at_exit(method: Callable[[], None]) -> None:
    """Call a bound method when the interpreter exits, before other threads are joined, if its object still lives.

    Raises:
        PoolClosed: the interpreter is exiting.
    """
    reference = weakref.WeakMethod(method)

    def call() -> None:
        function = reference()
        if function is not None:
            function()

    try:
        # Hooks run last in, first out, and an executor's waits for what its threads do: it must be there before ours.
        import concurrent.futures.thread  # noqa: F401  # pyright: ignore[reportUnusedImport] - for its hook

        threading._register_atexit(call)  # type: ignore[attr-defined]
    except RuntimeError:
        raise PoolClosed("The interpreter is exiting: no supervisor can be started any more.") from None
