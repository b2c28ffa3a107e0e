"""Claim a name for a supervisor, record its end, and release the name.

Claims are made one at a time under a lock file, so two supervisors never take, nor remove, each other's files. What a
dead owner left is swept by the next supervisor of that name. Any thread; blocks on small files only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..errors import SettingsError
from . import process_identity
from .process_identity import Life
from .run_files import RunFile, life_of, read, run_file_of

BACKLOG = 256  # connections that may wait to be accepted
CONNECT_PATIENCE = 1.0  # seconds that a listener may take to accept before it counts as stuck


@dataclass(frozen=True, slots=True)
class Claim:
    """What the owner of a name holds: its listening socket, and its run file, locked until its process ends."""

    listener: socket.socket
    run: RunFile
    record: int  # the run file's descriptor

    def close(self) -> None:
        """Release both: to others it is then as if this process had ended."""
        self.listener.close()
        os.close(self.record)

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def claim(path: Path, run: RunFile) -> Claim:
    """Bind and listen at `path` and write its run file; what a dead owner left there is replaced.

    Raises:
        SettingsError: a supervisor has it that lives, or of which that cannot be told.
    """
    with _locked(path):
        _require_free(path, run.name)
        listener = _bind(path)
        try:
            return Claim(listener, *_write(run_file_of(path), run))
        except OSError as error:
            listener.close()
            path.unlink(missing_ok=True)
            raise SettingsError(
                f"The run file {run_file_of(path)} cannot be written: {error.strerror}.", key="runtime_dir"
            ) from error


def record_end(claim: Claim, calls_cut: int) -> None:
    """Write into the run file how the stop went: whoever waits for it has the file open and reads that last."""
    text = json.dumps(asdict(replace(claim.run, calls_cut=calls_cut)), indent=1).encode()
    with contextlib.suppress(OSError):  # a full disk: then it is not known
        os.pwrite(claim.record, text.ljust(os.fstat(claim.record).st_size), 0)


def release(path: Path, token: str) -> None:
    """Remove the socket and run file if they are still those of `token`."""
    with contextlib.suppress(OSError), _locked(path):
        run = read(path)
        if run is not None and run.token == token:
            run_file_of(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)


# ======================================================================================================================


def _require_free(path: Path, name: str) -> None:
    """Raise if a process has `path` that lives, or of which that cannot be told; remove what a dead one left."""
    run = read(path)
    life = Life.GONE if run is None else life_of(path, run)
    if run is not None and life is Life.ALIVE:
        raise SettingsError(
            f"A supervisor called {name!r} runs already (pid {run.pid}, {path}). Stop it with `dspex stop --name "
            f"{name}`, or choose another name with --name.",
            key="name",
        )
    if _is_answered(path):
        raise SettingsError(f"Something listens on {path} already; choose another name or path.", key="socket")
    if run is not None and life is Life.UNKNOWN and not path.exists():
        # A socket that refuses is proof that its owner has ended; without one there is none.
        raise SettingsError(
            f"A supervisor called {name!r} (pid {run.pid}) has not been seen to end: its socket is gone, and its "
            f"process cannot be identified from here. Remove {run_file_of(path)} once you know that it has ended, or "
            f"choose another name with --name.",
            key="name",
        )
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SettingsError(f"{path} exists and is no socket; remove it or choose another path.", key="socket")
        path.unlink()
    run_file_of(path).unlink(missing_ok=True)


def _is_answered(path: Path) -> bool:
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(CONNECT_PATIENCE)
    try:
        probe.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError:
        return path.is_socket()  # it did not refuse: its backlog may be full, so somebody has it
    else:
        return True
    finally:
        probe.close()


def _bind(path: Path) -> socket.socket:
    """Bind with mode 0600 from the first instant, then listen.

    Linux makes the file with the mode that the unbound socket has; a umask would be every thread's of the host.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise SettingsError(f"The socket {path} cannot be bound: {error.strerror}.", key="socket") from error
    return listener


def _write(path: Path, run: RunFile) -> tuple[RunFile, int]:
    """Write a run file that is locked before anybody can see it; return what it says, and its descriptor."""
    fresh = path.with_suffix(f".{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        run = replace(run, is_locked=process_identity.lock(descriptor))
        text = json.dumps(asdict(run), indent=1).encode()
        if os.write(descriptor, text) < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fresh.replace(path)
    except BaseException:  # also Ctrl-C: a file of ours that names no supervisor must not stay
        os.close(descriptor)
        fresh.unlink(missing_ok=True)
        raise
    return run, descriptor


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    """Hold the lock file beside `path`; the kernel lets go of it if we die."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path.with_suffix(".lock"), flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
