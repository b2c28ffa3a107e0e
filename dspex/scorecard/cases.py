"""The cases: what is done to a pool, in terms of a `Stage`, and which facts are noted.

Each runs in a fresh host process. Facts are seconds (`_s`, None for never), counts, and claims (`is_`); `scoring` knows
what each of them means. A case that is about the host's end prepares it here; `trial` ends it and looks from outside.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

from . import fault_kinds
from .peers import Need
from .stage import FOREVER, PATIENCE, Company, Stage, TrialRun, TrialWatch, innocents, kill

Facts = dict[str, Any]

SECONDS = 0.5  # a deadline that the work cannot meet
MANY = 1000  # queued calls of which nine in ten are cancelled
CAP = 192 * 1024 * 1024
OVER_CAP = 3 * CAP
TRIES = 8  # of the call that kills its worker


class Ending(StrEnum):
    """How the host's process ends, once the case has run in it."""

    WHATEVER = "whatever"  # the case has noted its facts: nobody looks
    KILLED = "killed"  # by SIGKILL; what is left of the pool is counted
    EXITS = "exits"  # its program returns; the same, and how long that took


@dataclass(frozen=True, slots=True)
class Case:
    """One fault, its words, and what a pool must have for it."""

    name: str
    title: str
    run: Callable[[Stage], Facts]
    needs: tuple[Need, ...] = ()
    ending: Ending = Ending.WHATEVER


CASES: dict[str, Case] = {}


def case(
    name: str, title: str, *needs: Need, ending: Ending = Ending.WHATEVER
) -> Callable[[Callable[[Stage], Facts]], Callable[[Stage], Facts]]:
    """Put a function on the scorecard; its place is where it stands in this file."""

    def register(run: Callable[[Stage], Facts]) -> Callable[[Stage], Facts]:
        CASES[name] = Case(name, title, run, needs, ending)
        return run

    return register


@case("calm", "nothing happens (each pool must hold this, or the measuring is wrong)")
def calm(stage: Stage) -> Facts:
    stage.start()
    return _rest(stage, stage.company(), time.monotonic())


# -- workers that die --


@case("kill-busy", "a busy worker is killed (SIGKILL)")
def kill_busy(stage: Stage) -> Facts:
    stage.start()
    doomed = stage.announced("sleep", seconds=FOREVER)
    company = stage.company()
    struck = kill(require(doomed.pid()), signal.SIGKILL)
    return _told(doomed, struck) | _rest(stage, company, struck)


@case("kill-idle", "an idle worker is killed, then calls come")
def kill_idle(stage: Stage) -> Facts:
    stage.start()
    _, pids = require(stage.meet())
    struck = kill(min(pids), signal.SIGKILL)
    runs = [stage.submit("echo", n=n) for n in range(20)]
    return innocents([(run, {"n": n}) for n, run in enumerate(runs)]) | stage.aftermath(struck)


@case("segfault", "a call crashes its worker (segmentation fault)")
def segfault(stage: Stage) -> Facts:
    return _own_fault(stage, "kill", signal=int(signal.SIGSEGV))


@case("exit", "a call exits its worker (os._exit)")
def exits(stage: Stage) -> Facts:
    return _own_fault(stage, "exit", code=3)


@case("poison", f"a call that kills its worker is submitted {TRIES} times")
def poison(stage: Stage) -> Facts:
    stage.start()
    between: list[tuple[TrialRun, Any]] = []
    for _ in range(TRIES):
        doomed = stage.announced_at(stage.folder / "poison", "exit", code=3)
        doomed.wait()
        between += [(stage.submit("echo", n=n), {"n": n}) for n in range(3)]
    facts = {"error": doomed.outcome, "workers_killed": len(doomed.pids())}
    return facts | innocents(between) | stage.aftermath(time.monotonic())


@case("no-boot", "no worker can start (its set-up code raises)", Need.BOOT_CODE)
def no_boot(stage: Stage) -> Facts:
    began = time.monotonic()
    stage.start(is_warm=False, can_boot=False)
    run = stage.submit("echo", n=1)
    return _told(run, began) | {"is_explained": run.ended_at is not None and _mentions(run.error, fault_kinds.NO_BOOT)}


# -- calls that take too long, or that nobody wants any more --


@case("deadline-sleep", "a call sleeps past its deadline", Need.DEADLINE)
def deadline_sleep(stage: Stage) -> Facts:
    return _deadline(stage, "sleep")


