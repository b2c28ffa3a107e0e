"""Claim a name for a supervisor, record its end, and release the name; put back what was swept away meanwhile.

Claims are made one at a time under a lock file, so two supervisors never take, nor remove, each other's files. A lock
beside all folders (`name_lock`) holds the name also when the files are gone. What a dead owner left is swept by the
next supervisor of that name. Any thread; blocks on small files only.
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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ..errors import SettingsError
from . import name_lock, process_identity
from .name_lock import NameIsHeld
from .process_identity import Life
from .run_files import RunFile, life_of, read, run_file_of
from .run_folders import private_directory

BACKLOG = 256  # connections that may wait to be accepted
CONNECT_PATIENCE = 1.0  # seconds that a listener may take to accept before it counts as stuck
FORMER_MOST = 16  # run files that were swept away and stay locked


@dataclass(slots=True)
class Claim:
    """What the owner of a name holds: its listening socket, its run file, locked until its process ends, its name."""

    path: Path
    listener: socket.socket
    run: RunFile
    record: int  # the run file's descriptor
    lock: socket.socket | None
    socket_file: tuple[int, int]  # device and inode
    former: list[int] = field(default_factory=list)  # run files that are gone: who waits for our end may watch those

    @property
    def is_whole(self) -> bool:
        """Whether clients find the socket, and others the run file."""
        try:
            return _identity(self.path) == self.socket_file and _identity(run_file_of(self.path)) == _of(self.record)
        except OSError:
            return False

    @property
    def descriptors(self) -> list[int]:
        """What a forked child must let go of, beside the listener."""
        return [self.record, *self.former, *([self.lock.fileno()] if self.lock is not None else [])]

    def close(self) -> None:
        """Release all: to others it is then as if this process had ended."""
        self.listener.close()
        if self.lock is not None:
            self.lock.close()
        while self.former:
            os.close(self.former.pop())
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
        lock = _hold(path, run.name)
        try:
            listener, written, record = _make(path, run)
        except SettingsError:
            if lock is not None:
                lock.close()
            raise
        return Claim(path, listener, written, record, lock, _identity(path))


def restore(claim: Claim) -> None:
    """Bind anew and write the run file anew; the listener that was is the caller's, to close once it is unused.

    Raises:
        SettingsError: another process has the place, or the folder cannot be made or written.
    """
    private_directory(claim.path.parent)
    with _locked(claim.path):
        _remove_own(claim)
        _require_free(claim.path, claim.run.name)
        claim.listener, claim.run, record = _make(claim.path, claim.run)
        claim.socket_file = _identity(claim.path)
    claim.former.append(claim.record)
    claim.record = record
    while len(claim.former) > FORMER_MOST:
        os.close(claim.former.pop(0))


def record_end(claim: Claim, calls_cut: int) -> None:
    """Write into the run file how the stop went: whoever waits for it has the file open and reads that last."""
    text = json.dumps(asdict(replace(claim.run, calls_cut=calls_cut)), indent=1).encode()
    for record in (*claim.former, claim.record):
        with contextlib.suppress(OSError):  # a full disk: then it is not known
            os.pwrite(record, text.ljust(os.fstat(record).st_size), 0)


def release(path: Path, token: str) -> None:
    """Remove the socket and run file if they are still those of `token`."""
    with contextlib.suppress(OSError, SettingsError), _locked(path):
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
        raise _runs_already(name, f"pid {run.pid}, {path}", f"Stop it with `dspex stop --name {name}`")
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


def _remove_own(claim: Claim) -> None:
    """Remove what is left of a claim's files, and nobody else's."""
    run = read(claim.path)
    if run is not None and run.token == claim.run.token:
        run_file_of(claim.path).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if _identity(claim.path) == claim.socket_file:
            claim.path.unlink()


def _hold(path: Path, name: str) -> socket.socket | None:
    try:
        return name_lock.hold(path)
    except NameIsHeld as held:
        who = f"pid {held.pid}" if held.pid else "a process that cannot be seen from here"
        what = f"{who}; its files in {path.parent} were removed, and it puts them back within seconds"
        raise _runs_already(name, what, f"Then stop it with `dspex stop --name {name}`") from None


def _runs_already(name: str, who: str, remedy: str) -> SettingsError:
    return SettingsError(
        f"A supervisor called {name!r} runs already ({who}). {remedy}, or choose another name with --name.", key="name"
    )


def _make(path: Path, run: RunFile) -> tuple[socket.socket, RunFile, int]:
    """Return the listener at `path`, what its run file says, and the file's descriptor.

    Raises:
        SettingsError: one of them cannot be made; then neither is there.
    """
    listener = _bind(path)
    try:
        return listener, *_write(run_file_of(path), run)
    except OSError as error:
        listener.close()
        path.unlink(missing_ok=True)
        raise SettingsError(
            f"The run file {run_file_of(path)} cannot be written: {error.strerror}.", key="runtime_dir"
        ) from error


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
    """Hold the lock file beside `path`; the kernel lets go of it if we die.

    Raises:
        SettingsError: it cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    place = path.with_suffix(".lock")
    try:
        descriptor = os.open(place, flags, 0o600)
    except OSError as error:
        raise SettingsError(f"The lock file {place} cannot be made: {error.strerror}.", key="runtime_dir") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _of(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
