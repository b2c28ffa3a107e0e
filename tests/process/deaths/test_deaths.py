"""Process: a worker that dies takes only its own calls with it, and is replaced."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from pathlib import Path

import pytest

from dspex.errors import PoisonCall, WorkerDied
from dspex.events import Event, Name
from dspex.pools import reaper
from tests.support.supervisors import Supervise
from tests.support.waiting import (
    SOON,
    Caller,
    Gate,
    all_ready,
    eventually,
    forkserver_pid,
    freeze,
    is_alive,
    lines,
    pids,
)


@pytest.mark.parametrize(
    ("command", "arguments", "signal_number", "exit_code", "cause"),
    [
        ("exit", {"code": 3}, None, 3, "exited"),
        ("exit", {"code": 0}, None, 0, "exited"),
        ("kill", {"signal": 9}, signal.SIGKILL, None, "killed"),
        ("kill", {"signal": 11}, signal.SIGSEGV, None, "crashed"),
        ("kill", {"signal": 6}, signal.SIGABRT, None, "crashed"),
    ],
    ids=["exit 3", "exit 0", "SIGKILL", "segfault", "abort"],
)
def test_the_error_says_how_the_worker_died(
    supervise: Supervise, command: str, arguments: dict[str, int], signal_number: int, exit_code: int, cause: str
) -> None:
    """Process (DESIGN §6, T3): WorkerDied with pid, signal or exit code, and cause; then a new worker serves."""
    sup = supervise(size=1)
    (pid,) = pids(sup)
    with pytest.raises(WorkerDied) as caught:
        sup.call("f", command, arguments)
    error = caught.value
    assert (error.pid, error.signal, error.exit_code, error.cause) == (pid, signal_number, exit_code, cause)
    assert error.started == "unknown"
    assert error.retryable == "if_idempotent"
    assert sup.call("f", "ping")["generation"] == 2


def test_a_segfault_leaves_its_stack_in_the_error(supervise: Supervise) -> None:
    """Process (T05): faulthandler's dump and what was printed are in stderr_tail, and not in str(error)."""
    sup = supervise(size=1)
    sup.call("f", "print", {"text": "last words"})
    with pytest.raises(WorkerDied) as caught:
        sup.call("f", "kill", {"signal": 11})
    assert "last words" in caught.value.stderr_tail
    assert "Segmentation fault" in caught.value.stderr_tail
    assert "last words" not in str(caught.value)


def test_a_call_learns_of_its_workers_death_at_once(supervise: Supervise) -> None:
    """Process (DESIGN §6): 50 ms by design; its deadline is far away."""
    sup = supervise(size=1)
    with Gate(sup) as gate:
        caller = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        began = time.monotonic()
        os.kill(pids(sup)[0], signal.SIGKILL)
        with pytest.raises(WorkerDied):
            caller.outcome()
        assert caller.ended_at - began < SOON


def test_a_death_fails_only_the_calls_of_that_worker(supervise: Supervise) -> None:
    """Process (DESIGN §6): three calls run in each of two workers; those of the living one answer."""
    sup = supervise(size=2)
    victim = all_ready(sup, 2)[0]
    with Gate(sup) as gate:
        callers = [Caller(sup.call, *gate.command) for _ in range(6)]
        gate.wait_for(6)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: sum(not caller.is_alive() for caller in callers) == 3)
        gate.open()
        answers = [caller.outcome() for caller in callers if caller.error is None and caller.outcome()]
    assert answers == ["f/1"] * 3
    assert sum(isinstance(caller.error, WorkerDied) for caller in callers) == 3


def test_an_idle_workers_death_is_seen_by_nobody(supervise: Supervise) -> None:
    """Process (scorecard 2): the next calls go to the living, and then to the successor."""
    sup = supervise(size=2)
    victim = all_ready(sup, 2)[0]
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: victim not in pids(sup))  # until then a call may still be sent there, and read by the dying
    for _ in range(50):
        sup.call("f", "ping")
    assert victim not in all_ready(sup, 2)


def test_an_idempotent_call_is_retried_once(supervise: Supervise, tmp_path: Path) -> None:
    """Process (DESIGN §6): it ran twice, and the caller got the second answer."""
    sup = supervise(size=2)
    effects = tmp_path / "effects"
    assert sup.call("f", "die_once", {"path": str(effects), "token": "a"}, idempotent=True) == 2
    assert lines(effects) == ["a", "a"]


