"""Fixtures of the control service's tests: a supervisor of injected faults, its service and client, `dspex start`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspex import PoolConfig, Supervisor
from dspex.control import Client, Service, run_files
from tests.support.service import SETTINGS, Live, Starter, folder, is_ready
from tests.support.waiting import eventually

__all__ = ["folder"]


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """No check after each test here: a module's supervisor starts and replaces workers as tests come and go."""


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    """Two workers of the faults bridge, four calls each."""
    pool = PoolConfig("faults", bridge="faults", size=2, concurrency=4, stop_grace=1.0)
    with Supervisor(pools=[pool]) as running:
        yield running.wait_ready(all=True)


@pytest.fixture
def service(supervisor: Supervisor, folder: Path) -> Iterator[Service]:
    """A service of that supervisor, once calls that another test gave up have ended."""
    eventually(lambda: supervisor.stats()["faults"]["in_flight"] == 0, what="nothing runs")
    with Service(supervisor) as running:
        yield running


@pytest.fixture
def at_rest(supervisor: Supervisor) -> None:
    """What other tests did to that supervisor is over: no worker is coming or going."""

    def rests() -> bool:
        stats = supervisor.stats()["faults"]
        return stats["in_flight"] == 0 and [worker["phase"] for worker in stats["workers"]] == ["ready"] * 2

    eventually(rests, what="both workers are ready, and no other is there")


@pytest.fixture
def no_leaks(at_rest: None, no_leaks: None) -> None:
    """The plugin's, begun when no worker of the shared supervisor is coming or going."""


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.path) as connected:
        yield connected


@pytest.fixture
def settings(folder: Path) -> Path:
    path = folder / "dspex.toml"
    path.write_text(SETTINGS)
    return path


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
            eventually(lambda: is_ready(one), within=30.0, what=f"{name} is ready")
        return one

    yield start
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(timeout=10.0)
