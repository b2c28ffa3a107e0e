"""Process: a service whose socket is swept away is found again, and no second one takes its name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dspex import Supervisor
from dspex.control import Client, Service, run_files
from tests.support.service import Starter
from tests.support.waiting import eventually


def dspex(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-P", "-m", "dspex.cli", *words], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("everything", [True, False], ids=["folder", "socket"])
def test_a_swept_service_is_found_again(live: Starter, folder: Path, everything: bool) -> None:
    """process: while the socket is gone its name is refused to others, and nobody is told to kill it"""
    one = live()
    with Client(one.socket) as before:
        shutil.rmtree(folder) if everything else one.socket.unlink()
        second = dspex("start", "--name", "default")
        assert second.returncode == 2 and "runs already" in second.stderr, second.stderr
        eventually(one.socket.exists, what="the socket is there again")
        assert before.call("faults", "echo", {"n": 1}) == {"n": 1}, "who was connected goes on"
    assert dspex("health").returncode == 0
    assert dspex("stop").returncode == 0
    assert one.process.wait(timeout=30.0) == 0
    assert not one.socket.exists() and not run_files.run_file_of(one.socket).exists()


def test_an_embedded_service_puts_its_socket_back_and_leaves_nothing(
    no_leaks: None, supervisor: Supervisor, folder: Path
) -> None:
    """process"""
    with Service(supervisor) as service:
        for _ in range(2):
            service.path.unlink()
            eventually(service.path.exists, what="the socket is there again")
            with Client(service.path) as client:
                assert client.health()["faults"]["is_ready"]
    assert not service.path.exists()
