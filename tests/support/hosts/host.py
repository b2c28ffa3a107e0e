"""A host: a process that embeds DSPex, started by a test, with everything that it starts.

All of them carry a mark in their environment (workers get it by their pool's `env`), so that "nothing is left" is a
question that /proc answers. Hosts say what happens in lines of JSON in a file, since some have no stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.waiting import eventually, is_alive

MARK = "DSPEX_TEST_HOST"
SAYS = "DSPEX_TEST_SAYS"
KEPT = ("PATH", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH")
EXIT_WITHIN = 2.0  # seconds by contract, from the end of the host's own code
SLACK = 3.0  # more, for machines that are busy

PRELUDE = """
import asyncio, json, os, signal, subprocess, sys, threading, time
import dspex
from dspex import Config, PoolConfig, Supervisor
from dspex.pools import reaper

reaper.EXIT_PATIENCE = 2.0  # how a worker died is to be known on a busy machine too
POOL = PoolConfig("f", bridge="faults", size=2, concurrency=2, stop_grace=5.0, startup_timeout=30.0,
                  env={"DSPEX_TEST_HOST": os.environ["DSPEX_TEST_HOST"]})
SAYS = os.environ["DSPEX_TEST_SAYS"]

def tell(**facts):
    with open(SAYS, "a") as file:
        file.write(json.dumps({"pid": os.getpid(), **facts}) + "\\n")

def handlers():
    return {number: signal.getsignal(number) for number in signal.valid_signals()}

def until(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "never"
        time.sleep(0.005)

def is_busy(sup, calls=1):
    return sup.stats()["f"]["in_flight"] >= calls
"""


class Host:
    """A running host. Its folder is its cwd, HOME and TMPDIR; what it leaves there is looked at in the end."""

    def __init__(
        self,
        command: list[str],
        folder: Path,
        *,
        env: dict[str, str | None] | None = None,
        listen: bool = False,
        **options: Any,
    ) -> None:
        self.folder = folder
        self.mark = secrets.token_hex(8)
        self.socket: socket.socket | None = None
        self.port = 0
        folder.mkdir()
        self._says = folder.with_suffix(".says")
        self._log = folder.with_suffix(".log")
        passed: list[int] = []
        if listen:
            self.socket = socket.create_server(("127.0.0.1", 0))
            self.port = self.socket.getsockname()[1]
            passed = [self.socket.fileno()]
            command = [part.replace("{fd}", str(self.socket.fileno())) for part in command]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                **{
                    "cwd": folder,
                    "stdin": subprocess.DEVNULL,
                    "stdout": log,
                    "stderr": log,
                    "env": self._environment(env or {}),
                    "pass_fds": passed,
                    "start_new_session": True,
                    **options,
                },
            )
        if self.socket is not None:
            self.socket.close()  # from now on only the host holds the port

    # -- what it says --

    def said(self) -> list[dict[str, Any]]:
        """Everything that its processes have told so far."""
        text = self._says.read_text() if self._says.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def heard(self, key: str, count: int = 1, *, within: float = 30.0) -> list[Any]:
        """Wait until `count` lines have said something about `key`; give what."""

        def found() -> list[Any] | None:
            values = [line[key] for line in self.said() if key in line]
            if len(values) >= count:
                return values
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.log()}"
            return None

        try:
            values: list[Any] = eventually(found, within=within, what=f"{count} words about {key}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None
        return values

    def log(self) -> str:
        """What it printed."""
        return self._log.read_text(errors="replace")

    # -- what it serves --

    def get(self, path: str, *, timeout: float = 30.0, **query: Any) -> dict[str, Any]:
        """Give the JSON that the host answers to a request."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request("GET", f"{path}?{urlencode(query)}" if query else path)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer

    def try_get(self, path: str, **query: Any) -> dict[str, Any] | None:
        """`get`, or None if the connection ended: the process that served it was on its way out."""
        try:
            return self.get(path, **query)
        except (OSError, HTTPException):
            return None

    def ask(self, path: str) -> socket.socket:
        """Send a request and do not wait for its answer."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30.0)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return connection

    def is_listening(self) -> bool:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port), 5.0):
            return True
        return False

    # -- its processes --

    def members(self) -> list[int]:
        """The pids of all living processes that carry its mark."""
        wanted = f"{MARK}={self.mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    if wanted in (entry / "environ").read_bytes().split(b"\0") and is_alive(int(entry.name)):
                        found.append(int(entry.name))
        return found

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def finish(self, *, code: int | None = 0, within: float = 20.0) -> float:
        """Wait until it has ended with `code` and nothing of it is left; give how long it took to end."""
        began = time.monotonic()
        try:
            ended = self.process.wait(timeout=within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {within} s:\n{self.log()}") from None
        took = time.monotonic() - began
        assert code is None or ended == code, f"it ended with {ended}:\n{self.log()}{self.said()}"
        self.is_gone()
        return took

    def is_gone(self, *, within: float = 5.0) -> None:
        """Wait until no process carries its mark and nobody listens on its port."""
        eventually(lambda: not self.members(), within=within, what="no process is left")
        if self.port:
            eventually(lambda: not self.is_listening(), within=within, what="nobody listens")

    def files(self) -> set[str]:
        """What is in its folder."""
        return (
            {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")} if self.folder.exists() else set()
        )

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        for pid in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=10.0)

    def _environment(self, changes: dict[str, str | None]) -> dict[str, str]:
        own = {"HOME": str(self.folder), "TMPDIR": str(self.folder), MARK: self.mark, SAYS: str(self._says)}
        kept = {
            name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH") if name in os.environ
        }
        both: dict[str, str | None] = {**kept, "PYTHONDONTWRITEBYTECODE": "1", **own, **changes}
        return {name: value for name, value in both.items() if value is not None}


def python(code: str, *flags: str) -> list[str]:
    """The command that runs `code` after the prelude."""
    return [sys.executable, *flags, "-c", PRELUDE + code]


def gone(pids: Iterable[int]) -> None:
    """Wait until none of these processes lives."""
    pids = list(pids)
    eventually(lambda: not any(map(is_alive, pids)), what=f"{pids} are gone")
