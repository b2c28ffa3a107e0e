"""Process: planned replacements under load fail no call (RULES S8)."""

from __future__ import annotations

import threading
import time

import pytest

from dspex.errors import DspexError, PoolClosed, SessionLost
from dspex.pools.supervisor import Supervisor
from tests.support.supervisors import Supervise
from tests.support.waiting import SOON, Caller, Gate, all_ready, eventually, pids


class Load:
    """Eight threads that call without pause; `failures` holds what went wrong."""

    def __init__(self, sup: Supervisor) -> None:
        self.failures: list[BaseException] = []
        self.answers = 0
        self._sup = sup
        self._is_over = threading.Event()
        self._callers = [Caller(self._run, k) for k in range(8)]

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for caller in self._callers:
            caller.outcome(30)

    def _run(self, k: int) -> None:
        n = 0
        while not self._is_over.is_set():
            n += 1
            try:
                assert self._sup.call("f", "echo", {"k": k, "n": n}) == {"k": k, "n": n}
            except DspexError as error:
                self.failures.append(error)
            self.answers += 1


def test_recycling_by_calls_fails_no_call(supervise: Supervise) -> None:
    """Process: every worker is replaced again and again under load."""
    sup = supervise(size=2, recycle_after_calls=100)
    with Load(sup) as load:
        eventually(lambda: max(w["generation"] for w in sup.stats()["f"]["workers"]) > 13)
    assert load.failures == []
    counts = sup.stats()["f"]["counts"]
    assert counts["stops"] >= 10 and counts["deaths"] == 0


def test_recycling_by_age_fails_no_call(supervise: Supervise) -> None:
    """Process: each worker leaves at its age, one at a time."""
    sup = supervise(size=2, recycle_after_age=0.3)
    with Load(sup) as load:
        eventually(lambda: max(w["generation"] for w in sup.stats()["f"]["workers"]) > 6)
        assert len(sup.stats()["f"]["workers"]) <= 4
    assert load.failures == []


@pytest.mark.parametrize("reload", [False, True])
def test_recycle_replaces_every_worker_and_fails_no_call(supervise: Supervise, reload: bool) -> None:
    """Process: the spare is ready before its predecessor drains."""
    sup = supervise(size=3)
    before = set(all_ready(sup, 3))
    with Load(sup) as load:
        sup.pool("f").recycle(reload=reload, timeout=30)
    assert not before & set(pids(sup))
    assert load.failures == []


def test_resizing_up_and_down_fails_no_call(supervise: Supervise) -> None:
    """Process: 1 to 6 to 2 under load."""
    sup = supervise(size=1)
    with Load(sup) as load:
        sup.pool("f").resize(6)
        all_ready(sup, 6)
        sup.pool("f").resize(2)
        eventually(lambda: len(sup.stats()["f"]["workers"]) == 2)
    assert load.failures == []
    assert sup.stats()["f"]["size"] == 2


def test_a_pool_needs_at_least_one_worker(supervise: Supervise) -> None:
    """Process: resize(0) is refused; stop() is what ends a pool."""
    sup = supervise(size=1)
    with pytest.raises(ValueError, match="1 or more"):
        sup.pool("f").resize(0)


def test_a_draining_pool_finishes_what_it_took(supervise: Supervise) -> None:
    """Process: drain() returns when the last call ended; new ones are refused."""
    sup = supervise(size=1)
    with Gate(sup) as gate:
        callers = [Caller(sup.call, *gate.command) for _ in range(3)]
        gate.wait_for(3)
        draining = Caller(sup.pool("f").drain, timeout=20)
        eventually(lambda: sup.stats()["f"]["state"] == "closed")
        with pytest.raises(PoolClosed):
            sup.call("f", "ping")
        assert draining.is_alive()
        gate.open()
        for caller in callers:
            caller.outcome()
        draining.outcome()


def test_a_worker_with_a_stateful_session_waits_for_it(supervise: Supervise) -> None:
    """Process (S8): recycling keeps the old worker for the session that lives there, and a spare serves the rest."""
    sup = supervise(size=1)
    session = sup.session("f")
    home = session.call("remember", {"key": "k", "value": 1})["pid"]
    recycling = Caller(sup.pool("f").recycle, timeout=20)
    eventually(lambda: sup.call("f", "ping")["pid"] != home)
    assert session.call("recall", {"key": "k"})["pid"] == home
    assert recycling.is_alive()
    session.close()
    recycling.outcome()


def test_after_session_drain_the_state_is_lost_and_said_to_be(supervise: Supervise) -> None:
    """Process (S8): SessionLost(recycled), counted, for undurable state only."""
    sup = supervise(size=1, session_drain=0.2)
    session = sup.session("f")
    session.call("remember", {"key": "k", "value": 1})
    sup.pool("f").recycle(timeout=20)
    with pytest.raises(SessionLost) as caught:
        session.call("recall", {"key": "k"})
    assert caught.value.reason == "recycled"


def test_a_durable_session_moves_with_its_state(supervise: Supervise) -> None:
    """Process (S8, S9): recycling loses nothing of it and does not wait for it."""
    sup = supervise(size=1)
    with sup.session("f", durable=True) as session:
        before = session.call("remember", {"key": "k", "value": [1, 2]})
        sup.pool("f").recycle(timeout=20)
        after = session.call("recall", {"key": "k"})
        assert after["value"] == [1, 2]
        assert after["generation"] > before["generation"]


def test_two_supervisors_live_side_by_side(supervise: Supervise) -> None:
    """Process (scorecard 38): neither sees the other's workers, deaths or end."""
    one, two = supervise(size=1), supervise(size=1)
    assert pids(one) != pids(two)
    with pytest.raises(DspexError):
        one.call("f", "exit", {"code": 1})
    assert two.stats()["f"]["counts"]["deaths"] == 0
    one.stop()
    assert two.call("f", "echo", {"n": 1}) == {"n": 1}


def test_a_stop_with_nothing_running_is_quick(supervise: Supervise) -> None:
    """Process: graces are for calls; without any stop() takes milliseconds."""
    sup = supervise(size=4, stop_grace=60.0)
    all_ready(sup, 4)
    began = time.monotonic()
    sup.stop()
    assert time.monotonic() - began < SOON
