"""Chaos: each fault under 64 callers: who hears of it, how soon, and that nothing of it is left.

The plan of each test (who is hit, when, with what) is drawn from a seed that is printed.
"""

from __future__ import annotations

import os
import signal
import struct
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dspex.errors import CallTimeout, DspexError, FrameTooLarge, PoisonCall, ProtocolError, RemoteError, WorkerDied
from tests.support.chaos.callers import Company, unharmed
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, all_ready, eventually, is_alive, pids

HEADER = struct.Struct(">I")
SIZE, CONCURRENCY = 3, 8
MOST = CONCURRENCY  # calls that one worker's end may cost
BOUND = 5.0  # seconds: generous, for what takes milliseconds


def test_a_killed_busy_worker_costs_its_own_calls_only(supervise: Supervise, seeded: Random) -> None:
    """Chaos (scorecard 1): ten kills; each costs at most the calls of that worker, typed, and capacity comes back."""
    sup = supervise(size=SIZE)
    with unharmed(sup, SIZE), Company(sup, seeded) as company:
        for _ in range(10):
            victim = seeded.choice(all_ready(sup, SIZE))
            os.kill(victim, signal.SIGKILL)
            eventually(lambda victim=victim: victim not in pids(sup), within=BOUND)
            company.goes_on()
    assert set(company.heard()) <= {"WorkerDied"}
    assert len(company.errors) <= 10 * MOST
    for error in company.errors:
        assert isinstance(error, WorkerDied)
        assert (error.signal, error.cause) in ((signal.SIGKILL, "died"), (None, "died"), (signal.SIGKILL, "killed"))


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_other_ends_of_a_worker_under_load(supervise: Supervise, seeded: Random, number: int) -> None:
    """Chaos (DESIGN §6): a crash costs its own worker's calls; suspects that come again run alone and answer."""
    sup = supervise(size=SIZE)
    with unharmed(sup, SIZE), Company(sup, seeded) as company:
        with pytest.raises(WorkerDied) as caught:
            sup.call("f", "kill", {"signal": int(number)})
        assert caught.value.signal == number
        company.goes_on()
    assert set(company.heard()) <= {"WorkerDied"}
    assert len(company.errors) < MOST


def test_an_idle_workers_death_costs_nothing(supervise: Supervise, seeded: Random) -> None:
    """Chaos (scorecard 2): ten deaths of idle workers, each followed by calls at once; nobody hears of any."""
    sup = supervise(size=2)
    with unharmed(sup, 2):
        for n in range(10):
            os.kill(seeded.choice(all_ready(sup, 2)), signal.SIGKILL)
            for k in range(20):
                assert sup.call("f", "echo", {"n": n, "k": k}, idempotent=True) == {"n": n, "k": k}


def test_the_grandchildren_of_a_killed_worker_go_with_it(supervise: Supervise, seeded: Random) -> None:
    """Chaos (scorecard 8): children in its group, in a session of their own and daemonized; soon, and noticed soon."""
    sup = supervise(size=1)
    with unharmed(sup, 1):
        below = [sup.call("f", "spawn", {"seconds": 600, "detach": detach}) for detach in (False, True)]
        below.append(sup.call("f", "daemonize", {"seconds": 600}))
        assert all(map(is_alive, below))
        began = time.monotonic()
        caller = Caller(sup.call, "f", "kill", {"signal": 9})
        with pytest.raises(WorkerDied):
            caller.outcome()
        assert time.monotonic() - began < BOUND
        eventually(lambda: not any(map(is_alive, below)), within=BOUND)


def test_a_stopped_worker_costs_its_calls_their_deadline(supervise: Supervise, seeded: Random) -> None:
    """Chaos (scorecard 9): SIGSTOP under load: its calls end at their deadline, then it is killed and replaced."""
    sup = supervise(size=SIZE, cancel_grace=0.3)
    with unharmed(sup, SIZE), Company(sup, seeded, timeout=1.0) as company:
        victim = seeded.choice(all_ready(sup, SIZE))
        os.kill(victim, signal.SIGSTOP)
        eventually(lambda: not is_alive(victim), within=1.0 + 0.3 + BOUND)
        company.goes_on()
    assert set(company.heard()) <= {"CallTimeout", "WorkerDied"}
    assert 0 < len(company.errors) <= 2 * MOST


