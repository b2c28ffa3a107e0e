"""Process: a supervisor that is dropped without a stop ends by itself, with a warning, and not a moment earlier."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex import PoolConfig, Supervisor
from dspex.errors import PoolClosed
from dspex.services.services import services_of
from tests.support.waiting import eventually

POOL = PoolConfig("f", bridge="faults", size=2)


def started() -> Supervisor:
    return Supervisor(pools=[POOL]).start().wait_ready()


def pids(supervisor: Supervisor) -> list[int]:
    stats = supervisor.stats()["f"]
    return [row["pid"] for row in stats["workers"]] + [int(stats["reaper"].split()[-1])]


def are_gone(processes: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}/exe").exists() for pid in processes)


def plain(supervisor: Supervisor) -> None:
    supervisor.call("f", "echo", {"n": 1})


def with_services(supervisor: Supervisor) -> None:
    services_of(supervisor)


def with_a_tool(supervisor: Supervisor) -> None:
    supervisor.register("own.tool", lambda request: 1)


def with_a_session_that_was_left(supervisor: Supervisor) -> None:
    supervisor.session("f", "s").call("echo", {"n": 1})


@pytest.mark.parametrize("use", [plain, with_services, with_a_tool, with_a_session_that_was_left])
def test_a_dropped_supervisor_ends_with_all_that_it_started(no_leaks: None, use: Any) -> None:
    """process: as when a notebook's cell runs again"""
    others = set(threading.enumerate())
    supervisor = started()
    use(supervisor)
    processes, known = pids(supervisor), weakref.ref(supervisor)
    with pytest.warns(ResourceWarning, match=r"pools: f.*dropped without stop"):
        del supervisor
        gc.collect()
    assert known() is None
    eventually(lambda: are_gone(processes), what="its processes are gone")
    eventually(
        lambda: not any(one.name in ("dspex-engine", "dspex-events") for one in set(threading.enumerate()) - others),
        what="its threads are gone",
    )


def a_pool(supervisor: Supervisor) -> Any:
    pool = supervisor.pool("f")
    return lambda: pool.call("echo", {"n": 1})


def a_session(supervisor: Supervisor) -> Any:
    session = supervisor.session("f", "s")
    return lambda: session.call("echo", {"n": 1})


def a_stream(supervisor: Supervisor) -> Any:
    stream: Iterator[Any] = supervisor.stream("f", "count", {"n": 3})
    return lambda: list(stream)


@pytest.mark.parametrize("keep", [a_pool, a_session, a_stream])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_it_lives_as_long_as_somebody_uses_it(no_leaks: None, keep: Any) -> None:
    """process"""
    supervisor = started()
    processes, known = pids(supervisor), weakref.ref(supervisor)
    use = keep(supervisor)
    del supervisor
    gc.collect()
    assert known() is not None
    assert use()
    del use
    gc.collect()
    assert known() is None
    eventually(lambda: are_gone(processes), what="its processes are gone")


def runs_one(pool: Any) -> bool:
    return bool(pool.stats()["in_flight"] == 1)


def test_a_call_that_runs_keeps_it(no_leaks: None) -> None:
    """process"""
    outcomes: list[Any] = []
    supervisor = started()
    thread = threading.Thread(
        target=lambda call: outcomes.append(call("f", "sleep", {"seconds": 0.5})), args=(supervisor.call,)
    )
    thread.start()
    eventually(partial(runs_one, supervisor.pool("f")), what="the call runs")
    with pytest.warns(ResourceWarning):
        del supervisor
        gc.collect()
        thread.join()
        del thread
        gc.collect()
    assert outcomes == [0.5]


def test_one_that_was_stopped_warns_of_nothing(no_leaks: None, recwarn: pytest.WarningsRecorder) -> None:
    """process: and who asks its services later is told"""
    with started() as supervisor:
        services = services_of(supervisor)
    del supervisor
    gc.collect()
    assert not [warning for warning in recwarn if warning.category is ResourceWarning]
    with pytest.raises(PoolClosed, match="dropped"):
        _ = services.supervisor


def test_wait_ready_for_all(tmp_path: Path) -> None:
    """process: one ready worker is enough to serve; `all=True` waits for all, or says what is missing"""
    bridge = tmp_path / "few_bridge.py"
    bridge.write_text(
        "from dspex_worker.bridge import Bridge\nbridge = Bridge('few')\n@bridge.setup\ndef refuse(settings):\n"
        "    if settings['worker'] not in ('p/0', 'p/1'):\n        raise ValueError('no room for more')\n"
    )
    with Supervisor(pools=[PoolConfig("p", bridge=str(bridge), size=4)]) as supervisor:
        supervisor.wait_ready()
        with pytest.raises(dspex.errors.WorkerBootError, match=r"2 of 4 workers ready.*no room for more") as told:
            supervisor.wait_ready(all=True)
        assert "no room for more" in "".join(told.value.__notes__)
        health = supervisor.health()["p"]
        assert health["is_ready"] and "2 of 4 workers are ready" in health["reason"]
        supervisor.pool("p").resize(2)
        supervisor.wait_ready(all=True)
        eventually(lambda: supervisor.health()["p"]["reason"] == "", what="it has what it needs")
