"""Process: sessions stay on their worker, keep their order, and say so when their state is gone (RULES S)."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from dspex.errors import (
    EncodeError,
    InvalidInput,
    SessionBusy,
    SessionLimit,
    SessionLost,
    SessionStateTooLarge,
    UnknownName,
    WorkerDied,
)
from dspex.pools.supervisor import Supervisor
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, Gate, all_ready, eventually, pids


def test_two_hundred_sessions_stay_where_they_began(supervise: Supervise) -> None:
    """Process (S2): 200 sessions of 5 steps on 4 workers, most of whose first calls had to queue: one worker each."""
    sup = supervise(size=4, concurrency=2)
    all_ready(sup, 4)
    seen: dict[int, set[tuple[int, int]]] = {}

    def run(k: int) -> None:
        with sup.session("f", f"s{k}") as session:
            for n in range(5):
                answer = session.call("remember", {"key": f"k{n}", "value": n})
                seen.setdefault(k, set()).add((answer["pid"], answer["generation"]))
            assert session.call("recall", {"key": "k0"})["value"] == 0

    for caller in [Caller(run, k) for k in range(200)]:
        caller.outcome(60)
    assert len(seen) == 200
    assert all(len(places) == 1 for places in seen.values())
    assert len({next(iter(places)) for places in seen.values()}) == 4
    assert sup.stats()["f"]["sessions"] == 0


def test_a_session_keeps_its_state_between_calls(supervise: Supervise) -> None:
    """Process (S4): what one call remembers the next recalls."""
    sup = supervise()
    with sup.session("f") as session:
        session.call("remember", {"key": "k", "value": [1, {"a": b"b"}]})
        assert session.call("recall", {"key": "k"})["value"] == [1, {"a": b"b"}]


def test_two_sessions_do_not_see_each_other(supervise: Supervise) -> None:
    """Process (S1): the same key in two sessions of one worker."""
    sup = supervise(size=1)
    with sup.session("f", "a") as a, sup.session("f", "b") as b:
        a.call("remember", {"key": "k", "value": 1})
        with pytest.raises(UnknownName):
            b.call("recall", {"key": "k"})


def test_two_clients_with_one_id_do_not_meet(supervise: Supervise) -> None:
    """Process (S1): ids are each client's own, unless shared=True."""
    sup = supervise(size=1)
    with sup.session("f", "id", client="one") as one, sup.session("f", "id", client="two") as two:
        one.call("remember", {"key": "k", "value": 1})
        with pytest.raises(UnknownName):
            two.call("recall", {"key": "k"})
    with sup.session("f", "id", client="one", shared=True) as one, sup.session("f", "id", shared=True) as two:
        one.call("remember", {"key": "k", "value": 2})
        assert two.call("recall", {"key": "k"})["value"] == 2


def test_a_closed_session_is_dropped_by_its_worker(supervise: Supervise) -> None:
    """Process: a new session of the same name begins empty."""
    sup = supervise(size=1)
    with sup.session("f", "a") as session:
        session.call("remember", {"key": "k", "value": 1})
    with sup.session("f", "a") as session, pytest.raises(UnknownName):
        session.call("recall", {"key": "k"})


def test_calls_of_a_session_start_in_order(supervise: Supervise) -> None:
    """Process (S3): writers run alone and one after another, in submission order."""
    import asyncio

    sup = supervise(size=2)

    async def run() -> list[int]:
        async with sup.session("f") as session:
            calls = [session.acall("append", {"value": n}) for n in range(50)]
            return [len(answer) for answer in await asyncio.gather(*calls)]

    assert asyncio.run(run()) == list(range(1, 51))


def test_a_read_only_command_may_not_write(supervise: Supervise) -> None:
    """Process (S3): session="read" gives a mapping that refuses writes."""
    sup = supervise(size=1)
    with sup.session("f") as session, pytest.raises(Exception, match="may only read"):
        session.call("write_in_read", {})


def test_session_commands_need_a_session(supervise: Supervise) -> None:
    """Process: without one the call is InvalidInput."""
    sup = supervise(size=1)
    with pytest.raises(InvalidInput, match="session"):
        sup.call("f", "remember", {"key": "k", "value": 1})