def test_code_in_c_is_killed_after_its_deadline(supervise: Supervise, seeded: Random) -> None:
    """Chaos (scorecard 10): the GIL held for a minute: freed at the deadline, killed a grace later; no thread stays."""
    sup = supervise(size=SIZE, cancel_grace=0.3)
    with unharmed(sup, SIZE), Company(sup, seeded) as company:
        began = time.monotonic()
        with pytest.raises(CallTimeout):
            sup.call("f", "spin_c", {"seconds": 60.0}, timeout=1.0)
        assert 0.9 < time.monotonic() - began < 1.0 + BOUND
        company.goes_on()
    assert set(company.heard()) <= {"WorkerDied"}
    assert all(error.cause == "neighbour" for error in company.errors if isinstance(error, WorkerDied))
    assert len(company.errors) < MOST


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("print", {"text": "x" * 10_000}),
        ("write_fd1", {"text": "y" * 10_000}),
        ("shell", {"command": "head -c 100000 /dev/zero | tr '\\0' z; head -c 100000 /dev/zero | tr '\\0' z >&2"}),
        ("flood_stderr", {"bytes": 100_000_000}),
    ],
)
def test_output_of_all_kinds_disturbs_nobody(
    supervise: Supervise, seeded: Random, command: str, arguments: dict[str, Any]
) -> None:
    """Chaos (scorecard 13, 14): prints, descriptor 1, a subprocess, and 100 MB on stderr; no call fails or stalls."""
    sup = supervise(size=SIZE)
    with unharmed(sup, SIZE), Company(sup, seeded) as company:
        sup.call("f", command, arguments, timeout=60)
        company.goes_on()
    assert company.errors == []
    assert max(company.seconds) < BOUND


@pytest.mark.parametrize("kind", ["noise", "oversize", "truncated", "half", "bomb"])
def test_what_is_no_protocol_costs_one_worker(supervise: Supervise, seeded: Random, kind: str) -> None:
    """Chaos (scorecard 15, 17): noise, a size beyond the limit, a frame cut off by an exit, a header and silence."""
    bomb = b"\xdd" + struct.pack(">I", 3_000_000) + b"\x80" * 3_000_000
    arguments: dict[str, dict[str, Any]] = {
        "noise": {"data": b"\xff" + seeded.randbytes(63)},
        "oversize": {"data": HEADER.pack(17 * 1024 * 1024) + seeded.randbytes(100)},
        "truncated": {"data": HEADER.pack(1000) + seeded.randbytes(10), "exit": True},
        "half": {"data": HEADER.pack(10_000_000) + seeded.randbytes(10)},
        "bomb": {"data": HEADER.pack(len(bomb)) + bomb},
    }
    sup = supervise(size=SIZE, cancel_grace=0.3)
    with unharmed(sup, SIZE), Company(sup, seeded, timeout=3.0) as company:
        began = time.monotonic()
        with pytest.raises((ProtocolError, WorkerDied, CallTimeout)) as caught:
            sup.call("f", "garbage", arguments[kind], timeout=1.0)
        assert time.monotonic() - began < 1.0 + BOUND
        company.goes_on()
    expected = {"truncated": WorkerDied, "half": (CallTimeout, ProtocolError)}.get(kind, ProtocolError)
    assert isinstance(caught.value, expected)
    assert set(company.heard()) <= {"ProtocolError", "WorkerDied", "CallTimeout"}
    assert len(company.errors) <= 2 * MOST
    assert sup.stats()["f"]["poison"] == {}


def test_values_over_the_limits_are_refused_by_their_sender(supervise: Supervise, seeded: Random) -> None:
    """Chaos (scorecard 16): a 300 MB result and a 100 MB argument; both are errors of their call alone."""
    sup = supervise(size=SIZE)
    with unharmed(sup, SIZE), Company(sup, seeded) as company:
        before = pids(sup)
        with pytest.raises(FrameTooLarge) as result:
            sup.call("f", "payload", {"bytes": 300_000_000}, timeout=60)
        with pytest.raises(FrameTooLarge) as argument:
            sup.call("f", "echo", {"blob": bytes(100_000_000)})
        company.goes_on()
        assert pids(sup) == before
    assert (result.value.side, argument.value.side) == ("worker", "parent")
    assert company.errors == []


