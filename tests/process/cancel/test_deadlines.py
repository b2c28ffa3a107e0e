"""Process: deadlines and cancels, and what becomes of the worker (RULES K); each fault at concurrency 1 and 8."""

from __future__ import annotations

import time

import pytest

from dspex.errors import CallCancelled, CallTimeout, RemoteError, WorkerDied
from tests.support.supervisors import Supervise
from tests.support.waiting import SOON, Caller, Gate, all_ready, eventually, pids


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("command", ["sleep", "spin", "spin_c", "swallow"])
def test_the_caller_is_freed_at_the_deadline(supervise: Supervise, command: str, concurrency: int) -> None:
    """Process (DESIGN §6, K0): CallTimeout at the deadline, whatever the worker is stuck in."""
    sup = supervise(size=1, concurrency=concurrency, cancel_grace=0.2)
    began = time.monotonic()
    with pytest.raises(CallTimeout) as caught:
        sup.call("f", command, {"seconds": 20.0}, timeout=0.2)
    assert time.monotonic() - began < SOON  # 0.3 by contract; the command takes 20
    assert caught.value.phase == "running"
    assert caught.value.timeout == 0.2
    assert isinstance(caught.value, TimeoutError)
    assert sup.call("f", "echo", {"next": 1}, timeout=15, idempotent=True) == {"next": 1}


@pytest.mark.parametrize("concurrency", [1, 8])
def test_python_code_is_interrupted_and_its_worker_stays(supervise: Supervise, concurrency: int) -> None:
    """Process (K2): a cancel-safe command in pure Python ends by itself; no worker is replaced."""
    sup = supervise(size=1, concurrency=concurrency, cancel_grace=10.0)
    before = pids(sup)
    with pytest.raises(CallTimeout):
        sup.call("f", "spin", {"seconds": 60.0}, timeout=0.1)
    eventually(lambda: sup.stats()["f"]["in_flight"] == 0, what="the slot is free again")
    assert pids(sup) == before


def test_a_signal_ends_a_sleep_at_concurrency_1(supervise: Supervise) -> None:
    """Process (C15): the main thread's blocking call is interrupted; the worker stays."""
    sup = supervise(size=1, concurrency=1, cancel_grace=10.0)
    before = pids(sup)
    with pytest.raises(CallTimeout):
        sup.call("f", "sleep", {"seconds": 60.0}, timeout=0.1)
    assert sup.call("f", "echo", {"n": 1}, timeout=8) == {"n": 1}
    assert pids(sup) == before


def test_a_command_that_is_not_cancel_safe_costs_its_worker(supervise: Supervise) -> None:
    """Process (K2): an interrupt may have left a lock held, so the worker is replaced after its calls."""
    sup = supervise(size=1, concurrency=8, cancel_grace=10.0)
    before = pids(sup)
    with pytest.raises(CallTimeout):
        sup.call("f", "spin_unsafe", {"seconds": 60.0}, timeout=0.1)
    eventually(lambda: (now := pids(sup)) and now != before, what="another worker")


def test_a_stuck_call_at_concurrency_1_kills_its_worker(supervise: Supervise) -> None:
    """Process (K3): after cancel_grace nothing else could end it."""
    sup = supervise(size=1, concurrency=1, cancel_grace=0.2)
    before = pids(sup)
    with pytest.raises(CallTimeout):
        sup.call("f", "swallow", {"seconds": 60.0}, timeout=0.1)
    eventually(lambda: (now := pids(sup)) and now != before)


def test_a_stuck_call_retires_its_worker_without_harm_to_its_neighbours(supervise: Supervise) -> None:
    """Process (K3): the others of the worker run to their own end while a spare serves already."""
    sup = supervise(size=1, concurrency=8, cancel_grace=0.2)
    before = pids(sup)
    with Gate(sup) as gate:
        neighbor = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        with pytest.raises(CallTimeout):
            sup.call("f", "sleep", {"seconds": 60.0}, timeout=0.1)
        eventually(lambda: sup.call("f", "ping")["pid"] not in before, what="the spare serves")
        assert neighbor.is_alive()
        gate.open()
        assert neighbor.outcome() == "f/0"
    eventually(lambda: len(sup.stats()["f"]["workers"]) == 1, what="the retired one is gone")
    assert not set(pids(sup)) & set(before)