def test_an_idempotent_call_is_not_retried_twice(supervise: Supervise) -> None:
    """Process (DESIGN §6): one retry; the second death is the caller's to hear."""
    sup = supervise(size=2)
    before = sup.stats()["f"]["counts"]["deaths"]
    with pytest.raises(WorkerDied):
        sup.call("f", "kill", {"signal": 9}, idempotent=True)
    assert eventually(lambda: sup.stats()["f"]["counts"]["deaths"]) == before + 2


def test_other_calls_never_run_twice(supervise: Supervise, tmp_path: Path) -> None:
    """Process (DESIGN §6): nothing is retried that may have started."""
    sup = supervise(size=2)
    effects = tmp_path / "effects"
    with pytest.raises(WorkerDied):
        sup.call("f", "die_once", {"path": str(effects), "token": "a"})
    assert lines(effects) == ["a"]


def test_a_call_that_its_worker_never_read_is_sent_elsewhere(supervise: Supervise) -> None:
    """Process (C8): frames still unread in the dead worker's pipe are proof; the caller sees one answer."""
    sup = supervise(size=1, concurrency=8)
    (pid,) = pids(sup)
    freeze(pid)  # it reads nothing from here on
    callers = [Caller(sup.call, "f", "echo", {"n": n}) for n in range(4)]
    eventually(lambda: sup.stats()["f"]["in_flight"] == 4)
    os.kill(pid, signal.SIGKILL)
    assert [caller.outcome() for caller in callers] == [{"n": n} for n in range(4)]
    assert pids(sup) != [pid]


def test_a_half_written_frame_is_sent_elsewhere(supervise: Supervise) -> None:
    """Process (C8): a frame that never fitted into the pipe cannot have begun."""
    sup = supervise(size=1, concurrency=8)
    (pid,) = pids(sup)
    freeze(pid)
    caller = Caller(sup.call, "f", "echo", {"data": bytes(8_000_000)})
    eventually(lambda: sup.stats()["f"]["in_flight"] == 1)
    os.kill(pid, signal.SIGKILL)
    assert len(caller.outcome()["data"]) == 8_000_000


def test_the_dead_workers_group_is_gone(supervise: Supervise) -> None:
    """Process (T3, scorecard 8): its children end with it, in its session or in one of their own."""
    sup = supervise(size=1)
    (pid,) = pids(sup)
    children = [sup.call("f", "spawn", {"seconds": 300, "detach": detach}) for detach in (False, True)]
    assert all(map(is_alive, children))
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, children)), what="its children are gone")


def test_a_living_workers_daemons_survive_their_neighbours_death(supervise: Supervise) -> None:
    """Process (T2, T3): workers adopt their own orphans, so the sweep after a death spares those of the living."""
    sup = supervise(size=2, concurrency=1)
    first, second = all_ready(sup, 2)
    with Gate(sup) as gate:
        Caller(sup.call, *gate.command)
        gate.wait_for(1)
        daemon = sup.call("f", "daemonize", {"seconds": 300})
        busy = first if gate.arrived == ["f/0"] else second
        os.kill(busy, signal.SIGKILL)
        eventually(lambda: busy not in all_ready(sup, 2))
    assert is_alive(daemon)
    sup.stop(grace=0.0)
    eventually(lambda: not is_alive(daemon), what="it ends with its own worker")


def test_a_call_that_kills_its_worker_twice_alone_is_poison(supervise: Supervise) -> None:
    """Process (C7b): it kills two workers; then PoisonCall at once, and other arguments still run."""
    sup = supervise(size=1)
    for _ in range(2):
        with pytest.raises(WorkerDied):
            sup.call("f", "exit", {"code": 7})
    with pytest.raises(PoisonCall) as caught:
        sup.call("f", "exit", {"code": 7})
    assert caught.value.strikes == 2
    assert caught.value.until > time.monotonic() + 500
    assert sup.call("f", "echo", {"fine": 1}) == {"fine": 1}
    assert caught.value.digest in sup.stats()["f"]["poison"]


