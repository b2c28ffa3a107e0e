"""Process: signal handlers that raise in the caller, at every point and at random ones (RULES C5, C6).

No call runs twice, no slot is lost, and nobody else's call is harmed.
"""

from __future__ import annotations

import asyncio
import dis
import functools
import itertools
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from dspex.errors import DspexError
from dspex.pools.state import invariants
from dspex.pools.supervisor import Supervisor
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, Gate, all_ready, eventually, lines

POOLS = str(Path("dspex", "pools"))


class Interrupted(Exception):
    """What the handler raises: like Celery's SoftTimeLimitExceeded, not even a BaseException."""


def _interrupt_at(step: int, run: Callable[[], object]) -> bool:
    """Run it, and raise at the `step`-th place inside dspex.pools where the interpreter may run a signal handler.

    Those are the ends of calls, the starts of functions and backward jumps. False if there are fewer.
    """
    seen = 0
    last: dict[Any, int] = {}

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal seen
        if POOLS not in frame.f_code.co_filename:
            return None
        if sys.version_info[:2] == (3, 12) and not frame.f_trace_opcodes:
            frame.f_trace_opcodes = True
            sys.settrace(trace)  # in 3.12 it is looked at when a trace function is set (gh-103615)
        frame.f_trace_opcodes = True
        if event == "opcode":
            before, last[frame] = last.get(frame), frame.f_lasti
            if before is not None and frame.f_lasti in _places(frame.f_code).get(before, ()):
                seen += 1
                if seen == step:
                    raise Interrupted
        return trace

    sys.settrace(trace)
    try:
        run()
    except Interrupted:
        return True
    finally:
        sys.settrace(None)
        last.clear()
    return False


