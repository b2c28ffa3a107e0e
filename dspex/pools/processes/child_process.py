"""Start a child process of the host without a pipe: a fork of the host at that moment delays nothing.

`subprocess` learns from a pipe whether exec worked, and reads that to its end. A child that another thread forks within
those milliseconds inherits the pipe's other end, and whoever started the process waits until that child has ended.
posix_spawn says it by what it returns. Any thread; waiting is for one thread at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dspex_worker import starting

FIRST_PASSED = 3  # the number that the first passed descriptor has in the child
HELD_SIGNALS = (signal.SIGTERM, signal.SIGINT)  # blocked until the child has decided about them
RESET_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores them, which exec would pass on
UNLISTED = range(FIRST_PASSED, 1024)  # descriptors that may be open where /proc does not say


class ChildProcess:
    """A running child, known by its pidfd. `status` is its exit status, negative for a signal; None if unknown."""

    def __init__(
        self, command: list[str], *, output: int, passed: Sequence[int], environment: Mapping[str, str]
    ) -> None:
        """Start `command` in a session of its own, with `output` as stdout and stderr, and `passed` from 3 on.

        Raises:
            OSError: no such program, or no descriptors or processes are left.
        """
        self.status: int | None = None
        self.pid = _spawn(command, output, passed, environment)
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            why = f"pidfd_open is not possible here: {error.strerror}; Linux 5.3 is needed, and a sandbox may forbid it"
            raise OSError(error.errno, why) from error

    def wait(self, timeout: float | None = None) -> bool:
        """Take its status once it has ended; False if it has not within `timeout` seconds."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if not poll.poll(None if timeout is None else timeout * 1000):
            return False
        with contextlib.suppress(ChildProcessError):  # the host reaps whatever ends, or ignores SIGCHLD
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
            if result is not None:
                self.status = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        return True

    def is_stopped(self) -> bool:
        """Whether a signal stopped it (SIGSTOP)."""
        with contextlib.suppress(ChildProcessError):
            return os.waitid(os.P_PIDFD, self.pidfd, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
        return False

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def kill_group(self) -> None:
        """Kill what it started in its own process group; it is not waited for yet, so the number is its own."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def _spawn(command: list[str], output: int, passed: Sequence[int], environment: Mapping[str, str]) -> int:
    last = FIRST_PASSED + len(passed)
    with contextlib.ExitStack() as copies:
        actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, output, stream) for stream in (1, 2)]
        for number, descriptor in enumerate(passed, FIRST_PASSED):
            copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, last)  # no other one's number in the child
            copies.callback(os.close, copy)
            actions.append((os.POSIX_SPAWN_DUP2, copy, number))
        actions += [(os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable() if descriptor >= last]
        options: dict[str, Any] = {"setsigmask": HELD_SIGNALS, "setsigdef": RESET_SIGNALS, "file_actions": actions}
        try:
            return os.posix_spawn(command[0], command, environment, setsid=True, **options)
        except NotImplementedError:  # a Python built for an old C library: the child does it itself
            return os.posix_spawn(command[0], command, environment, **options)
        except BlockingIOError as error:
            raise OSError(error.errno, starting.NO_PROCESSES) from None


def _inheritable() -> list[int]:
    """Return the host's descriptors that exec would pass on; those of a library in C may be."""
    try:
        listed: Sequence[int] = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    except OSError:
        listed = UNLISTED
    found = []
    for descriptor in listed:
        with contextlib.suppress(OSError):  # closed meanwhile
            if os.get_inheritable(descriptor):
                found.append(descriptor)
    return found
