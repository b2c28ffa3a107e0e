"""Wait until a supervisor has ended, and end one that does not answer. Blocks; needs no thread.

A process is watched through a pidfd: of the listener as the kernel knows it, or of the pid in the run file if that is
identified. Where neither can be had, through the lock that the owner holds on its run file until its process ends. What
can be watched in no way is never said to have ended.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from pathlib import Path

from ..errors import DspexError
from . import process_identity, run_files
from .process_identity import Life
from .run_files import RunFile

LOOK = 0.02  # seconds between looks at a lock or a run file


class ProcessEnd:
    """One supervisor that is to end. Made before the request, so that nothing of its end is missed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run: RunFile | None = None
        self.obstacle = ""  # why its process cannot be watched by number
        self._record = -1  # the run file as it is now, also after its name is gone
        self._pidfd = -1
        with contextlib.suppress(OSError):
            self._record = run_files.open_run_file(path)
            self.run = run_files.read_open(self._record)
        if self.run is not None:
            self._watch_owner(self.run)

    def __enter__(self) -> ProcessEnd:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self._record, self._pidfd):
            if descriptor >= 0:
                os.close(descriptor)

    def identify(self, greeting: dict[str, object], pid: int) -> None:
        """Take what the supervisor reports of itself, and the listener's pid as numbered here (0: not to be seen).

        Call it while connected, and make a request afterwards: an answer proves that the pidfd is of that process.
        """
        if self.run is None:
            self.run = RunFile(
                str(greeting["name"]), pid, 0, str(self.path), str(greeting["version"]), 0.0, "", str(greeting["kind"])
            )
        if pid > 0 and self._pidfd < 0:
            self._open(pid)

    @property
    def life(self) -> Life:
        """Whether its process lives, as far as can be seen now."""
        if self._pidfd >= 0:
            return Life.GONE if self._has_ended(0.0) else Life.ALIVE
        known = Life.UNKNOWN if self.run is None else self._life_of_owner(self.run)
        if known is not Life.UNKNOWN:
            return known
        held = self._is_held()
        return Life.UNKNOWN if held is None else Life.ALIVE if held else Life.GONE

    @property
    def calls_cut(self) -> int | None:
        """How many calls its stop ended; None if it did not record that."""
        run = run_files.read_open(self._record) if self._record >= 0 else None
        return run.calls_cut if run is not None else None

    @property
    def has_record(self) -> bool:
        """Whether there is a run file in which it records how its stop went."""
        return self._record >= 0 and self._is_locked()

    def wait(self, seconds: float) -> Life:
        """Wait until it has ended, or an embedded one has given up its socket; return what is known after that."""
        deadline = time.monotonic() + seconds
        while (life := self._look()) is Life.ALIVE and time.monotonic() < deadline:
            self._pause(min(LOOK, max(0.0, deadline - time.monotonic())))
        if life is not Life.UNKNOWN:
            return life
        while not self._has_given_up() and time.monotonic() < deadline:
            time.sleep(LOOK)
        return Life.UNKNOWN

    def signal(self, number: signal.Signals) -> None:
        """Signal exactly that process.

        Raises:
            DspexError: it cannot be identified from here, or may not be signalled.
        """
        if self._pidfd < 0:
            raise DspexError(
                f"Process {self.run.pid if self.run else '?'} cannot be signalled: {self.obstacle or 'it is unknown'}. "
                f"End it where it was started."
            )
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            pass  # it has ended meanwhile
        except OSError as error:
            pid = self.run.pid if self.run else "?"
            raise DspexError(f"Process {pid} may not be signalled: {error.strerror}.") from error

    # ============================================================================================================

    def _watch_owner(self, run: RunFile) -> None:
        match self._life_of_owner(run):
            case Life.ALIVE:
                self._open(run.pid)
                if self._pidfd >= 0 and not self._is_identified(run):
                    self._drop_pidfd()  # it ended, and the number may have been given anew, between the two looks
            case Life.UNKNOWN:
                self.obstacle = "it cannot be identified from here (another pid namespace, or no /proc)"
            case Life.GONE:
                pass

    def _open(self, pid: int) -> None:
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self.obstacle = "there is no such process"
        except OSError as error:
            self.obstacle = f"pidfd_open({pid}) is not possible here ({error.strerror})"

    def _is_identified(self, run: RunFile) -> bool:
        return self._life_of_owner(run) is Life.ALIVE

    def _life_of_owner(self, run: RunFile) -> Life:
        """Return what the numbers say; after a reboot they may be another process's, which has no lock."""
        known = process_identity.life_of(run.pid, run.start_time, run.namespace)
        return Life.GONE if known is Life.ALIVE and self._is_held() is False else known

    def _is_held(self) -> bool | None:
        """Return whether somebody holds the run file; None where that says nothing."""
        return process_identity.is_locked(self._record) if self._record >= 0 and self._is_locked() else None

    def _drop_pidfd(self) -> None:
        os.close(self._pidfd)
        self._pidfd = -1

    def _look(self) -> Life:
        is_embedded = self.run is not None and self.run.kind == "embedded"
        return Life.GONE if is_embedded and self._has_given_up() else self.life

    def _pause(self, seconds: float) -> None:
        if self._pidfd >= 0:
            self._has_ended(seconds)
        else:
            time.sleep(seconds)

    def _has_given_up(self) -> bool:
        """Return whether the name is free or somebody else's: what an embedded supervisor does when it stops."""
        if self.run is None or not self.run.token:
            return not self.path.exists()
        now = run_files.read(self.path)
        return now is None or now.token != self.run.token

    def _has_ended(self, timeout: float) -> bool:
        poll = select.poll()  # not select(): a host may have more than 1,024 descriptors
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def _is_locked(self) -> bool:
        return self.run is not None and self.run.is_locked