@functools.cache
def _places(code: CodeType) -> dict[int, set[int]]:
    """From where to where a handler's exception would be raised, with the same exception handlers in force."""
    entries = dis._parse_exception_table(code)  # type: ignore[attr-defined]

    def covers(offset: int) -> list[Any]:
        return [entry for entry in entries if entry.start <= offset < entry.end]

    checked = ("CALL", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD")
    instructions = list(dis.get_instructions(code))
    following = {one.offset: two.offset for one, two in itertools.pairwise(instructions)}
    found: dict[int, set[int]] = {}
    for instruction in instructions:
        if instruction.opname in checked:
            after = instruction.argval if instruction.opname == "JUMP_BACKWARD" else following.get(instruction.offset)
            if after is not None and covers(after) == covers(instruction.offset):
                found[instruction.offset] = {after}
    return found


def _has_all_slots(sup: Supervisor, count: int) -> None:
    """As many calls as there are slots can run at the same time."""
    eventually(lambda: sup.stats()["f"]["in_flight"] == 0, what="no call is left over")
    with Gate(sup, f"gate{random.random()}") as gate:
        callers = [Caller(sup.call, *gate.command) for _ in range(count)]
        gate.wait_for(count)
        gate.open()
        for caller in callers:
            caller.outcome()
    dispatcher = sup.pool("f")._dispatcher
    with dispatcher.lock:
        invariants.check(dispatcher.state)
        assert dispatcher.live == {}


def test_an_interrupt_before_every_place_in_a_call(supervise: Supervise, tmp_path: Path) -> None:
    """Process (C5, C6): every place where a handler may run, one after another."""
    sup = supervise(size=1, concurrency=2)
    effects = tmp_path / "effects"
    step = 0
    while _interrupt_at(
        step := step + 1, lambda: sup.call("f", "effect", {"path": str(effects), "token": str(step)}, timeout=20)
    ):
        # idempotent: where the pipe itself was interrupted the worker is retired (C5), and its calls with it
        assert sup.call("f", "echo", {"n": step}, timeout=20, idempotent=True) == {"n": step}
    assert step > 60
    _has_all_slots(sup, 2)
    counted = Counter(lines(effects))
    assert max(counted.values()) == 1
    assert counted[str(step)] == 1


def test_an_interrupt_before_every_place_in_a_queued_call_that_expires(supervise: Supervise) -> None:
    """Process (C6): queued, expired, and its neighbors in the queue go on."""
    sup = supervise(size=1, concurrency=1)
    step = 0
    is_more = True
    with Gate(sup) as gate:
        holder = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        behind = Caller(sup.call, "f", "echo", {"n": 1}, timeout=60)
        while is_more:
            step += 1
            try:
                is_more = _interrupt_at(step, lambda: sup.call("f", "ping", timeout=0.1))
            except TimeoutError:
                is_more = False
        gate.open()
        holder.outcome()
        assert behind.outcome() == {"n": 1}
    assert step > 40
    _has_all_slots(sup, 1)


def test_an_interrupt_before_every_place_in_a_sessions_life(supervise: Supervise) -> None:
    """Process (C5): opening, calling in and closing a session; another session's calls wait and go on meanwhile."""
    sup = supervise(size=1, concurrency=2)
    step = 0

    def run() -> None:
        with sup.session("f", f"s{step}") as session:
            session.call("remember", {"key": "k", "value": step}, timeout=20)

    with sup.session("f", "steady", durable=True) as steady:
        while _interrupt_at(step := step + 1, run):
            steady.call("remember", {"key": "k", "value": step}, timeout=20, idempotent=True)
            assert steady.call("recall", {"key": "k"}, timeout=20, idempotent=True)["value"] == step
    assert step > 60
    _has_all_slots(sup, 2)


def test_an_interrupt_before_every_place_in_a_stream(supervise: Supervise) -> None:
    """Process (C6): the slot of a stream that was interrupted anywhere comes back."""
    sup = supervise(size=1, concurrency=2, cancel_grace=5.0)
    step = 0
    while _interrupt_at(step := step + 1, lambda: list(sup.stream("f", "count", {"n": 40}, timeout=20))):
        # idempotent: where the pipe itself was interrupted the worker is retired (C5), and its calls with it
        assert sup.call("f", "echo", {"n": step}, timeout=20, idempotent=True) == {"n": step}
    assert step > 60
    _has_all_slots(sup, 2)


@pytest.mark.parametrize("size", [10, 100_000], ids=["small frames", "large frames"])
def test_random_interrupts_under_load(supervise: Supervise, tmp_path: Path, size: int) -> None:
    """Process (C5, C6): signals at random moments of the main thread, four other threads calling all the while."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    sup = supervise(size=2, concurrency=3)
    all_ready(sup, 2)
    effects, is_over = tmp_path / "effects", threading.Event()
    is_armed = False
    answered: list[str] = []
    others: list[BaseException] = []
    padding = "x" * size

    def handler(*_: object) -> None:
        nonlocal is_armed
        if is_armed:
            is_armed = False
            raise Interrupted

    def interrupt() -> None:
        main = threading.main_thread().ident
        assert main is not None
        while not is_over.wait(chance.uniform(0.0, 0.002)):
            signal.pthread_kill(main, signal.SIGUSR2)

    def bystander(k: int) -> None:
        n = 0
        while not is_over.is_set():
            n += 1
            try:
                assert sup.call("f", "echo", {"k": [k, n]}, timeout=30) == {"k": [k, n]}
            except DspexError as error:
                others.append(error)

    before = signal.signal(signal.SIGUSR2, handler)
    helpers = [Caller(interrupt), *[Caller(bystander, k) for k in range(4)]]
    interrupted = 0
    try:
        for n in range(600):
            try:
                is_armed = True
                sup.call("f", "effect", {"path": str(effects), "token": f"t{n}", "padding": padding}, timeout=30)
                is_armed = False
                answered.append(f"t{n}")
            except Interrupted:
                interrupted += 1
            except DspexError as error:
                is_armed = False
                others.append(error)
    finally:
        is_armed = False
        is_over.set()
        for helper in helpers:
            helper.outcome(30)
        signal.signal(signal.SIGUSR2, before)
    assert interrupted > 20
    counted = Counter(lines(effects))
    assert max(counted.values()) == 1, "a command ran twice"
    assert set(answered) <= set(counted), "an answered command never ran"
    torn = [error for error in others if "interrupted in the middle of a frame" not in str(error)]
    assert torn == []
    all_ready(sup, 2)
    _has_all_slots(sup, 6)


def test_keyboard_interrupt_leaves_the_call(supervise: Supervise) -> None:
    """Process: Ctrl-C while a call runs is KeyboardInterrupt in the caller; its worker does not see the signal."""
    sup = supervise(size=1, cancel_grace=5.0)
    with Gate(sup) as gate:

        def press() -> None:
            gate.wait_for(1)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        presser = Caller(press)
        with pytest.raises(KeyboardInterrupt):
            sup.call(*gate.command)
        presser.outcome()
    eventually(lambda: sup.stats()["f"]["in_flight"] == 0)
    assert sup.stats()["f"]["counts"]["deaths"] == 0


def test_keyboard_interrupt_leaves_an_event_loop(supervise: Supervise) -> None:
    """Process: asyncio.run cancels the call, and the slot comes back."""
    sup = supervise(size=1, cancel_grace=5.0)
    with Gate(sup) as gate:

        def press() -> None:
            gate.wait_for(1)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        presser = Caller(press)
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(sup.acall(*gate.command))
        presser.outcome()
    eventually(lambda: sup.stats()["f"]["in_flight"] == 0)
