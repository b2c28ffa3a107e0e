"""`dspex resize`, `recycle`, `drain` and `forgive`: changing a live pool."""

from __future__ import annotations

import argparse
import sys

from .finding import connect, print_line


def resize(options: argparse.Namespace) -> int:
    """Aim at another number of workers; returns at once."""
    with connect(options) as client:
        client.pool(options.pool).resize(options.size)
    print_line(f"pool {options.pool}: {options.size} workers are the aim now")
    return 0


def recycle(options: argparse.Namespace) -> int:
    """Replace every worker and wait."""
    with connect(options) as client:
        stateful = client.pool(options.pool).stats()["sessions"]
        if stateful and sys.stderr.isatty():  # sessions with state hold their worker for up to session_drain (S8)
            sys.stderr.write(f"waiting for {stateful} session(s) that may hold state; Ctrl-C ends the wait only\n")
        client.pool(options.pool).recycle(reload=options.reload, timeout=options.timeout)
    print_line(f"pool {options.pool}: every worker is replaced")
    return 0


def drain(options: argparse.Namespace) -> int:
    """Close the pool to new calls and wait for the others."""
    with connect(options) as client:
        client.pool(options.pool).drain(timeout=options.timeout)
    print_line(f"pool {options.pool}: takes no calls, and none is running")
    return 0


def forgive(options: argparse.Namespace) -> int:
    """End a quarantine; 1 if there was none."""
    with connect(options) as client:
        was_there = client.pool(options.pool).forgive(options.digest)
    print_line(f"pool {options.pool}: {'forgiven' if was_there else 'that digest is not in quarantine'}")
    return 0 if was_there else 1