@case("deadline-python", "a call computes past its deadline", Need.DEADLINE)
def deadline_python(stage: Stage) -> Facts:
    return _deadline(stage, "spin")


@case("deadline-c", "a call holds the GIL in C past its deadline", Need.DEADLINE)
def deadline_c(stage: Stage) -> Facts:
    return _deadline(stage, "spin_c")


@case("deadline-stopped", "a worker is suspended (SIGSTOP) past its call's deadline", Need.DEADLINE)
def deadline_stopped(stage: Stage) -> Facts:
    return _deadline(stage, "kill", signal=int(signal.SIGSTOP))


@case("deadline-queued", "a queued call's deadline passes", Need.QUEUE_DEADLINE)
def deadline_queued(stage: Stage) -> Facts:
    stage.start(workers=1)
    gate = stage.gate()
    holder = stage.announced(gate=gate)
    holder.pid()
    waiting = stage.announced(timeout=SECONDS)
    waiting.wait(SECONDS + PATIENCE)
    gate.touch()
    holder.wait()
    facts = {"error": waiting.outcome, "late_s": waiting.seconds_since(waiting.submitted_at + SECONDS)}
    return facts | stage.aftermath(time.monotonic()) | {"ran_anyway": len(waiting.pids())}


@case("cancel-running", "a running call is cancelled", Need.CANCEL_RUNNING)
def cancel_running(stage: Stage) -> Facts:
    stage.start()
    doomed = stage.announced("spin", seconds=FOREVER)
    company, watch = stage.company(), TrialWatch(doomed.pid())
    struck = time.monotonic()
    doomed.future.cancel()
    doomed.wait()
    return {"error": doomed.outcome} | _rest(stage, company, struck, watch)


@case("cancel-queued", f"900 of {MANY} queued calls are cancelled")
def cancel_queued(stage: Stage) -> Facts:
    stage.start(workers=1)
    gate, path = stage.gate(), stage.folder / "ran"
    holder = stage.announced(gate=gate)
    holder.pid()
    runs = [stage.submit("effect", path=str(path), token=str(n)) for n in range(MANY)]
    began = time.monotonic()
    refused = sum(not run.future.cancel() for n, run in enumerate(runs) if n % 10)
    stage.peer.settle()
    took = time.monotonic() - began
    gate.touch()
    staying = [run for run in runs if not run.future.cancelled()]
    facts = innocents([(run, None) for run in staying])
    stage.submit("echo", n=0).wait()
    ran = [int(line) for line in path.read_text().splitlines()] if path.exists() else []
    return facts | {
        "cancel_s": took,
        "refused": refused,
        "ran_anyway": sum(runs[n].future.cancelled() for n in ran),
        "misplaced": sum(later < earlier for earlier, later in pairwise(ran)),
    }


@case("interrupt", "Ctrl-C reaches the whole process group, and the host handles it")
def interrupt(stage: Stage) -> Facts:
    stage.start()
    company = stage.company()
    signal.signal(signal.SIGINT, lambda *_: None)
    struck = time.monotonic()
    os.killpg(0, signal.SIGINT)
    return _rest(stage, company, struck)


# -- memory and load --


@case("memory", "a call allocates three times the memory cap", Need.MEMORY_CAP)
def memory(stage: Stage) -> Facts:
    stage.start(memory_cap=CAP)
    return _strike_by_gate(stage, "allocate", bytes=OVER_CAP, seconds=FOREVER)


@case("memory-child", "a child process of a call does", Need.MEMORY_CAP)
def memory_child(stage: Stage) -> Facts:
    stage.start(memory_cap=CAP)
    return _strike_by_gate(stage, "spawn_allocate", bytes=OVER_CAP, seconds=FOREVER)


@case("queue-bound", "1000 calls for a queue that may hold 100", Need.QUEUE_LIMIT)
def queue_bound(stage: Stage) -> Facts:
    stage.start(workers=1, queue_limit=100)
    gate = stage.gate()
    holder = stage.announced(gate=gate)
    holder.pid()
    runs = [stage.submit("echo", n=n) for n in range(MANY)]
    stage.peer.settle()
    refused = [run for run in runs if run.ended_at is not None]
    gate.touch()
    taken: list[tuple[TrialRun, Any]] = [(run, {"n": n}) for n, run in enumerate(runs) if run not in refused]
    facts = {"error": refused[0].outcome if refused else "nothing", "refused": len(refused)}
    return facts | innocents(taken) | {"is_bounded": len(taken) == 100}