def test_a_worker_whose_gil_is_held_is_killed_and_its_neighbours_told(supervise: Supervise) -> None:
    """Process (K4): nobody in it can progress; the neighbors hear who it was, and are not blamed."""
    sup = supervise(size=1, concurrency=8, cancel_grace=0.3)
    with Gate(sup) as gate:
        neighbor = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        with pytest.raises(CallTimeout):
            sup.call("f", "spin_c", {"seconds": 30.0}, timeout=0.1)
        with pytest.raises(WorkerDied) as caught:
            neighbor.outcome()
        assert caught.value.cause == "neighbour"
        assert caught.value.culprit is not None
        assert caught.value.started == "unknown"
        assert sup.stats()["f"]["poison"] == {}


def test_an_idempotent_neighbour_of_a_held_gil_is_sent_elsewhere(supervise: Supervise) -> None:
    """Process (K4): it is redispatched and answers."""
    sup = supervise(size=1, concurrency=8, cancel_grace=0.3)
    with Gate(sup) as gate:
        neighbor = Caller(sup.call, *gate.command, idempotent=True)
        gate.wait_for(1)
        with pytest.raises(CallTimeout):
            sup.call("f", "spin_c", {"seconds": 30.0}, timeout=0.1)
        gate.wait_for(2)
        gate.open()
        assert neighbor.outcome() == "f/0"


def test_a_wait_of_the_runtimes_own_ends_at_once(supervise: Supervise) -> None:
    """Process (K1): a call that waits for a tool is freed by the CANCEL frame; the worker stays in service."""
    sup = supervise(size=1, concurrency=8, cancel_grace=10.0)
    before = pids(sup)
    with Gate(sup) as gate:
        with pytest.raises(CallTimeout):
            sup.call(*gate.command, timeout=0.1)
        eventually(lambda: sup.stats()["f"]["in_flight"] == 0, within=5.0)
    assert pids(sup) == before


def test_a_queued_call_that_expires_is_never_sent(supervise: Supervise) -> None:
    """Process (DESIGN §6): phase "queued", and no worker ever saw it."""
    sup = supervise(size=1, concurrency=1)
    with Gate(sup) as gate:
        first = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        with pytest.raises(CallTimeout) as caught:
            sup.call(*gate.command, timeout=0.1)
        assert caught.value.phase == "queued"
        assert sup.stats()["f"]["queued"] == 0
        gate.open()
        assert first.outcome() == "f/0"
    assert len(gate.arrived) == 1


def test_a_stream_that_passes_its_deadline_ends_with_call_timeout(supervise: Supervise) -> None:
    """Process (DESIGN §6): chunks until then, then CallTimeout; the worker stays."""
    sup = supervise(size=1, cancel_grace=10.0)
    before = pids(sup)
    taken = []
    with pytest.raises(CallTimeout) as caught:
        taken.extend(sup.stream("f", "count", {"n": 100_000, "delay_s": 0.01}, timeout=0.3))
    assert caught.value.phase == "running"
    assert taken == list(range(len(taken)))
    assert taken
    eventually(lambda: sup.stats()["f"]["in_flight"] == 0)
    assert pids(sup) == before


def test_no_timeout_means_the_pools_default(supervise: Supervise) -> None:
    """Process (DESIGN §4): `call_timeout` of the pool bounds a call that names none."""
    sup = supervise(size=1, call_timeout=0.1, cancel_grace=0.1)
    with pytest.raises(CallTimeout) as caught:
        sup.call("f", "spin", {"seconds": 20.0})
    assert caught.value.timeout == 0.1


