"""What the tests of the control service share: a short private folder, and a live `dspex start`."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dspex import errors
from dspex.control import Client, process_identity, protocol
from dspex.errors import NotRunning
from dspex_worker.wire import FrameBuffer
from tests.support.waiting import eventually

SETTINGS = """
[pools.faults]
bridge = "faults"
size = 2
concurrency = 1
stop_grace = 20
"""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run folder whose sockets have short paths (pytest's own may be over 104 bytes); every command finds it."""
    path = Path(tempfile.mkdtemp(prefix="dspex-"))
    monkeypatch.setenv("DSPEX_RUNTIME_DIR", str(path))
    for name in ("DSPEX_SOCKET", "DSPEX_CONFIG", "DSPEX_LM", "NOTIFY_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    yield path
    shutil.rmtree(path)


@dataclass
class Live:
    """A supervisor that `dspex start` runs."""

    process: subprocess.Popen[bytes]
    socket: Path
    log: Path

    def workers(self) -> list[int]:
        """The pids of its workers and of their fork server."""
        with Client(self.socket) as client:
            stats = client.stats()["faults"]
        return [row["pid"] for row in stats["workers"]] + [int(stats["reaper"].split()[-1])]


Starter = Callable[..., Live]


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


HELLO = protocol.send(protocol.Kind.HELLO, protocol.MAGIC, *protocol.VERSION, {})


def everything(sock: socket.socket) -> bytes:
    """Read until the other side closes."""
    data = b""
    try:
        while more := sock.recv(65536):
            data += more
    except ConnectionResetError:
        pass  # it closed with our bytes unread
    return data


def refusals(data: bytes) -> list[str]:
    messages = [protocol.read(body) for body in FrameBuffer().feed(data)]
    return [message[2]["message"] for message in messages if message[0] == protocol.Kind.ERROR]


class Caller(threading.Thread):
    """Makes one call in a thread and keeps what came of it."""

    def __init__(self, one: Live, seconds: float) -> None:
        super().__init__()
        self.outcome: object = None
        self._one = one
        self._seconds = seconds
        self.start()
        eventually(lambda: in_flight(one) == 1, what="the call runs")

    def run(self) -> None:
        with Client(self._one.socket) as client:
            try:
                self.outcome = client.call("faults", "sleep", {"seconds": self._seconds})
            except errors.DspexError as error:
                self.outcome = error


def in_flight(one: Live) -> int:
    with Client(one.socket) as client:
        return client.stats()["faults"]["in_flight"]
