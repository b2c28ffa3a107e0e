"""Locate control sockets and their owners: `<name>.sock` and `<name>.json` in a private folder (`run_folders`).

A run file names its owner by pid, by that process's start time and by the namespace of both, so that a reused pid is
never taken for the owner; the owner holds a lock on it until its process ends, which is seen from other namespaces too
(`identity`). `claims` makes and removes them. Any thread; blocks on small files only.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from dataclasses import dataclass, fields
from pathlib import Path

from ..errors import SettingsError
from . import process_identity
from .process_identity import Life
from .run_folders import DIRECTORY_VARIABLE, known_directories, runtime_directory

SOCKET_VARIABLE = "DSPEX_SOCKET"
DEFAULT_NAME = "default"
PATH_LIMIT = 104  # bytes: the smallest sun_path among the systems in use


@dataclass(frozen=True, slots=True)
class RunFile:
    """One running supervisor; `start_time` is in clock ticks since boot, `started_at` on `time.time()`'s clock."""

    name: str
    pid: int
    start_time: int
    socket: str
    version: str
    started_at: float
    token: str
    kind: str  # "service": the process exists for it; "embedded": it lives in a host application
    namespace: str = ""  # of the pid and start time; "" if the owner had no /proc
    is_locked: bool = False  # the owner holds a lock on the file itself
    calls_cut: int | None = None  # calls that were ended by its stop; None until it has stopped


def new_run_file(name: str, path: Path, kind: str) -> RunFile:
    """Return what this process writes into the run file of the socket at `path`."""
    pid = os.getpid()
    return RunFile(
        name=name,
        pid=pid,
        start_time=process_identity.start_time_of(pid) or 0,
        namespace=process_identity.namespace_of_pids(),
        socket=str(path),
        version=_version(),
        started_at=time.time(),
        token=secrets.token_hex(16),
        kind=kind,
    )


def find_socket(path: str | os.PathLike[str] | None = None, name: str | None = None) -> Path:
    """Return the socket that is meant: `path`, or that of `name`; with neither $DSPEX_SOCKET, else the default name's.

    A name is looked for in every folder where a supervisor of this user may be; without one it is the place where it
    would be.

    Raises:
        SettingsError: the path or the name will not do.
    """
    own = path or (os.environ.get(SOCKET_VARIABLE) if name is None else None)
    return checked_path(Path(own)) if own else _place_of(name or DEFAULT_NAME)


def places_of(name: str) -> list[Path]:
    """Return where a supervisor called `name` is looked for, the place of this environment first.

    Raises:
        SettingsError: the name will not do, or no folder can be used.
    """
    return [socket_path(name, folder) for folder in known_directories()]


def socket_path(name: str = DEFAULT_NAME, directory: Path | None = None) -> Path:
    """Return where the supervisor called `name` listens.

    Raises:
        SettingsError: the name or the path's length will not do.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise SettingsError(
            f"A supervisor's name has 1 to 64 letters, digits, '_', '-' or '.'; {name!r} is none.", key="name"
        )
    return checked_path((directory or runtime_directory()) / f"{name}.sock")


def checked_path(path: Path) -> Path:
    """Return `path` if a socket can be bound to it.

    Raises:
        SettingsError: it is too long, or the name of a file that belongs to a socket.
    """
    path = path.absolute()
    if path.suffix in (".json", ".lock", ".log", ".new"):
        raise SettingsError(
            f"A socket's name must not end in {path.suffix}: {path} is a file beside one.", key="socket"
        )
    length = len(os.fsencode(path))
    if length > PATH_LIMIT:
        raise SettingsError(
            f"The socket path {path} has {length} bytes; the limit is {PATH_LIMIT}. Set {DIRECTORY_VARIABLE} to a "
            f"shorter folder.",
            key="socket",
        )
    return path


def run_file_of(path: Path) -> Path:
    """Return the run file that belongs to a socket."""
    return path.with_suffix(".json")


def read(path: Path) -> RunFile | None:
    """Return the contents of a socket's run file; None if there is none that is whole and ours."""
    try:
        descriptor = open_run_file(path)
    except OSError:
        return None
    try:
        return read_open(descriptor)
    finally:
        os.close(descriptor)


def open_run_file(path: Path) -> int:
    """Open a socket's run file to read and to look at its lock."""
    return os.open(run_file_of(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def read_open(descriptor: int) -> RunFile | None:
    """Return the contents of an open run file; None if it is not whole or not ours."""
    try:
        if os.fstat(descriptor).st_uid != os.getuid():
            return None
        facts = json.loads(os.pread(descriptor, 64 * 1024, 0))
        known = {f.name for f in fields(RunFile)}  # a later version may have written more
        facts = {key: value for key, value in facts.items() if key in known}
        return RunFile(**{**facts, "pid": int(facts["pid"]), "start_time": int(facts["start_time"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def life_of(path: Path, run: RunFile) -> Life:
    """Return whether the owner of `path`'s run file lives.

    After a reboot another process may have its pid and start time: that one does not hold the file.
    """
    life = process_identity.life_of(run.pid, run.start_time, run.namespace)
    if life is Life.GONE or not run.is_locked:
        return life
    try:
        descriptor = open_run_file(path)
    except FileNotFoundError:
        return Life.GONE  # its owner has just removed it
    except OSError:
        return life
    try:
        held = process_identity.is_locked(descriptor)
    finally:
        os.close(descriptor)
    return life if held is None else Life.ALIVE if held else Life.GONE


def living(directory: Path | None = None) -> list[RunFile]:
    """Return this user's running supervisors, by name: of one folder, or of all that are known.

    Raises:
        SettingsError: no folder can be used.
    """
    folders = [directory] if directory is not None else known_directories()
    places = [path.with_suffix(".sock") for folder in folders for path in sorted(folder.glob("*.json"))]
    found = [(path, read(path)) for path in places]
    return [run for path, run in found if run is not None and life_of(path, run) is Life.ALIVE]


# ======================================================================================================================


def _place_of(name: str) -> Path:
    own = socket_path(name)
    if not own.exists():
        for other in places_of(name)[1:]:
            run = read(other)
            if run is not None and life_of(other, run) is not Life.GONE:
                return other
    return own


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dspex")
    except PackageNotFoundError:
        return "0"
