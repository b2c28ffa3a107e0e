"""Process: cancels are obeyed however much else a worker has to read and to do (RULES K)."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from dspex.errors import CallTimeout
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, eventually, pids


def test_python_code_is_interrupted_while_its_worker_is_spoken_to_all_the_time(supervise: Supervise) -> None:
    """Process (K2): calls that come more often than every 100 ms do not put the interrupt off; the worker stays."""
    sup = supervise(size=1, concurrency=8, cancel_grace=10.0)
    before = pids(sup)
    is_over = threading.Event()

    def chat() -> int:
        answers = 0
        while not is_over.is_set():
            sup.call("f", "echo", {"n": answers})
            answers += 1
        return answers

    chatting = [Caller(chat) for _ in range(2)]
    for _ in range(3):
        with pytest.raises(CallTimeout):
            sup.call("f", "spin", {"seconds": 60.0}, timeout=0.05)
        eventually(lambda: sup.stats()["f"]["workers"][0]["abandoned"] == 0, within=5.0, what="the spin has ended")
    is_over.set()
    assert sum(caller.outcome() for caller in chatting) > 0
    assert pids(sup) == before


def test_a_stray_signal_interrupts_nobody(supervise: Supervise) -> None:
    """Process (C15): the handler raises for the call that was cancelled alone; a signal that comes late hits nobody."""
    sup = supervise(size=1, concurrency=1)
    worker = sup.call("f", "ping")["pid"]  # it has begun to serve, and so has its handler
    for command, arguments in (("spin", {"seconds": 0.5}), ("sleep", {"seconds": 0.5})):
        caller = Caller(sup.call, "f", command, arguments)
        eventually(lambda: sup.stats()["f"]["in_flight"] == 1)
        while caller.is_alive():
            os.kill(worker, signal.SIGUSR1)
            threading.Event().wait(0.002)
        assert caller.outcome() >= 0.5
    assert pids(sup) == [worker]
