"""Process: a worker with a great many children of its own leaves its fork server able to work."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dspex.events import Name
from dspex.pools.supervisor import Supervisor
from tests.support.waiting import all_ready, eventually

CHILDREN, DESCRIPTORS = 45, 40


def test_more_children_than_the_forkserver_may_have_descriptors(supervise: Callable[..., Supervisor]) -> None:
    """Process (T2): their memory is read without a descriptor for each, and another worker can still be started."""
    sup = supervise(size=1, memory_cap="512MiB")
    forkserver = _parent_of(sup.call("f", "ping")["pid"])
    resource.prlimit(forkserver, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    lost: list[Any] = []
    sup.on_event(lambda event: lost.append(event) if event.name == Name.FORKSERVER_LOST else None)
    for _ in range(CHILDREN):
        sup.call("f", "spawn", {"seconds": 60.0})
    eventually(lambda: len(list(Path(f"/proc/{forkserver}/fd").iterdir())) >= DESCRIPTORS // 2)
    sup.call("f", "sleep", {"seconds": 1.2})  # two looks for members
    counted = sup.stats()["f"]["workers"][0]["rss_bytes"]
    assert counted > CHILDREN * 500_000
    sup.pool("f").resize(2)
    all_ready(sup, 2)
    assert lost == []


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
