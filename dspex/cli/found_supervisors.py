"""Find this user's supervisors by their run files, and ask each how it is; also files whose owner is dead."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..control import run_files, run_folders
from ..control.command_client import DirectClient
from ..control.process_identity import Life
from ..errors import DspexError


@dataclass(frozen=True, slots=True)
class FoundSupervisor:
    """A supervisor as its run file and its own answer tell of it.

    Its state is that of its pools ("ready", "starting", "degraded", "closed"), "stuck" if it does not answer, or
    "dead": a run file whose owner has ended without removing it. `folder` is the one it works in.
    """

    name: str
    pid: int
    kind: str
    state: str
    pools: tuple[str, ...]
    age_s: float
    version: str
    folder: str
    socket: str
    detail: str = ""


def found_supervisors() -> Iterator[FoundSupervisor]:
    """Yield them, by run folder and name."""
    for folder in run_folders.known_directories():
        for path in sorted(folder.glob("*.json")):
            socket = path.with_suffix(".sock")
            if (run := run_files.read(socket)) is not None:
                yield _found(socket, run)


def _found(socket: Path, run: run_files.RunFile) -> FoundSupervisor:
    state, pools, detail = _asked(socket, run)
    return FoundSupervisor(
        name=run.name,
        pid=run.pid,
        kind=run.kind,
        state=state,
        pools=pools,
        age_s=max(0.0, time.time() - run.started_at),
        version=run.version,
        folder=_folder_of(run.pid) if state != "dead" else "",
        socket=str(socket),
        detail=detail,
    )


def _asked(socket: Path, run: run_files.RunFile) -> tuple[str, tuple[str, ...], str]:
    """Return its state, its pools and what else is to be said."""
    if run_files.life_of(socket, run) is Life.GONE:
        return "dead", (), f"process {run.pid} has ended; its files stay until a supervisor of that name starts"
    try:
        with DirectClient(socket) as client:
            health = client.health()
    except (DspexError, OSError) as error:
        return "stuck", (), str(error)
    states = {row["state"] for row in health.values() if not row["is_ready"]}
    worst = next((state for state in ("degraded", "closed", "starting") if state in states), "ready")
    return worst, tuple(health), ""


def _folder_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return str(Path(f"/proc/{pid}/cwd").readlink())
    return ""
