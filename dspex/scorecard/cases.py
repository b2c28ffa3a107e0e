"""The cases: what is done to a pool through a `Stage`, and which facts are recorded.

Each runs in a fresh host process. Facts are seconds (`_s`, None for never), counts, and claims (`is_`); `scoring` knows
what each of them means. A case that is about the host's end prepares it here; `trial` ends it and looks from outside.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from itertools import pairwise
from typing import Any

from . import fault_kinds
from .case import CASES, Case, Ending, Facts, case
from .case_steps import (
    SECONDS,
    consequences,
    fault_at_gate,
    in_its_own_worker,
    mentions,
    past_its_deadline,
    require,
    wait_for_error,
)
from .peers import Need
from .stage import FOREVER, PATIENCE, Stage, TrialRun, TrialWatch, innocents, kill

__all__ = ["CASES", "Case", "Ending", "Facts"]

MANY = 1000  # queued calls of which nine in ten are cancelled
CAP = 192 * 1024 * 1024
OVER_CAP = 3 * CAP
TRIES = 8  # of the call that kills its worker


@case("calm", "nothing happens (each pool must hold this, or the measuring is wrong)")
def calm(stage: Stage) -> Facts:
    stage.start()
    return consequences(stage, stage.bystanders(), time.monotonic())


# -- workers that die --


@case("kill-busy", "a busy worker is killed (SIGKILL)")
def kill_busy(stage: Stage) -> Facts:
    stage.start()
    failing = stage.announced("sleep", seconds=FOREVER)
    bystanders = stage.bystanders()
    struck = kill(require(failing.pid()), signal.SIGKILL)
    return wait_for_error(failing, struck) | consequences(stage, bystanders, struck)


@case("kill-idle", "an idle worker is killed, then calls come")
def kill_idle(stage: Stage) -> Facts:
    stage.start()
    _, pids = require(stage.meet())
    struck = kill(min(pids), signal.SIGKILL)
    runs = [stage.submit("echo", n=n) for n in range(20)]
    return innocents([(run, {"n": n}) for n, run in enumerate(runs)]) | stage.aftermath(struck)


@case("segfault", "a call crashes its worker (segmentation fault)")
def segfault(stage: Stage) -> Facts:
    return in_its_own_worker(stage, "kill", signal=int(signal.SIGSEGV))


@case("exit", "a call exits its worker (os._exit)")
def exits(stage: Stage) -> Facts:
    return in_its_own_worker(stage, "exit", code=3)


@case("poison", f"a call that kills its worker is submitted {TRIES} times")
def poison(stage: Stage) -> Facts:
    stage.start()
    between: list[tuple[TrialRun, Any]] = []
    tries: list[TrialRun] = []
    for _ in range(TRIES):
        failing = stage.announced_at(stage.folder / "poison", "exit", code=3)
        failing.wait()
        tries.append(failing)
        between += [(stage.submit("echo", n=n), {"n": n}) for n in range(3)]
    facts = {"error": tries[-1].outcome, "workers_killed": len(tries[-1].pids())}
    return facts | innocents(between) | stage.aftermath(time.monotonic())


@case("no-boot", "no worker can start (its set-up code raises)", Need.BOOT_CODE)
def no_boot(stage: Stage) -> Facts:
    began = time.monotonic()
    stage.start(is_warm=False, can_boot=False)
    run = stage.submit("echo", n=1)
    return wait_for_error(run, began) | {
        "is_explained": run.ended_at is not None and mentions(run.error, fault_kinds.NO_BOOT)
    }


# -- calls that take too long, or that nobody wants any more --


@case("deadline-sleep", "a call sleeps past its deadline", Need.DEADLINE)
def deadline_sleep(stage: Stage) -> Facts:
    return past_its_deadline(stage, "sleep")


@case("deadline-python", "a call computes past its deadline", Need.DEADLINE)
def deadline_python(stage: Stage) -> Facts:
    return past_its_deadline(stage, "spin")


@case("deadline-c", "a call holds the GIL in C past its deadline", Need.DEADLINE)
def deadline_c(stage: Stage) -> Facts:
    return past_its_deadline(stage, "spin_c")


@case("deadline-stopped", "a worker is suspended (SIGSTOP) past its call's deadline", Need.DEADLINE)
def deadline_stopped(stage: Stage) -> Facts:
    return past_its_deadline(stage, "kill", signal=int(signal.SIGSTOP))


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
    failing = stage.announced("spin", seconds=FOREVER)
    bystanders, watch = stage.bystanders(), TrialWatch(failing.pid())
    struck = time.monotonic()
    failing.future.cancel()
    failing.wait()
    return {"error": failing.outcome} | consequences(stage, bystanders, struck, watch)


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
    bystanders = stage.bystanders()
    signal.signal(signal.SIGINT, lambda *_: None)
    struck = time.monotonic()
    os.killpg(0, signal.SIGINT)
    return consequences(stage, bystanders, struck)


# -- memory and load --


@case("memory", "a call allocates three times the memory cap", Need.MEMORY_CAP)
def memory(stage: Stage) -> Facts:
    stage.start(memory_cap=CAP)
    return fault_at_gate(stage, "allocate", bytes=OVER_CAP, seconds=FOREVER)


@case("memory-child", "a child process of a call does", Need.MEMORY_CAP)
def memory_child(stage: Stage) -> Facts:
    stage.start(memory_cap=CAP)
    return fault_at_gate(stage, "spawn_allocate", bytes=OVER_CAP, seconds=FOREVER)


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
    bystanders = stage.bystanders()
    struck = time.monotonic()
    failing = stage.submit("echo", value=threading.Lock())
    return wait_for_error(failing, struck) | consequences(stage, bystanders, struck)


@case("bad-exception", "a call raises an exception that cannot be unpickled")
def bad_exception(stage: Stage) -> Facts:
    return in_its_own_worker(stage, "raise_broken", text="surrogates")


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
