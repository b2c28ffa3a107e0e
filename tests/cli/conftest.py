"""What the CLI tests share: a private run folder, a settings file of the faults bridge, and a live `dspex start`."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dspex.control import Client, process_identity, run_files
from dspex.errors import NotRunning
from tests.control.conftest import eventually

SETTINGS = """
[pools.faults]
bridge = "faults"
size = 2
concurrency = 1
stop_grace = 20
"""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run folder whose sockets have short paths; every command of the test finds it."""
    path = Path(tempfile.mkdtemp(prefix="dspex-"))
    monkeypatch.setenv("DSPEX_RUNTIME_DIR", str(path))
    for name in ("DSPEX_SOCKET", "DSPEX_CONFIG", "DSPEX_LM", "NOTIFY_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def settings(folder: Path) -> Path:
    path = folder / "dspex.toml"
    path.write_text(SETTINGS)
    return path


@dataclass
class Live:
    """A supervisor that `dspex start` runs."""

    process: subprocess.Popen[bytes]
    socket: Path
    log: Path

    def workers(self) -> list[int]:
        """The pids of its workers and of their template."""
        with Client(self.socket) as client:
            stats = client.stats()["faults"]
        return [row["pid"] for row in stats["workers"]] + [int(stats["reaper"].split()[-1])]


Starter = Callable[..., Live]


@pytest.fixture
def live(folder: Path, settings: Path) -> Iterator[Starter]:
    """A maker of live supervisors; what is left of them is killed in the end."""
    made: list[Live] = []

    def start(*options: str, name: str = "default", env: dict[str, str] | None = None, ready: bool = True) -> Live:
        log = folder / f"{name}.out"
        command = [sys.executable, "-m", "dspex.cli", "start", "--config", str(settings), "--name", name, *options]
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **(env or {})})
        one = Live(process, run_files.socket_path(name, folder), log)
        made.append(one)
        if ready:
            eventually(lambda: is_ready(one), f"{name} is ready", patience=30.0)
        return one

    yield start
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(timeout=10.0)


def is_ready(one: Live) -> bool:
    if one.process.poll() is not None:
        pytest.fail(f"it ended with {one.process.returncode}:\n{one.log.read_text()}")
    with contextlib.suppress(NotRunning), Client(one.socket) as client:
        stats = client.stats()["faults"]
        return all(row["phase"] == "ready" for row in stats["workers"]) and len(stats["workers"]) == stats["size"]
    return False


def is_gone(pid: int) -> bool:
    """Whether no process has it any more (a zombie that waits for its reaper is gone)."""
    return process_identity.start_time_of(pid) is None
