"""Build the caller's exception from why a call ended, how its worker died, or what was raised there. Pure.

An error that a callback raised in this process comes out as it was raised, when the worker passes it on; what else a
worker describes becomes one of DSPex's own classes by name, or a RemoteError.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from dspex_worker.wire.error_codec import NAME_MOST, ErrorDescription, ErrorEncoder, KnownError, bounded, read

from .. import errors
from ..config import PoolConfig
from ..errors import DspexError, LMError, RemoteError
from .state.instructions import EndReason, Fail

SIGKILL = 9
RAISED = "raised_in_host"  # the fact that tells which callback of its call raised an error
NAMES_MOST = 1_000
MESSAGE_MOST = 16 * 1024  # characters; twice what a worker sends
STATUS_MOST = 999
WAIT_MOST = 7 * 86400.0  # seconds
_LM_TEXTS = ("code", "model", "provider", "provider_code", "request_id")
_LM_FACTS = (*_LM_TEXTS, "status", "retry_after", "provider_message")
_PLAIN = {  # classes that take a message and only these facts
    "SettingsError": ("key",),
    "InvalidInput": ("field",),
    "UnsafeInput": ("field",),
    "NotConfigured": ("key",),
    "OptimizationFailed": (),
    "ProtocolError": (),
    "InvalidReturn": (),
    "CallCancelled": (),
}


class EndedCall(Protocol):
    """The facts of a call for its error."""

    command: str
    timeout: float
    raised: dict[int, DspexError] | None

    @property
    def session_name(self) -> str: ...


class CalledWorker(Protocol):
    """The facts of a worker, which may have died, for an error."""

    name: str
    pid: int
    pidfd: int | None
    exit: dict[str, Any] | None
    over: dict[str, Any] | None
    protocol_error: str
    kill_reason: str
    boot_error: dict[str, Any] | None
    calls: dict[int, Any]
    stderr: Any


class PoolFacts(NamedTuple):
    """The facts of a pool for the errors of its calls."""

    config: PoolConfig
    boot_error: errors.WorkerBootError | None
    is_over: bool  # its supervisor is stopping

    @property
    def name(self) -> str:
        return self.config.name


def error_for(instruction: Fail, call: EndedCall, pool: PoolFacts, worker: CalledWorker | None) -> errors.DspexError:
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
        case EndReason.CLOSED:
            why = "its supervisor is stopping or has stopped" if pool.is_over else "it is draining"
            return errors.PoolClosed(f"Pool {pool.name!r} is closed: {why}.")


def cause_of(worker: CalledWorker) -> str:
    """Return one word for how the worker ended."""
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


def end_of(worker: CalledWorker) -> dict[str, Any]:
    """Return how the worker ended, for an event: the cause, and the signal or the exit code where they are known."""
    exit = worker.exit or {}
    known = {name: exit[name] for name in ("signal", "exit_code") if exit.get(name) is not None}
    return {"cause": cause_of(worker), **known}


def is_by_itself(worker: CalledWorker) -> bool:
    """Return whether what ran there may have caused it: not SIGKILL from outside, nor a broken pipe of ours (C7b)."""
    if worker.over is not None:
        return True
    return cause_of(worker) in ("crashed", "exited")


def boot_error(pool: str, worker: CalledWorker, forkserver_tail: str, timeout: float) -> errors.WorkerBootError:
    """Return the error of a worker that died before it was ready, or was not ready within `timeout` seconds."""
    tail = worker.stderr.text() or forkserver_tail
    if worker.kill_reason == "startup_timeout":
        what = f"it was not ready within {timeout:g} s (startup_timeout)"
    elif worker.protocol_error:
        what = worker.protocol_error
    elif worker.over is not None:
        cap, seen = worker.over["cap"] / 2**20, worker.over["seen"] / 2**20
        what = f"memory_cap of pool {pool!r} is {cap:.0f} MiB, and it took {seen:.0f} MiB while it started"
    elif worker.boot_error is not None:
        found = read(worker.boot_error, message_most=MESSAGE_MOST)
        what = f"{found.type}: {found.message}"
    else:
        exit = worker.exit or {}
        signal, code = exit.get("signal"), exit.get("exit_code")
        what = f"it was ended by signal {signal}" if signal else f"it exited with {code}"
    code = (worker.exit or {}).get("exit_code")
    return errors.WorkerBootError(
        f"Worker {worker.name} of pool {pool!r} could not start: {what}", pool=pool, stderr_tail=tail, exit_code=code
    )


def error_from_reply(described: object, call: EndedCall, pool: str, worker: CalledWorker) -> DspexError:
    """Return the exception that a worker's ERROR message describes: that of a callback here, if it comes from there."""
    found = read(described, message_most=MESSAGE_MOST)
    own = _raised_here(found, call.raised or {})
    return own or error_from(found, pool=pool, command=call.command, worker=worker.name, session=call.session_name)


