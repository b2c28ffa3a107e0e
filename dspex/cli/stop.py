"""`dspex stop`: end a supervisor, and wait until it is really gone."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from ..control import runfiles
from ..control.client import Client
from ..control.runfiles import RunFile
from ..errors import DspexError, NotRunning
from .finding import connect, print_line, socket_of

PATIENCE = 30.0  # seconds for the end itself, beyond the grace
LOOK = 0.02


def stop(options: argparse.Namespace) -> int:
    """Ask it to stop and wait; with --now, running calls end at once, and one that does not answer is killed."""
    path = socket_of(options)
    run = runfiles.read(path)
    grace = 0.0 if options.now else options.grace
    try:
        with connect(options) as client:
            run = run or _told(client)
            wait = _longest(client, grace)
            client.stop(grace)
    except NotRunning:
        if run is None or not run.is_alive:
            raise
        return _stop_by_signal(run, now=options.now)
    if not _is_gone_within(run, path, wait + PATIENCE):
        raise DspexError(f"Supervisor {run.name!r} (pid {run.pid}) still runs after {wait + PATIENCE:g} s; use --now.")
    print_line(f"stopped {run.name} (pid {run.pid})")
    return 0


def _told(client: Client) -> RunFile:
    """What a supervisor says of itself; for one whose run file somebody swept away."""
    said = client.greeting
    pid, began = int(said["pid"]), runfiles.start_time_of(int(said["pid"])) or 0
    return RunFile(said["name"], pid, began, str(client.path), said["version"], 0.0, "", said["kind"])


def _longest(client: Client, grace: float | None) -> float:
    """How long its calls may go on: unknown graces are the pools' own, at most their deadlines."""
    if grace is not None:
        return grace
    return max((limit for limit in client.greeting["timeouts"].values() if math.isfinite(limit)), default=3600.0)


def _is_gone_within(run: RunFile, path: Path, seconds: float) -> bool:
    """A service's process ends; an embedded one only gives up its socket."""
    deadline = time.monotonic() + seconds
    with _pidfd(run) as descriptor:
        while time.monotonic() < deadline:
            if descriptor is None or _has_ended(descriptor, LOOK):
                return True
            now = runfiles.read(path)
            if run.kind == "embedded" and (now is None or now.token != run.token):
                return True
    return False


def _stop_by_signal(run: RunFile, *, now: bool) -> int:
    """It lives but does not answer: signal exactly that process, through a descriptor that no other can have."""
    with _pidfd(run) as descriptor:
        if descriptor is None:
            return 0
        if run.kind == "embedded":
            raise DspexError(f"Process {run.pid} is a host application that does not answer; end it yourself.")
        signal.pidfd_send_signal(descriptor, signal.SIGKILL if now else signal.SIGTERM)
        if not _has_ended(descriptor, PATIENCE):
            raise DspexError(f"Process {run.pid} does not answer and did not end within {PATIENCE:g} s; use --now.")
    print_line(f"{'killed' if now else 'stopped'} {run.name} (pid {run.pid}), which did not answer")
    return 0


@contextlib.contextmanager
def _pidfd(run: RunFile) -> Iterator[int | None]:
    try:
        descriptor: int | None = os.pidfd_open(run.pid)
    except ProcessLookupError:
        descriptor = None
    try:
        yield descriptor if run.is_alive else None  # looked at again now that the number cannot be reused under us
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _has_ended(pidfd: int, timeout: float) -> bool:
    return bool(select.select([pidfd], [], [], timeout)[0])
