"""Leave SIGTERM and SIGINT to the supervisor: in workers, and in their fork server.

A service manager, or a terminal, sends them to every process of the tree; only the supervisor knows which calls may
still go on, and the lifeline ends the rest. A handler that does nothing is no SIG_IGN: exec resets it, so that what
user code starts dies of these signals as it would elsewhere. Children that user code forks get back the defaults; the
signals are blocked meanwhile, or one that comes right after the fork would be lost in our handler.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

LEFT = (signal.SIGTERM, signal.SIGINT)
PYTHONS_OWN = {signal.SIGPIPE, signal.SIGXFSZ}  # those two Python itself ignores


def take_own() -> None:
    """Undo what is inherited through exec from a host that ignores or blocks signals: without SIGCHLD, children reap
    themselves and nobody learns how they ended; a blocked SIGUSR1 would never interrupt a call (C15)."""
    for number in signal.valid_signals() - PYTHONS_OWN:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    leave_to_supervisor()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def leave_to_supervisor() -> None:
    """Ignore both signals here from now on; main thread only. Those that were blocked arrive, and do nothing."""
    for number in LEFT:
        signal.signal(number, _ignore)
        signal.siginterrupt(number, False)  # code in C would see its system calls fail
    unblock()


def block() -> None:
    """Block the signals while a child is made that does not ignore them yet."""
    signal.pthread_sigmask(signal.SIG_BLOCK, LEFT)


def unblock() -> None:
    """Unblock the signals."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing: the supervisor decides about the signal."""


class _Forks:
    """Restores the default handlers in what user code forks."""

    def __init__(self) -> None:
        self._masks: dict[int, set[signal.Signals | int]] = {}  # by thread
        os.register_at_fork(before=self._block, after_in_parent=self._unblock, after_in_child=self._restore)

    def _block(self) -> None:
        """Block all: an interrupt that raised in these handlers (C15) would leave the mask as it is."""
        self._masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def _unblock(self) -> None:
        mask = self._masks.pop(threading.get_ident(), None)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _restore(self) -> None:
        """Restore the defaults. A waiting signal ends the child: a KeyboardInterrupt from here would be lost."""
        ours = [number for number in LEFT if signal.getsignal(number) is _ignore]  # else user code has one of its own
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        self._unblock()
        if signal.SIGINT in ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


_forks = _Forks()
