"""The two commands that every bridge answers: `ping` and `echo`."""

from __future__ import annotations

import os
import time
from typing import Any

from .context import Context
from .memory.procfs import rss_of

_started = time.monotonic()


def ping(ctx: Context) -> dict[str, Any]:
    """Return {pid, generation, worker, uptime_s, rss_bytes} of the worker that answers."""
    return {
        "pid": os.getpid(),
        "generation": ctx.generation,
        "worker": ctx.worker,
        "uptime_s": time.monotonic() - _started,
        "rss_bytes": rss_of(os.getpid()),
    }


def echo(ctx: Context, /, **arguments: Any) -> dict[str, Any]:
    """Return the arguments."""
    return arguments
