"""What the control tests share: a short private folder, a supervisor of injected faults, a service and its client."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dspex import PoolConfig, Supervisor
from dspex.control import Client, Service


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run folder whose sockets have short paths (pytest's own may be over 104 bytes)."""
    path = Path(tempfile.mkdtemp(prefix="dspex-"))
    monkeypatch.setenv("DSPEX_RUNTIME_DIR", str(path))
    monkeypatch.delenv("DSPEX_SOCKET", raising=False)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    """Two workers of the faults bridge, four calls each."""
    pool = PoolConfig("faults", bridge="faults", size=2, concurrency=4, stop_grace=1.0)
    with Supervisor(pools=[pool]) as running:
        yield running.wait_ready()


@pytest.fixture
def service(supervisor: Supervisor, folder: Path) -> Iterator[Service]:
    """A service of that supervisor, once calls that another test gave up have ended."""
    eventually(lambda: supervisor.stats()["faults"]["in_flight"] == 0, "nothing runs")
    with Service(supervisor) as running:
        yield running


@pytest.fixture
def at_rest(supervisor: Supervisor) -> None:
    """What other tests did to that supervisor is over: no worker is coming or going."""

    def rests() -> bool:
        stats = supervisor.stats()["faults"]
        return stats["in_flight"] == 0 and [worker["phase"] for worker in stats["workers"]] == ["ready"] * 2

    eventually(rests, "both workers are ready, and no other is there")


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.path) as connected:
        yield connected


def eventually(is_true: Callable[[], bool], what: str, patience: float = 10.0) -> None:
    """Wait until it is; fail when it is not in time."""
    deadline = time.monotonic() + patience
    while not is_true():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {patience} s: {what}")
        threading.Event().wait(0.01)
