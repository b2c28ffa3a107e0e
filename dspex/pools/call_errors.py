"""Make the caller's exception from why a call ended, and say how a worker died. Pure: facts in, errors out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .. import errors
from ..config import PoolConfig
from .remote import MESSAGE_MOST, NAME_MOST, error_from, raised_here, text_of
from .state.instructions import EndReason, Fail

if TYPE_CHECKING:
    from .call import Call
    from .worker import Worker

SIGKILL = 9


class PoolFacts(NamedTuple):
    """What the errors of a pool's calls say of the pool."""

    config: PoolConfig
    boot_error: errors.WorkerBootError | None
    is_over: bool  # its supervisor is stopping

    @property
    def name(self) -> str:
        return self.config.name


def error_for(instruction: Fail, call: Call, pool: PoolFacts, worker: Worker | None) -> errors.DspexError:
    """Return the exception for a call that ends without an answer of its own."""
    facts = instruction.facts
    match instruction.why:
        case EndReason.DIED:
            return _died(call, pool, worker, facts.get("started", "unknown"))
        case EndReason.SATURATED:
            return errors.PoolSaturated(
                pool.name, queued=facts["queued"], limit=pool.config.queue_limit, retry_after=facts["retry_after"]
            )
        case EndReason.LATE:
            return errors.CallTimeout(pool.name, call.command, timeout=call.timeout, phase="queued")
        case EndReason.UNHEALTHY:
            last = pool.boot_error
            text = str(last) if last is not None else "its workers died before they did any work."
            return errors.PoolUnhealthy(pool.name, last_error=text, retry_in=facts["retry_in"])
        case EndReason.BOOT:
            return pool.boot_error or errors.WorkerBootError(
                f"The workers of pool {pool.name!r} died while they started.", pool=pool.name
            )
        case EndReason.POISON:
            return errors.PoisonCall(pool.name, call.command, **facts)
        case EndReason.SESSION_LOST:
            return errors.SessionLost(pool=pool.name, session=call.session_name, **facts)
        case EndReason.SESSION_BUSY | EndReason.SESSION_LIMIT:
            return _session_error(instruction.why, call, pool)
        case EndReason.DEADLOCK:
            return errors.WouldDeadlock(
                f"The call {call.command!r} was made by a tool of a call in pool {pool.name!r} and could only wait "
                f"for that one: no worker can run both. Use another pool, or a larger size."
            )
    why = "its supervisor is stopping or has stopped" if pool.is_over else "it is draining"
    return errors.PoolClosed(f"Pool {pool.name!r} is closed: {why}.")


def cause_of(worker: Worker) -> str:
    """Return in one word how the worker ended."""
    if worker.over is not None:
        return "memory"
    if worker.protocol_error:
        return "protocol"
    if worker.pidfd is None and worker.pid == 0:
        return "boot"
    exit = worker.exit
    if exit is None:
        return "died"
    if exit.get("sacrificed"):
        return "oom"  # the kernel's choice, when the machine or a group around the worker's was out of memory
    if exit["signal"] is not None:
        return "killed" if exit["signal"] == SIGKILL else "crashed"
    return "exited"


def end_of(worker: Worker) -> dict[str, Any]:
    """Return how the worker ended, for an event: the cause, and the signal or the exit code where they are known."""
    exit = worker.exit or {}
    known = {name: exit[name] for name in ("signal", "exit_code") if exit.get(name) is not None}
    return {"cause": cause_of(worker), **known}


def is_by_itself(worker: Worker) -> bool:
    """Whether what ran there may have brought it about: not SIGKILL from outside, nor a broken pipe of ours (C7b)."""
    if worker.over is not None:
        return True
    return cause_of(worker) in ("crashed", "exited")


def boot_error(pool: str, worker: Worker, forkserver_tail: str, timeout: float) -> errors.WorkerBootError:
    """Return the error of a worker that died before it was ready, or was not ready within `timeout` seconds."""
    described = worker.boot_error
    tail = worker.stderr.text() or forkserver_tail
    if worker.kill_reason == "startup_timeout":
        what = f"it was not ready within {timeout:g} s (startup_timeout)"
    elif worker.protocol_error:
        what = worker.protocol_error
    elif worker.over is not None:
        cap, seen = worker.over["cap"] / 2**20, worker.over["seen"] / 2**20
        what = f"memory_cap of pool {pool!r} is {cap:.0f} MiB, and it took {seen:.0f} MiB while it started"
    elif described is not None:
        what = f"{text_of(described.get('type'), NAME_MOST)}: {text_of(described.get('message'), MESSAGE_MOST)}"
    else:
        exit = worker.exit or {}
        signal, code = exit.get("signal"), exit.get("exit_code")
        what = f"it was ended by signal {signal}" if signal else f"it exited with {code}"
    code = (worker.exit or {}).get("exit_code")
    return errors.WorkerBootError(
        f"Worker {worker.name} of pool {pool!r} could not start: {what}", pool=pool, stderr_tail=tail, exit_code=code
    )


def error_from_reply(described: dict[str, Any], call: Call, pool: str, worker: Worker) -> errors.DspexError:
    """Return the exception of a worker's ERROR message: that of a tool or LM here, if it comes from there."""
    own = raised_here(described, call.raised)
    return own or error_from(described, pool=pool, command=call.command, worker=worker.name, session=call.session_name)


def _died(call: Call, pool: PoolFacts, worker: Worker | None, started: errors.Started) -> errors.DspexError:
    if worker is None:
        return errors.PoolClosed(f"Pool {pool.name!r} was stopped while the call {call.command!r} ran.")
    if worker.over is not None:
        return errors.WorkerMemoryExceeded(
            pool.name,
            call.command,
            worker=worker.name,
            cap=worker.over["cap"],
            seen=worker.over["seen"],
            peak=worker.over["peak"],
            layer=worker.over["layer"],
            in_flight=len(worker.calls),
        )
    if worker.protocol_error:
        return errors.ProtocolError(
            f"Worker {worker.name} (pid {worker.pid}) of pool {pool.name!r} was retired while it ran "
            f"{call.command!r}: {worker.protocol_error}. A new worker takes its place."
        )
    kind, _, culprit = worker.kill_reason.partition(":")
    exit = worker.exit or {}
    return errors.WorkerDied(
        pool.name,
        call.command,
        worker=worker.name,
        pid=worker.pid,
        cause="neighbour" if kind == "unresponsive" else kind or cause_of(worker),
        signal=exit.get("signal"),
        exit_code=exit.get("exit_code"),
        started=started,
        stderr_tail=worker.stderr.text(),
        culprit=int(culprit) if culprit else None,
    )


def _session_error(why: EndReason, call: Call, pool: PoolFacts) -> errors.SessionError:
    names = {"pool": pool.name, "session": call.session_name}
    if why is EndReason.SESSION_BUSY:
        return errors.SessionBusy(
            f"The worker of session {call.session_name!r} in pool {pool.name!r} is busy, and affinity is "
            f"strict_fail_fast. Try again, or use affinity = 'strict_queue'.",
            **names,
        )
    return errors.SessionLimit(
        f"Pool {pool.name!r} has {pool.config.session_limit} sessions (session_limit), and each holds state. "
        f"Close some, or raise session_limit.",
        **names,
    )
