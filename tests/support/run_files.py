"""Run files for the tests: of this process, of another, of one that has ended."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

from dspex.control import process_identity, run_files
from dspex.control.run_files import RunFile


def a_run(path: Path, *, pid: int | None = None, start_time: int | None = None, token: str = "t") -> RunFile:
    own = os.getpid() if pid is None else pid
    began = process_identity.start_time_of(own) if start_time is None else start_time
    return RunFile(
        path.stem, own, began or 0, str(path), "0", time.time(), token, "service", process_identity.namespace_of_pids()
    )


def a_dead_pid() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def leave_behind(place: Path, run: RunFile) -> None:
    """What a killed supervisor leaves: a socket that nobody accepts on, and its run file."""
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(place))
    stale.close()
    run_files.run_file_of(place).write_text(json.dumps(asdict(run)))