def test_a_deadline_in_the_past_is_a_timeout(supervise: Supervise) -> None:
    """Process: timeout=0 does not hang and does not run."""
    sup = supervise(size=1)
    with pytest.raises(CallTimeout):
        sup.call("f", "sleep", {"seconds": 0.5}, timeout=0.0)


def test_another_thread_can_cancel_a_call(supervise: Supervise) -> None:
    """Process (K0): the caller gets CallCancelled at once; the slot comes back."""
    sup = supervise(size=1)
    cancels: list[object] = []

    def remember(cancel: object) -> object:
        cancels.append(cancel)
        return lambda: None

    with Gate(sup) as gate:
        pool = sup.pool("f")
        caller = Caller(pool.invoke, *gate.command[1:], cancel=remember)
        gate.wait_for(1)
        eventually(lambda: cancels)[0]()
        with pytest.raises(CallCancelled):
            caller.outcome().result()
        eventually(lambda: sup.stats()["f"]["in_flight"] == 0)


def test_an_abandoned_call_keeps_its_slot_until_it_ends(supervise: Supervise) -> None:
    """Process (K0): stats count it, and no other call takes its place meanwhile."""
    sup = supervise(size=1, concurrency=1, cancel_grace=30.0)
    with pytest.raises(CallTimeout):
        sup.call("f", "spin_c", {"seconds": 1.5}, timeout=0.1)
    assert sup.stats()["f"]["workers"][0]["abandoned"] == 1
    with pytest.raises(CallTimeout) as caught:
        sup.call("f", "ping", timeout=0.2)
    assert caught.value.phase == "queued"
    assert sup.call("f", "ping", timeout=10)


def test_no_more_retiring_workers_than_size(supervise: Supervise) -> None:
    """Process (K5): stuck calls one after another never leave more than `size` extra workers."""
    sup = supervise(size=1, concurrency=2, cancel_grace=0.1)
    with Gate(sup) as gate:
        neighbors = []
        for n in range(3):
            eventually(lambda: pids(sup))
            neighbors.append(Caller(sup.call, *gate.command))
            gate.wait_for(n + 1)
            with pytest.raises(CallTimeout):
                sup.call("f", "sleep", {"seconds": 60.0}, timeout=0.05)
            eventually(lambda n=n: max(w["generation"] for w in sup.stats()["f"]["workers"]) >= n + 2)
        assert sum(row["phase"] == "retiring" for row in sup.stats()["f"]["workers"]) <= 1
        gate.open()
        for neighbor in neighbors:
            neighbor.join(10)
    eventually(lambda: len(sup.stats()["f"]["workers"]) == 1)


def test_a_memory_error_replaces_the_worker(supervise: Supervise) -> None:
    """Process (DESIGN §6): the call gets RemoteError, and the worker is not trusted any more."""
    sup = supervise(size=1)
    before = pids(sup)
    with pytest.raises(RemoteError) as caught:
        sup.call("f", "raise_error", {"type": "MemoryError", "message": "full"})
    assert caught.value.type == "MemoryError"
    eventually(lambda: (now := pids(sup)) and now != before)


def test_a_late_reply_never_answers_the_next_call(supervise: Supervise) -> None:
    """Process (C7, K0): four thousand calls race their deadlines; each answer is its own."""
    sup = supervise(size=2, cancel_grace=30.0)
    outcomes = {"answered": 0, "expired": 0}

    def race(worker: int) -> None:
        for n in range(1000):
            token = worker * 1_000_000 + n
            try:
                answer = sup.call("f", "echo", {"token": token}, timeout=0.0002 * (n % 8))
            except CallTimeout:
                outcomes["expired"] += 1
            else:
                assert answer == {"token": token}
                outcomes["answered"] += 1

    for caller in [Caller(race, k) for k in range(4)]:
        caller.outcome(60)
    assert sum(outcomes.values()) == 4000
    assert outcomes["expired"] > 0
    eventually(lambda: sup.stats()["f"]["in_flight"] == 0)
    assert sup.stats()["f"]["counts"]["deaths"] == 0
    all_ready(sup, 2)