@pytest.mark.parametrize("kind", ["set", "cycle", "object"])
def test_a_result_that_cannot_cross_fails_alone(supervise: Supervise, seeded: Random, kind: str) -> None:
    """Chaos (scorecard 18): its call gets the error; the worker goes on."""
    sup = supervise(size=SIZE)
    with unharmed(sup, SIZE), Company(sup, seeded) as company:
        before = pids(sup)
        with pytest.raises(DspexError):
            sup.call("f", "unsendable", {"kind": kind})
        company.goes_on(100)
        assert pids(sup) == before
    assert company.errors == []


def test_a_poison_call_kills_few_workers_and_harms_few(supervise: Supervise, seeded: Random) -> None:
    """Chaos (scorecard 22): sent again and again, it ends one worker in company and two alone, then it is refused."""
    sup = supervise(size=SIZE, restart_budget=(3, 60.0))
    with unharmed(sup, SIZE), Company(sup, seeded) as company:
        heard = []
        for _ in range(8):
            with pytest.raises((WorkerDied, PoisonCall)) as caught:
                sup.call("f", "exit", {"code": 77}, timeout=30)
            heard.append(type(caught.value).__name__)
        company.goes_on()
        assert sup.stats()["f"]["counts"]["deaths"] <= 3
    assert heard.count("WorkerDied") <= 3
    assert heard[-5:] == ["PoisonCall"] * 5
    assert set(company.heard()) <= {"WorkerDied"}
    assert len(company.errors) < MOST


def test_user_errors_under_load_cost_nothing(supervise: Supervise, seeded: Random) -> None:
    """Chaos (DESIGN §6): a hundred exceptions of every kind; each reaches its caller, no worker is replaced."""
    kinds = ["ValueError", "SystemExit", "KeyboardInterrupt", "RecursionError", "GeneratorExit", "OSError"]
    sup = supervise(size=SIZE)
    with unharmed(sup, SIZE), Company(sup, seeded) as company:
        before = pids(sup)
        for n in range(100):
            kind = seeded.choice(kinds)
            with pytest.raises(RemoteError) as caught:
                sup.call("f", "raise_error", {"type": kind, "message": f"number {n}"})
            assert (caught.value.type, caught.value.message) == (kind, f"number {n}")
        assert pids(sup) == before
    assert company.errors == []


BUSY_IMPORT = """
import ctypes
from dspex_worker.bridge import Bridge
ctypes.PyDLL(None).usleep({microseconds})
bridge = Bridge("slow")
"""


@pytest.mark.parametrize("start_method", ["fork", "exec"])
def test_a_slow_import_that_holds_the_gil_is_no_failure(
    supervise: Supervise, tmp_path: Path, start_method: str
) -> None:
    """Chaos (scorecard 24): two seconds in C at import; nothing takes the silence for a death."""
    script = tmp_path / "slow_bridge.py"
    script.write_text(BUSY_IMPORT.format(microseconds=2_000_000))
    sup = supervise(size=1, bridge=str(script), start_method=start_method, startup_timeout=60.0)
    assert sup.call("f", "ping")["generation"] == 1
    assert sup.stats()["f"]["counts"]["deaths"] == 0


NO_FORK = """
import errno, os, pathlib
from dspex_worker.bridge import Bridge
bridge = Bridge("nofork")
flag, fork = pathlib.Path({flag!r}), os.fork

def refuse():
    if flag.exists():
        raise OSError(errno.EAGAIN, "no more processes")
    return fork()

os.fork = refuse
"""


def test_a_machine_that_cannot_fork_keeps_what_it_has(supervise: Supervise, tmp_path: Path) -> None:
    """Chaos (scorecard 33): EAGAIN in the fork server: the living serve, the pool is whole again when it may fork."""
    script, flag = tmp_path / "nofork_bridge.py", tmp_path / "full"
    script.write_text(NO_FORK.format(flag=str(flag)))
    sup = supervise(size=2, bridge=str(script), restart_budget=(100, 1.0))
    survivor, victim = all_ready(sup, 2)
    flag.touch()
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: "no more processes" in (sup.stats()["f"]["last_boot_error"] or ""), what="the refusal is known")
    for n in range(50):
        assert sup.call("f", "echo", {"n": n}) == {"n": n}
    assert pids(sup) == [survivor]
    flag.unlink()
    all_ready(sup, 2)
