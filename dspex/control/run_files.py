"""Locate control sockets and their owners: `<name>.sock` and `<name>.json` in a private folder.

A run file names its owner by pid, by that process's start time and by the namespace of both, so that a reused pid is
never taken for the owner; the owner holds a lock on it until its process ends, which is seen from other namespaces too
(`identity`). `claims` makes and removes them. Any thread; blocks on small files only.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from ..errors import SettingsError
from . import process_identity
from .process_identity import Life

DIRECTORY_VARIABLE = "DSPEX_RUNTIME_DIR"
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


def runtime_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of this user's run files, made with mode 0700 if it is not there.

    $DSPEX_RUNTIME_DIR, else $XDG_RUNTIME_DIR/dspex, else `dspex-<uid>` in the temporary folder.

    Raises:
        SettingsError: it is somebody else's, a link, or open to others.
    """
    environ = os.environ if environ is None else environ
    if own := environ.get(DIRECTORY_VARIABLE):
        return private_directory(Path(own))
    base = environ.get("XDG_RUNTIME_DIR")
    if base and _is_own_directory(Path(base)):
        return private_directory(Path(base) / "dspex")
    return private_directory(Path(tempfile.gettempdir()) / f"dspex-{os.getuid()}")


def private_directory(path: Path) -> Path:
    """Return `path` once it is certain that nobody else can put or read anything there.

    Raises:
        SettingsError: it cannot be made, or is not a folder of ours with mode 0700.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status, above = path.lstat(), path.parent.stat()
    except OSError as error:
        raise SettingsError(f"The run folder {path} cannot be used: {error.strerror}.", key="runtime_dir") from error
    if not stat.S_ISDIR(status.st_mode):
        fault = "is a link or a file, not a folder; remove it"
    elif status.st_uid != os.getuid():
        fault = f"belongs to uid {status.st_uid}, not to {os.getuid()}; set {DIRECTORY_VARIABLE} to a folder of yours"
    elif status.st_mode & 0o077:
        fault = f"is open to others (mode {stat.S_IMODE(status.st_mode):04o}); run `chmod 700 {path}`"
    elif above.st_uid not in (0, os.getuid()):  # its owner may put another folder in its place
        fault = f"lies in a folder of uid {above.st_uid}; set {DIRECTORY_VARIABLE} to a folder in one of yours"
    elif above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX:
        fault = f"lies in {path.parent}, where others may put another in its place; set {DIRECTORY_VARIABLE}"
    else:
        return path
    raise SettingsError(f"The run folder {path} {fault}.", key="runtime_dir")


def find_socket(path: str | os.PathLike[str] | None = None, name: str | None = None) -> Path:
    """Return the socket that is meant: `path`, or that of `name`; with neither $DSPEX_SOCKET, else the default name's.

    Raises:
        SettingsError: the path or the name will not do.
    """
    own = path or (os.environ.get(SOCKET_VARIABLE) if name is None else None)
    return checked_path(Path(own)) if own else socket_path(name or DEFAULT_NAME)


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
    """Return this user's running supervisors, by name."""
    folder = directory or runtime_directory()
    places = [path.with_suffix(".sock") for path in sorted(folder.glob("*.json"))]
    found = [(path, read(path)) for path in places]
    return [run for path, run in found if run is not None and life_of(path, run) is Life.ALIVE]


# ======================================================================================================================


def _is_own_directory(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dspex")
    except PackageNotFoundError:
        return "0"