def _lose(sup, session):
    """Kill the worker that holds the session's state."""
    pid = session.call("remember", {"key": "k", "value": 1})["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: pid not in pids(sup))


def test_a_lost_session_says_so_until_it_is_begun_afresh(supervise: Supervise) -> None:
    """Process (S6): SessionLost with reason and generation for every later call; fresh=True begins again."""
    sup = supervise(size=2)
    session = sup.session("f", "chat")
    _lose(sup, session)
    for _ in range(3):
        with pytest.raises(SessionLost) as caught:
            session.call("recall", {"key": "k"})
        assert caught.value.reason == "died"
        assert caught.value.session == "chat"
        assert caught.value.generation in (1, 2)
    with sup.session("f", "chat", fresh=True) as fresh:
        with pytest.raises(UnknownName):
            fresh.call("recall", {"key": "k"})
        fresh.call("remember", {"key": "k", "value": 2})


def test_the_call_in_flight_gets_its_own_error(supervise: Supervise) -> None:
    """Process (S6): WorkerDied for the call that ran; SessionLost for those queued behind it."""
    sup = supervise(size=2)
    session = sup.session("f")
    session.call("remember", {"key": "k", "value": 1})
    with Gate(sup) as gate:
        running = Caller(session.call, "ask_writing", gate.command[2])
        gate.wait_for(1)
        queued = Caller(session.call, "remember", {"key": "k", "value": 2})
        eventually(lambda: sup.stats()["f"]["queued"] == 1)
        os.kill(pids(sup)[int(gate.arrived[0][-1])], signal.SIGKILL)
        with pytest.raises(WorkerDied):
            running.outcome()
        with pytest.raises(SessionLost):
            queued.outcome()


def test_a_session_without_state_moves_silently(supervise: Supervise) -> None:
    """Process (S4): its pin is only locality."""
    sup = supervise(size=2)
    with sup.session("f") as session:
        pid = session.call("ping")["pid"]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: pid not in pids(sup))
        assert session.call("ping")["pid"] != pid


def test_hint_makes_no_promise_about_state(supervise: Supervise) -> None:
    """Process (S5): after its worker's death the session goes on elsewhere, empty."""
    sup = supervise(size=2, affinity="hint")
    with sup.session("f") as session:
        pid = session.call("remember", {"key": "k", "value": 1})["pid"]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: pid not in pids(sup))
        assert session.call("remember", {"key": "j", "value": 1})["pid"] != pid


def test_strict_queue_waits_for_its_worker(supervise: Supervise) -> None:
    """Process (S5): other workers are free, and the call waits all the same."""
    sup = supervise(size=2, concurrency=1)
    all_ready(sup, 2)
    session = sup.session("f")
    home = session.call("remember", {"key": "k", "value": 1})["worker"]
    with Gate(sup) as gate:
        busy = [Caller(sup.call, *gate.command) for _ in range(2)]
        gate.wait_for(2)
        waiting = Caller(session.call, "recall", {"key": "k"})
        eventually(lambda: sup.stats()["f"]["queued"] == 1)
        gate.open()
        assert waiting.outcome()["worker"] == home
        for caller in busy:
            caller.outcome()
    session.close()


def test_strict_fail_fast_is_session_busy(supervise: Supervise) -> None:
    """Process (S5, DESIGN §6): at once, and retryable."""
    sup = supervise(size=1, concurrency=1, affinity="strict_fail_fast")
    session = sup.session("f")
    session.call("remember", {"key": "k", "value": 1})
    with Gate(sup) as gate:
        busy = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        with pytest.raises(SessionBusy) as caught:
            session.call("recall", {"key": "k"})
        assert caught.value.retryable == "now"
        gate.open()
        busy.outcome()
    assert session.call("recall", {"key": "k"})["value"] == 1


def test_a_durable_session_survives_its_worker(supervise: Supervise) -> None:
    """Process (S9): the state is restored in the next worker, as of the last answered call."""
    sup = supervise(size=2)
    with sup.session("f", durable=True) as session:
        for n in range(20):
            session.call("remember", {"key": f"k{n}", "value": {"n": n, "b": b"\x00" * n}})
        session.call("forget_key", {"key": "k3"})
        pid = session.call("recall", {"key": "k0"})["pid"]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: pid not in pids(sup))
        answer = session.call("recall", {"key": "k19"})
        assert answer["value"] == {"n": 19, "b": b"\x00" * 19}
        assert answer["pid"] != pid
        with pytest.raises(UnknownName):
            session.call("recall", {"key": "k3"})


def test_a_durable_session_that_is_begun_afresh_is_durable(supervise: Supervise) -> None:
    """Process (S6, S9): what the new life wrote is restored, and nothing of the old one."""
    sup = supervise(size=2)
    sup.session("f", "s", durable=True).call("remember", {"key": "old", "value": 1})
    session = sup.session("f", "s", durable=True, fresh=True)
    session.call("remember", {"key": "new", "value": 2})
    _kill(sup, session.call("recall", {"key": "new"})["pid"])
    assert session.call("recall", {"key": "new"})["value"] == 2
    with pytest.raises(UnknownName):
        session.call("recall", {"key": "old"})