def test_a_poison_call_can_be_forgiven(supervise: Supervise) -> None:
    """Process (C7b): `pool.forgive(digest)` ends the quarantine."""
    sup = supervise(size=1)
    for _ in range(2):
        with pytest.raises(WorkerDied):
            sup.call("f", "exit", {"code": 7})
    with pytest.raises(PoisonCall) as caught:
        sup.call("f", "exit", {"code": 7})
    assert sup.pool("f").forgive(caught.value.digest)
    with pytest.raises(WorkerDied):
        sup.call("f", "exit", {"code": 7})


def test_kills_from_outside_do_not_count(supervise: Supervise) -> None:
    """Process (C7b): the same call may lose its worker to SIGKILL as often as the operator likes."""
    sup = supervise(size=1)
    for _ in range(3):
        with Gate(sup) as gate:
            caller = Caller(sup.call, *gate.command)
            gate.wait_for(1)
            os.kill(pids(sup)[0], signal.SIGKILL)
            with pytest.raises(WorkerDied):
                caller.outcome()
            all_ready(sup, 1)
    assert sup.stats()["f"]["poison"] == {}


def test_poison_does_not_burn_the_restart_budget(supervise: Supervise) -> None:
    """Process (DESIGN §6): different poisons, more deaths than the budget allows workers that cannot live."""
    sup = supervise(size=1, restart_budget=(3, 30.0))
    for code in range(3):
        for _ in range(2):
            sup.call("f", "ping")
            with pytest.raises(WorkerDied):
                sup.call("f", "exit", {"code": code})
    assert sup.call("f", "ping")["generation"] == 7


def test_a_suspect_that_answers_alone_is_cleared(supervise: Supervise) -> None:
    """Process (C7b): innocent company of a call that crashed its worker runs alone next, and is then cleared."""
    sup = supervise(size=1)
    with Gate(sup) as gate:
        innocent = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        with pytest.raises(WorkerDied):
            sup.call("f", "exit", {"code": 9})
        with pytest.raises(WorkerDied):
            innocent.outcome()
        gate.open()
        for _ in range(3):
            assert sup.call(*gate.command) == "f/0"
    assert sup.stats()["f"]["poison"] == {}


def test_deaths_are_told_to_subscribers(supervise: Supervise) -> None:
    """Process: `on_event` hears of the death and of the successor, with pool, slot and generation."""
    sup = supervise(size=1)
    heard = []
    sup.on_event(heard.append)
    with pytest.raises(WorkerDied):
        sup.call("f", "exit", {"code": 1})
    eventually(lambda: [e for e in heard if e.name is Name.WORKER_READY and e.facts["generation"] == 2])
    (died,) = [e for e in heard if e.name is Name.WORKER_DIED]
    assert died.facts["generation"] == 1


def test_a_reply_that_was_written_before_the_death_counts(supervise: Supervise) -> None:
    """Process (C9): the reply pipe is drained before the rest fails; thirty deaths right after a reply."""
    sup = supervise(size=1)
    for n in range(30):
        for _ in range(10):  # a worker that has worked is replaced at once
            sup.call("f", "ping")
        assert sup.call("f", "reply_then_die", {"n": n}) == n
        eventually(lambda n=n: sup.stats()["f"]["counts"]["deaths"] == n + 1)


def test_a_stopped_worker_is_replaced_after_the_deadline(supervise: Supervise) -> None:
    """Process (K4, scorecard 9): SIGSTOP in mid-call: the caller is freed at its deadline, the worker is killed."""
    sup = supervise(size=1, cancel_grace=0.2)
    before = pids(sup)
    with Gate(sup) as gate:
        caller = Caller(sup.call, *gate.command, timeout=0.5)
        gate.wait_for(1)
        freeze(before[0])
        with pytest.raises(TimeoutError):
            caller.outcome()
    eventually(lambda: (now := pids(sup)) and now != before)


def test_without_descriptors_the_living_serve_and_the_dead_come_back(supervise: Supervise) -> None:
    """Process (scorecard 33): no successor can be started at the limit; it is once there is room again."""
    sup = supervise(size=2)
    victim = all_ready(sup, 2)[0]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest - 4, hard))
    try:
        os.kill(victim, signal.SIGKILL)
        for n in range(200):
            assert sup.call("f", "echo", {"n": n}, idempotent=True) == {"n": n}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert victim not in all_ready(sup, 2)


