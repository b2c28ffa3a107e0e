"""A bridge whose commands hang in the ways that people's code does, and whose calls name modules."""

from __future__ import annotations

import re
import time
from typing import Any

from dspex_worker.bridge import Bridge, Context

bridge = Bridge("stuck")


@bridge.command()
def loop(ctx: Context, secret: str = "") -> None:
    """Never end, in Python."""
    while True:
        pass


@bridge.command()
def sum_in_c(ctx: Context, secret: str = "") -> int:
    """Hold the GIL in C for days."""
    return sum(range(10**15))


@bridge.command()
def backtrack(ctx: Context, secret: str = "") -> None:
    """Hold the GIL in the regular expressions' C code for years."""
    re.match(r"(a+)+$", "a" * 64 + "b")


@bridge.command()
def nap(ctx: Context, secret: str = "") -> None:
    """Wait in a system call."""
    time.sleep(3600.0)


@bridge.command(session="write")
def run(ctx: Context, spec: dict[str, Any], seconds: float = 0.0) -> None:
    """Stand for a program's call, in a session too."""
    ctx.session["seen"] = True
    time.sleep(seconds)
