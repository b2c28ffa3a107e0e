"""Pools with one deliberate fault each, made of this pool: the scorecard must see it. Loaded in hosts of trials."""

from __future__ import annotations

import os
import subprocess
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from dspex.scorecard.peer_adapters import Dspex
from dspex.scorecard.peers import Need, Peer, PeerLimits

# Seconds that a leaked process sleeps: how the test finds its own, whatever else runs on the machine.
LEAKED = os.environ.setdefault("LEAKED_BY_A_PEER", f"9876.{os.getpid()}")


class Losing(Dspex):
    """Fails some calls that have done no harm."""

    def submit(self, fault: str, arguments: dict[str, Any], timeout: float | None) -> Future[Any]:
        if fault == "echo" and arguments["n"] in (3, 7):
            failed: Future[Any] = Future()
            failed.set_exception(RuntimeError("lost"))
            return failed
        return super().submit(fault, arguments, timeout)


class Confusing(Dspex):
    """Gives callers the answers of others, as a pool does whose late replies reach the next call."""

    def submit(self, fault: str, arguments: dict[str, Any], timeout: float | None) -> Future[Any]:
        if fault == "echo" and arguments["n"] > 0:
            arguments = {"n": arguments["n"] - 1}
        return super().submit(fault, arguments, timeout)


class Pretending(Dspex):
    """Frees the caller at the deadline, and lets the work go on."""

    def submit(self, fault: str, arguments: dict[str, Any], timeout: float | None) -> Future[Any]:
        inner = super().submit(fault, arguments, None)
        if timeout is None:
            return inner
        outer: Future[Any] = Future()
        timer = threading.Timer(timeout, lambda: outer.set_exception(TimeoutError()))
        timer.daemon = True
        timer.start()
        return outer


class Swapping(Dspex):
    """Serves what is queued in another order, and runs what was cancelled."""

    def submit(self, fault: str, arguments: dict[str, Any], timeout: float | None) -> Future[Any]:
        if fault == "effect":
            number = int(arguments["token"]) ^ 1
            outer: Future[Any] = Future()
            inner = super().submit(fault, {**arguments, "token": str(number)}, timeout)
            inner.add_done_callback(lambda _: outer.cancelled() or outer.set_result(None))
            return outer
        return super().submit(fault, arguments, timeout)


class Leaking(Dspex):
    """Starts a process that nothing ends."""

    def start(self, limits: PeerLimits, folder: Path) -> None:
        super().start(limits, folder)
        subprocess.Popen(["sleep", LEAKED], start_new_session=True)


class Staying(Dspex):
    """Keeps the interpreter from exiting."""

    def start(self, limits: PeerLimits, folder: Path) -> None:
        super().start(limits, folder)
        threading.Thread(target=threading.Event().wait).start()


class Hanging(Dspex):
    """Never starts, and starts a process that nothing ends."""

    def start(self, limits: PeerLimits, folder: Path) -> None:
        subprocess.Popen(["sleep", LEAKED], start_new_session=True)
        threading.Event().wait()


class Ending(Dspex):
    """Takes the whole host along."""

    def start(self, limits: PeerLimits, folder: Path) -> None:
        os._exit(7)


class Lacking(Peer):
    """Has no deadlines; and must not even be started to find that out."""

    lacks = {Need.DEADLINE: "no deadline"}  # noqa: RUF012

    def start(self, limits: PeerLimits, folder: Path) -> None:
        raise AssertionError("started")

    def submit(self, fault: str, arguments: dict[str, Any], timeout: float | None) -> Future[Any]:
        raise AssertionError("submitted")


class Absent(Lacking):
    """Is not installed."""

    distribution = "no-such-distribution-of-anybody"