def test_the_event_of_a_death_says_whose_it_was_and_how_it_ended(supervise: Supervise) -> None:
    """Process: what an operator needs to find the worker in other logs; a planned end is no death."""
    sup = supervise(size=1)
    events: list[Event] = []
    sup.on_event(events.append)
    (pid,) = pids(sup)
    with pytest.raises(WorkerDied):
        sup.call("f", "exit", {"code": 7})
    sup.pool("f").recycle(timeout=20)
    sup.flush_events()
    (death,) = [event for event in events if event.name == Name.WORKER_DIED]
    expected = {"worker": "f/0", "pid": pid, "generation": 1, "cause": "exited", "exit_code": 7, "calls": 1}
    assert {key: death.facts[key] for key in expected} == expected
    (stop,) = [event for event in events if event.name == Name.WORKER_STOPPED]
    assert stop.facts["reason"] == "recycled" and stop.facts["pid"] not in (0, pid)
    counts = sup.stats()["f"]["counts"]
    assert (counts["deaths"], counts["stops"]) == (1, 1)


def test_how_a_worker_died_is_known_though_its_forkserver_is_slow(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process (T3, C7b): the kernel knows until the worker is reaped; else a poisonous call would not be blamed."""
    monkeypatch.setattr(reaper, "EXIT_PATIENCE", 0.02)
    sup = supervise(size=2)
    all_ready(sup, 2)
    freeze(forkserver_pid(sup))
    with pytest.raises(WorkerDied) as caught:
        sup.call("f", "exit", {"code": 5})
    assert (caught.value.exit_code, caught.value.cause) == (5, "exited")
    with pytest.raises(WorkerDied) as caught:
        sup.call("f", "kill", {"signal": int(signal.SIGSEGV)})
    assert (caught.value.signal, caught.value.cause) == (signal.SIGSEGV, "crashed")
    all_ready(sup, 2)


def test_calls_wait_where_a_forkserver_ends_before_it_has_made_their_worker(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process (T6): nothing fails for it; the next fork server makes the worker, which is no boot failure."""
    monkeypatch.setattr(reaper, "EXIT_PATIENCE", 0.02)
    sup = supervise(size=1)
    (pid,) = all_ready(sup, 1)
    freeze(forkserver_pid(sup))
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: pid not in pids(sup), what="its successor is asked for")
    assert sup.call("f", "echo", {"n": 1}, timeout=30) == {"n": 1}
    assert sup.stats()["f"]["last_boot_error"] is None


def test_calls_handed_over_just_after_an_idle_worker_was_killed_go_elsewhere(supervise: Supervise) -> None:
    """Process (C8): its death is not seen yet, but it cannot read any more; twenty deaths, twenty calls after each."""
    sup = supervise(size=2, concurrency=16)
    for _ in range(20):
        all_ready(sup, 2)
        for _ in range(20):  # a worker that has worked is replaced at once
            sup.call("f", "ping")
        busiest = max(sup.stats()["f"]["workers"], key=lambda worker: worker["answered"])
        os.kill(busiest["pid"], signal.SIGKILL)
        callers = [Caller(sup.call, "f", "echo", {"n": n}) for n in range(20)]
        assert [caller.outcome() for caller in callers] == [{"n": n} for n in range(20)]


def test_workers_that_die_together_are_buried_once(supervise: Supervise) -> None:
    """Process (C12): their fork server tells how both ended when the engine asks about the first."""
    sup = supervise(size=2, restart_budget=(100, 1.0))
    all_ready(sup, 2)
    pool = sup.pool("f")
    done, failures = threading.Event(), []

    def die_together() -> None:
        """On the engine's thread, which hears nothing meanwhile."""
        try:
            workers = tuple(pool._dispatcher.workers.values())
            for worker in workers:
                os.kill(worker.pid, signal.SIGKILL)
            for worker in workers:
                eventually(
                    lambda pid=worker.pid: not Path(f"/proc/{pid}").exists(), what="its fork server has reaped it"
                )
            for worker in workers:
                pool._pool_workers.reaper.on_death(worker)
            pool._pool_workers.reaper.reap_overdue(time.monotonic() + 60)
        except BaseException as error:
            failures.append(error)
        done.set()

    sup._engine.call_soon(die_together)
    assert done.wait(30)
    assert failures == []
    assert sup.call("f", "echo", {"n": 1}, timeout=20) == {"n": 1}
    assert len(all_ready(sup, 2)) == 2
