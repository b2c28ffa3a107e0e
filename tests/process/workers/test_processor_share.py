"""Process: the nice value and the CPUs of a pool's workers are those of its settings, and stats tell them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dspex.config import PoolConfig
from dspex.errors import WorkerBootError
from dspex.pools.supervisor import Supervisor
from dspex_worker import processor_share
from dspex_worker.failure import Failure
from tests.support.supervisors import Supervise
from tests.support.waiting import pids

CPU = min(os.sched_getaffinity(0))


@pytest.mark.parametrize("start_method", ["fork", "exec"])
def test_workers_and_what_they_start_have_their_pools_share(supervise: Supervise, start_method: str) -> None:
    """process: every thread of a worker, and its children; the host keeps its own."""
    own, usable = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)
    sup = supervise(size=1, concurrency=4, nice=7, cpus=[CPU], start_method=start_method)
    pid, child = pids(sup)[0], sup.call("f", "spawn", {"seconds": 60})
    for thread in [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()] + [child]:
        assert os.getpriority(os.PRIO_PROCESS, thread) == min(19, own + 7)
        assert os.sched_getaffinity(thread) == {CPU}
    assert sup.stats()["f"]["processors"] == {"nice": 7, "cpus": [CPU]}
    assert (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)) == (own, usable)


def test_without_settings_a_worker_is_as_its_host(supervise: Supervise) -> None:
    """process: the default changes nothing."""
    sup = supervise(size=1)
    assert os.sched_getaffinity(pids(sup)[0]) == os.sched_getaffinity(0)
    assert os.getpriority(os.PRIO_PROCESS, pids(sup)[0]) == os.getpriority(os.PRIO_PROCESS, 0)
    assert sup.stats()["f"]["processors"] == {"nice": 0, "cpus": None}


def test_what_the_system_refuses_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: the pool, the setting, its value and the system's answer are named."""

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    for call, arguments, told in (
        ("setpriority", (5, None), "nice of pool 'f' is 5, .*Operation not permitted"),
        ("sched_setaffinity", (0, [0]), r"cpus of pool 'f' is \[0\], .*Operation not permitted"),
    ):
        monkeypatch.setattr(processor_share.os, call, refused)
        with pytest.raises(Failure, match=told) as found:
            processor_share.take_share("f", *arguments)
        assert found.value.kind == "SettingsError"


def test_a_pool_whose_cpus_are_gone_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """process: the machine has lost a CPU since the settings were read; the pool says which setting it is."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4096)))
    config = PoolConfig("f", bridge="faults", size=1, cpus=[1023])
    with Supervisor(pools=[config]) as sup, pytest.raises(WorkerBootError, match="cpus of pool 'f'"):
        sup.wait_ready(timeout=30)