def error_from(found: ErrorDescription, *, pool: str, command: str, worker: str, session: str = "") -> DspexError:
    """Return the exception for a worker's description; whatever it holds, an exception comes out."""
    try:
        known = _known(found, pool=pool, session=session)
    except Exception:  # facts that do not fit the class: say it as what it is, an error of the worker
        known = None
    where = f"{command!r} in worker {worker} of pool {pool!r}"
    return known or RemoteError(found.name, found.message, traceback=found.traceback, where=where)


def describe_raised(error: BaseException) -> dict[str, Any]:
    """Return what the worker gets of an error of its callback: the host's traceback for the user's own errors only."""
    return _ENCODER.describe(error)


# --- how workers die ----------------------------------------------------------------------------------------------


def _died(call: EndedCall, pool: PoolFacts, worker: CalledWorker | None, started: errors.Started) -> errors.DspexError:
    if worker is None:
        closed = errors.PoolClosed(f"Pool {pool.name!r} was stopped while the call {call.command!r} ran.")
        closed.was_running = True
        return closed
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


def _session_error(why: EndReason, call: EndedCall, pool: PoolFacts) -> errors.SessionError:
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


# --- what workers describe ----------------------------------------------------------------------------------------


def _raised_here(found: ErrorDescription, raised: Mapping[int, DspexError]) -> DspexError | None:
    """Return the very exception that a callback raised in this process, if the worker passed that on."""
    id = found.facts.get(RAISED)
    error = raised.get(id) if isinstance(id, int) else None
    return error if error is not None and type(error).__name__ == found.kind else None


def _known(found: ErrorDescription, *, pool: str, session: str) -> DspexError | None:
    kind, message, facts = found.kind, found.message, found.facts
    if kind in _PLAIN:
        allowed = {key: bounded(facts[key], NAME_MOST) for key in _PLAIN[kind] if facts.get(key) is not None}
        made: DspexError = getattr(errors, kind)(message, **allowed)
        return made
    match kind:
        case "UnknownName":
            what, where = _text(facts, "what") or "command", _text(facts, "where") or f"pool {pool!r}"
            return errors.UnknownName(what, _text(facts, "name"), _texts(facts, "known"), where=where)
        case "EncodeError":
            return errors.EncodeError(_text(facts, "path"), _text(facts, "type"), _text(facts, "reason"))
        case "FrameTooLarge":
            what = _text(facts, "what") or "bytes"
            return errors.FrameTooLarge("worker", int(facts["limit"]), int(facts["actual"]), what=what)
        case "MissingDependency":
            extra = _text(facts, "extra") or None
            return errors.MissingDependency(message, package=_text(facts, "package"), extra=extra)
        case "SessionStateTooLarge":
            return errors.SessionStateTooLarge(message, pool=pool, session=session)
        case "AdapterParseError":
            return _parse_error(message, facts)
        case _:
            lm_error = getattr(errors, kind, None) if kind else None
            if isinstance(lm_error, type) and issubclass(lm_error, LMError):
                return lm_error(message, **_lm_facts(facts))
            return None


def _text(facts: dict[str, Any], name: str) -> str:
    return bounded(facts.get(name), NAME_MOST)


def _texts(facts: dict[str, Any], name: str) -> list[str]:
    """Return a list of names: as many as an error shows, for near ones are searched among them."""
    given = facts.get(name)
    return [bounded(item, NAME_MOST) for item in given[:NAMES_MOST]] if isinstance(given, list) else []


def _lm_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of an LM's error, each of its own type: `retry_after` may become somebody's wait."""
    given = {name: facts[name] for name in _LM_TEXTS if isinstance(facts.get(name), str)}
    known: dict[str, Any] = {name: text[:NAME_MOST] for name, text in given.items()}
    if isinstance(words := facts.get("provider_message"), str):
        known["provider_message"] = words[:MESSAGE_MOST]
    status, wait = facts.get("status"), facts.get("retry_after")
    if type(status) is int and 0 <= status <= STATUS_MOST:
        known["status"] = status
    if isinstance(wait, int | float) and type(wait) is not bool and 0 <= wait <= WAIT_MOST:
        known["retry_after"] = wait
    return known


def _parse_error(message: str, facts: dict[str, Any]) -> errors.AdapterParseError:
    parsed = facts.get("parsed")
    response = facts.get("lm_response", "")
    return errors.AdapterParseError(
        message,
        adapter=_text(facts, "adapter"),
        expected=_texts(facts, "expected"),
        parsed=parsed if isinstance(parsed, dict) else None,
        lm_response=response if isinstance(response, str) else "",
    )


def _classify(error: BaseException) -> KnownError:
    if isinstance(error, LMError):
        facts = {name: getattr(error, name) for name in _LM_FACTS}
        return KnownError(type(error).__name__, facts, error.message, has_traceback=False)
    is_own = isinstance(error, DspexError)
    return KnownError(type(error).__name__, has_traceback=not is_own)


_ENCODER = ErrorEncoder(classify=_classify, traceback=16 * 1024)
