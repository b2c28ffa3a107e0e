"""`dspex resize`, `recycle`, `drain` and `forgive`: change a live pool."""

from __future__ import annotations

import argparse
import math
import sys

from ..control.operator_client import MARGIN
from ..control.protocol import Verb
from .exit_codes import FAILED, OK
from .target import connect, print_line


def resize(options: argparse.Namespace) -> int:
    """Aim at another number of workers; returns at once."""
    with connect(options) as client:
        is_closed = client.ask(Verb.RESIZE, {"pool": options.pool, "size": options.size})
    print_line(f"pool {options.pool}: {options.size} workers are the aim now{_closed(options.pool, is_closed)}")
    return OK


def recycle(options: argparse.Namespace) -> int:
    """Replace every worker and wait."""
    with connect(options) as client:
        stateful = client.status()["pools"].get(options.pool, {}).get("sessions", 0)
        if stateful and sys.stderr.isatty():  # sessions with state hold their worker for up to session_drain (S8)
            sys.stderr.write(f"waiting for {stateful} session(s) that may hold state; Ctrl-C ends the wait only\n")
        asked = {"pool": options.pool, "reload": options.reload, "timeout": options.timeout}
        is_closed = client.ask(Verb.RECYCLE, asked, wait=_patience(options.timeout))
    print_line(f"pool {options.pool}: every worker is replaced{_closed(options.pool, is_closed)}")
    return OK


def drain(options: argparse.Namespace) -> int:
    """Close the pool to new calls and wait for the others."""
    with connect(options) as client:
        asked = {"pool": options.pool, "timeout": options.timeout}
        client.ask(Verb.DRAIN, asked, wait=_patience(options.timeout))
    print_line(f"pool {options.pool}: takes no calls, and none is running; `dspex resume {options.pool}` undoes it")
    return OK


def resume(options: argparse.Namespace) -> int:
    """Have a drained pool take calls again."""
    with connect(options) as client:
        was_closed = client.resume(options.pool)
    print_line(f"pool {options.pool}: takes calls{' again' if was_closed else ', and did before'}")
    return OK


def forgive(options: argparse.Namespace) -> int:
    """End a quarantine; 1 if there was none."""
    with connect(options) as client:
        was_there = client.ask(Verb.FORGIVE, {"pool": options.pool, "digest": options.digest})
    print_line(f"pool {options.pool}: {'forgiven' if was_there else 'that digest is not in quarantine'}")
    return OK if was_there else FAILED


def _closed(pool: str, is_closed: bool) -> str:
    return f"; it was drained, and stays closed to calls until `dspex resume {pool}`" if is_closed else ""


def _patience(timeout: float | None) -> float:
    return math.inf if timeout is None else timeout + MARGIN
