"""What children of a host run, in `test_processes`; importable, for those that are spawned."""

from __future__ import annotations

from typing import Any

import dspex
from dspex import defaults


def use_default(queue: Any, pool: dspex.PoolConfig) -> None:
    """Call the default supervisor, which a forked child has inherited the settings of, and tell a worker's pid."""
    if defaults._defaults._supervisor is None:
        dspex.configure(config=dspex.Config((pool,)))
    queue.put(dspex.default_supervisor().call("f", "ping")["pid"])


def pool_of(n: int) -> int:
    """Do something that needs no worker."""
    return n * n