# -- values, output, threads --


@case("bad-argument", "an argument cannot be sent (a lock)")
def bad_argument(stage: Stage) -> Facts:
    stage.start()
    company = stage.company()
    struck = time.monotonic()
    doomed = stage.submit("echo", value=threading.Lock())
    return _told(doomed, struck) | _rest(stage, company, struck)


@case("bad-exception", "a call raises an exception that cannot be unpickled")
def bad_exception(stage: Stage) -> Facts:
    return _own_fault(stage, "raise_broken", text="surrogates")


@case("noise", "calls print, also to descriptor 1 itself")
def noise(stage: Stage) -> Facts:
    stage.start()
    loud = [stage.submit("print", text="noise"), stage.submit("write_fd1", text="noise\n")]
    quiet = [stage.submit("echo", n=n) for n in range(10)]
    expected = [(loud[0], None), (loud[1], len("noise\n")), *((run, {"n": n}) for n, run in enumerate(quiet))]
    return innocents(expected) | stage.aftermath(time.monotonic())


@case("held-lock", "a thread of the host holds a library's lock while the pool starts")
def held_lock(stage: Stage) -> Facts:
    with fault_kinds.module().lock:
        stage.start()
    runs = [stage.submit("take_lock", patience=1.0) for _ in range(2)]
    return innocents([(run, True) for run in runs])


# -- the host's end --


@case(
    "host-killed", "the host is killed (SIGKILL); workers hold the GIL, children left their group", ending=Ending.KILLED
)
def host_killed(stage: Stage) -> Facts:
    stage.start()
    for fault in ("spawn", "daemonize"):
        more = {"detach": True} if fault == "spawn" else {}
        stage.submit(fault, seconds=FOREVER, **more).wait()
    for run in [stage.announced("spin_c", seconds=FOREVER) for _ in range(2)]:
        run.pid()
    return {}


@case("host-exits", "the host's program ends with two calls running and ten queued", ending=Ending.EXITS)
def host_exits(stage: Stage) -> Facts:
    stage.start()
    for run in [stage.announced("sleep", seconds=FOREVER) for _ in range(2)]:
        run.pid()
    for n in range(10):
        stage.submit("echo", n=n)
    return {}


# ======================================================================================================================


def _own_fault(stage: Stage, fault: str, **arguments: Any) -> Facts:
    """A call does it to its own worker, while a neighbour runs and others wait."""
    stage.start()
    return _strike_by_gate(stage, fault, **arguments)


def _strike_by_gate(stage: Stage, fault: str, **arguments: Any) -> Facts:
    gate = stage.gate()
    doomed = stage.announced(fault, gate=gate, **arguments)
    company = stage.company()
    struck = time.monotonic()
    gate.touch()
    return _told(doomed, struck) | _rest(stage, company, struck)


def _deadline(stage: Stage, fault: str, **arguments: Any) -> Facts:
    stage.start()
    arguments = arguments or {"seconds": FOREVER}
    doomed = stage.announced(fault, timeout=SECONDS, **arguments)
    watch, company = TrialWatch(doomed.pid()), stage.company()
    due = doomed.submitted_at + SECONDS
    doomed.wait(SECONDS + PATIENCE)
    facts = {"error": doomed.outcome, "late_s": doomed.seconds_since(due)}
    return facts | _rest(stage, company, due, watch)


def _told(doomed: TrialRun, struck: float) -> Facts:
    """Wait until the doomed call's caller is told."""
    doomed.wait()
    return {"error": doomed.outcome, "told_s": doomed.seconds_since(struck)}


def _rest(stage: Stage, company: Company, struck: float, watch: TrialWatch | None = None) -> Facts:
    """What became of the innocent, and of the pool."""
    company.release()
    after = stage.aftermath(struck, watch)
    return company.facts() | after


def _mentions(error: BaseException | None, text: str) -> bool:
    """Whether the error, what caused it, or what it holds tells that."""
    seen = 0
    while error is not None and seen < 10:
        if text in str(error) or any(text in str(value) for value in vars(error).values()):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def require(value: Any) -> Any:
    """Give what the case cannot do without."""
    if value is None:
        raise RuntimeError("the pool did not get as far as the fault")
    return value
