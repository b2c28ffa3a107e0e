"""Explain a NotRunning: the socket's owner, the state of its process, and which supervisors run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

from ..errors import DspexError, NotRunning
from . import name_lock, run_files
from .process_identity import Life
from .run_files import DEFAULT_NAME, RunFile
from .run_folders import DIRECTORY_VARIABLE

START = "Start one with `dspex start`."
_TELLING = {DIRECTORY_VARIABLE, "XDG_RUNTIME_DIR"}  # which say where sockets are
_UNTOLD = "($XDG_RUNTIME_DIR is not set here: one that was started where it is may have its socket there.) "


@contextlib.contextmanager
def explained(path: Path) -> Generator[None]:
    """Add a remedy, about the supervisor at `path`, to a NotRunning that leaves the block."""
    try:
        yield
    except NotRunning as error:
        raise NotRunning(error.path, error.reason, remedy=_remedy(error, path)) from None


def _remedy(error: NotRunning, path: Path) -> str:
    run = run_files.read(path)
    life = Life.GONE if run is None else run_files.life_of(path, run)
    if not path.exists() and (pid := _holder(path, run, life)):
        return (
            f"Process {pid} has that name, and its socket was removed: it puts it back within seconds; try again then."
        )
    if run is not None and life is not Life.GONE:
        return _of_owner(run, life, path)
    if error.remedy != START:
        return error.remedy
    others = _others(path)
    start = f"{_also_looked_in(path)}Start one with `{_command('start', path)}`"
    return start + (f", or use --name: {others}." if others else ".")


def _holder(path: Path, run: RunFile | None, life: Life) -> int | None:
    """Return the process whose socket is missing, if one lives."""
    if run is not None and life is Life.ALIVE:
        return run.pid
    return name_lock.holder(path)


def _also_looked_in(path: Path) -> str:
    with contextlib.suppress(DspexError, OSError):
        places = run_files.places_of(path.stem)
        if path not in places:
            return ""
        others = [str(place.parent) for place in places if place != path]
        looked = f"Nor is there one in {' or '.join(others)}. " if others else ""
        return looked + ("" if os.environ.keys() & _TELLING else _UNTOLD)
    return ""


def _of_owner(run: RunFile, life: Life, path: Path) -> str:
    if life is Life.ALIVE:
        return f"Process {run.pid} has that name but does not answer; `{_command('stop', path)} --now` ends it."
    return (
        f"Process {run.pid} had that name, and whether it lives cannot be told from here: it is in another pid "
        f"namespace, or there is no /proc. Look where it was started."
    )


def _others(path: Path) -> str:
    with contextlib.suppress(DspexError, OSError):
        names = [run.name for run in run_files.living() if run.socket != str(path)]
        return f"{', '.join(names)} runs" if names else ""
    return ""


def _command(verb: str, path: Path) -> str:
    """Return the command line that means the supervisor at `path`."""
    with contextlib.suppress(DspexError):
        if path.stem == DEFAULT_NAME and path == run_files.socket_path():
            return f"dspex {verb}"
        if path == run_files.socket_path(path.stem):
            return f"dspex {verb} --name {path.stem}"
    return f"dspex {verb} --socket {path}"