@pytest.mark.parametrize("how", ["closed", "fresh"])
def test_a_durable_session_that_is_opened_again_while_a_call_runs_is_durable(supervise: Supervise, how: str) -> None:
    """Process (S9): the old life's last call, which still runs, takes nothing of the new life's copy with it."""
    sup = supervise(size=2)
    old = sup.session("f", "s", durable=True)
    old.call("remember", {"key": "old", "value": 1})
    with Gate(sup) as gate:
        running = Caller(old.call, "ask_writing", gate.command[2])
        gate.wait_for(1)
        if how == "closed":
            old.close()
        session = sup.session("f", "s", durable=True, fresh=how == "fresh")
        writing = Caller(session.call, "remember", {"key": "new", "value": 2})
        eventually(lambda: sup.stats()["f"]["queued"] == 1)
        gate.open()
        running.outcome()
        writing.outcome()
    _kill(sup, session.call("recall", {"key": "new"})["pid"])
    assert session.call("recall", {"key": "new"})["value"] == 2
    with pytest.raises(UnknownName):
        session.call("recall", {"key": "old"})


def test_what_was_handed_in_before_a_session_was_opened_as_durable_is_never_silently_lost(supervise: Supervise) -> None:
    """Process (S6, S9): its reply did not say what it wrote, so the supervisor has no whole copy, and says so."""
    sup = supervise(size=1, concurrency=1)
    with Gate(sup) as gate:
        holding = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        writing = Caller(sup.call, "f", "remember", {"key": "k", "value": 1}, session="s")
        eventually(lambda: sup.stats()["f"]["queued"] == 1)
        session = sup.session("f", "s", durable=True)
        gate.open()
        holding.outcome()
        writing.outcome()
    _kill(sup, session.call("recall", {"key": "k"})["pid"])
    with pytest.raises(SessionLost):
        session.call("recall", {"key": "k"})


def _kill(sup: Supervisor, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: pid not in pids(sup))


def test_no_command_is_executed_again_to_restore(supervise: Supervise, tmp_path) -> None:
    """Process (S9): restoring copies values; effects happen once."""
    from tests.support.waiting import lines

    sup = supervise(size=1)
    effects = tmp_path / "effects"
    with sup.session("f", durable=True) as session:
        pid = session.call("remember_with_effect", {"key": "k", "value": 1, "path": str(effects)})["pid"]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: pid not in pids(sup))
        assert session.call("recall", {"key": "k"})["value"] == 1
    assert lines(effects) == ["k"]


def test_writes_of_a_call_that_died_are_absent(supervise: Supervise) -> None:
    """Process (S9): that call gets WorkerDied, and the state is as it was before."""
    sup = supervise(size=1)
    with sup.session("f", durable=True) as session:
        session.call("remember", {"key": "k", "value": 1})
        with pytest.raises(WorkerDied):
            session.call("remember_then_die", {"key": "k", "value": 2})
        assert session.call("recall", {"key": "k"})["value"] == 1


def test_a_durable_value_that_cannot_be_kept_is_an_error_of_its_call(supervise: Supervise) -> None:
    """Process (S9): EncodeError with the path into the session."""
    sup = supervise(size=1)
    with sup.session("f", durable=True) as session, pytest.raises(EncodeError) as caught:
        session.call("remember_object", {"key": "k"})
    assert "session" in caught.value.path


def test_a_durable_session_is_limited(supervise: Supervise) -> None:
    """Process (S9): 1 MiB, else SessionStateTooLarge."""
    sup = supervise(size=1)
    with sup.session("f", durable=True) as session:
        session.call("remember", {"key": "small", "value": bytes(1000)})
        with pytest.raises(SessionStateTooLarge):
            session.call("remember", {"key": "big", "value": bytes(1_100_000)})


def test_sessions_are_limited(supervise: Supervise) -> None:
    """Process (S7): stateless ones make room; when all hold state, the next is SessionLimit."""
    sup = supervise(size=1, session_limit=2)
    for n in range(5):
        sup.call("f", "ping", session=f"stateless{n}")
    kept = [sup.session("f", f"s{n}") for n in range(2)]
    for session in kept:
        session.call("remember", {"key": "k", "value": 1})
    with pytest.raises(SessionLimit):
        sup.session("f", "one too many")
    kept[0].close()
    sup.session("f", "now there is room").call("ping")


def test_an_idle_session_with_state_expires(supervise: Supervise) -> None:
    """Process (S7): after session_ttl its state is gone, and said to be."""
    sup = supervise(size=1, session_ttl=0.2)
    session = sup.session("f")
    session.call("remember", {"key": "k", "value": 1})
    with pytest.raises(SessionLost) as caught:
        while True:
            threading.Event().wait(0.3)
            session.call("recall", {"key": "k"})
    assert caught.value.reason == "expired"
