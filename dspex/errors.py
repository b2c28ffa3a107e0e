"""Every exception that DSPex raises, in one tree whose branches say who has to act.

    SettingsError      the settings are wrong: change them, then try again
    UsageError         the calling code is wrong: this call can never succeed as it is
    UnavailableError   the pool cannot take the call now: back off
    InterruptedCall    the call was taken and did not end well: retry if it is idempotent
    RemoteError        the code that ran in the worker raised: look there
    SessionError       the session's worker or state is not what the caller assumed
    LMError            the language model or its endpoint; one class for each of DSPy's
    PipelineError      a pipeline's steps; `causes` holds what they raised

Facts are attributes; `str(error)` holds no prompt, key, traceback or stderr. `retryable` is "now" (nothing ran, or
trying again is harmless), "if_idempotent" (it may have run) or "no".
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, Literal

Retryable = Literal["now", "if_idempotent", "no"]
Started = Literal["yes", "no", "unknown"]


class DspexError(Exception):
    """The root of everything that DSPex raises."""

    retryable: Retryable = "no"
    partial: Any = None  # of an error that ended an evaluation or an optimization: what there was by then


# --- the settings are wrong ---------------------------------------------------------------------------------------


class SettingsError(DspexError, ValueError):
    """A setting is missing, unknown or out of range; `key` names it."""

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class NotConfigured(SettingsError):
    """Something that has no silent default (a language model, a retriever) was needed and not given."""


class MissingDependency(SettingsError, ImportError):
    """An optional package is needed for this; `package` and `extra` say what to install."""

    def __init__(self, message: str, *, package: str, extra: str | None = None) -> None:
        super().__init__(message)
        self.package = package
        self.extra = extra


class VirtualenvMissing(SettingsError):
    """A pool has `requirements`, and its virtualenv was not made: `command` makes it; starting never installs."""

    def __init__(self, pool: str, requirements: Sequence[str], *, path: str, source: str = "") -> None:
        self.pool = pool
        self.requirements = tuple(requirements)
        self.path = path
        self.command = f"dspex setup --config {source} {pool}" if source else f"dspex setup {pool}"
        super().__init__(
            f"The virtualenv of pool {pool!r} ({', '.join(requirements)}) is not there, or is made from something "
            f"older. Run `{self.command}`, which makes it in {path}.",
            key=f"pools.{pool}.requirements",
        )


# --- the calling code is wrong ------------------------------------------------------------------------------------


class UsageError(DspexError):
    """The calling code asked for something that cannot be."""


class UnknownName(UsageError, LookupError):
    """A pool, command, module, option or tool that does not exist; `near` lists the closest that do."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str = "", advice: str = "") -> None:
        self.kind = kind
        self.name = name = str(name)
        self.known = tuple(sorted(known))
        by_folded = {each.casefold(): each for each in self.known}
        close = difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.5)
        self.near = tuple(by_folded[each] for each in close)
        place = f" in {where}" if where else ""
        hint = f"Did you mean {_either(self.near)}?" if self.near else f"Known: {_listing(self.known)}."
        super().__init__(f"There is no {kind} {name!r}{place}. {advice or hint}")


class SignatureError(UsageError, ValueError):
    """A signature that cannot be read; `position` is the offset in `text` (None for class-style signatures)."""

    def __init__(self, message: str, *, text: str = "", position: int | None = None) -> None:
        self.text = text
        self.position = position
        super().__init__(message if position is None else f"{message}\n  {text}\n  {' ' * position}^")


class InvalidInput(UsageError, ValueError):
    """An input value that does not fit its field; `field` names it."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class UnsafeInput(InvalidInput):
    """An input string holds DSPy's custom-type marker, which would become a content block."""


class UnsafeProgram(InvalidInput):
    """A saved program's `file` says how, where or with whom it is to be called; `keys` are the paths to what does."""

    def __init__(self, file: str, keys: Iterable[str]) -> None:
        self.file = file
        self.keys = tuple(keys)
        more = f" and {len(self.keys) - 5} more" if len(self.keys) > 5 else ""
        super().__init__(
            f"The program {file!r} holds {', '.join(self.keys[:5])}{more}. A file says what a program is, never how, "
            f"where or with whom it is called. If you trust the rest, remove that from the file, and give call options "
            f"where you load it, as in dspex.load(path, lm=...)."
        )


class EncodeError(UsageError, TypeError):
    """A value that cannot cross to a worker exactly; `path` leads to it, `type` is its type's name."""

    def __init__(self, path: str, type: str, reason: str = "", *, advice: str = "") -> None:
        self.path = path
        self.type = type
        why = f": {reason}" if reason else ""
        what_to_do = advice or "Send None, bool, int (64 bits), float, str, bytes, list, or dict with str keys."
        super().__init__(f"The value at {path} ({type}) cannot be sent to a worker exactly{why}. {what_to_do}")


class FrameTooLarge(UsageError, ValueError):
    """A message over the frame limit; the sender found out, and nothing was written."""

    def __init__(self, side: Literal["parent", "worker"], limit: int, actual: int, *, what: str = "bytes") -> None:
        self.side = side
        self.limit = limit
        self.actual = actual
        who = "The arguments of the call" if side == "parent" else "The worker's result"
        remedy = "Send less, or pass a path to a file."
        if what == "bytes":
            remedy = "Send less, pass a path to a file, or give the pool a larger frame_limit."
        super().__init__(f"{who} need {actual:,} {what}; the limit is {limit:,}. {remedy}")


class ForkedSupervisor(UsageError, RuntimeError):
    """A Supervisor was used in a forked child of the process that started it; its pipes belong to the parent."""


class StartRefused(UsageError, RuntimeError):
    """Code that a worker of `pool` runs while it starts would start a supervisor, and so on without end."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        super().__init__(
            f"Code that the workers of pool {pool!r} run while they start wants to start a supervisor, whose workers "
            f"would start another one, and so on. If that is your program, put what starts the supervisor under "
            f'`if __name__ == "__main__":`, or move the bridge to a file of its own; a command may start one when it '
            f"is called. If the program was run as a whole once more, sys.executable is a launcher and no Python "
            f"interpreter: give the pool one with python = '...' and start_method = 'exec'."
        )


class WouldDeadlock(UsageError, RuntimeError):
    """A call made from inside a tool or metric could only wait for the call that runs that tool."""


class JournalError(UsageError, ValueError):
    """An optimization's journal cannot be used; nothing in it is lost. `reason` is a word for why, `line` says where.

    The reasons: "missing", "unreadable", "unsafe", "exists", "in_use", "foreign", "version", "damaged", "mismatch" (it
    is of another job than what is given), "incomplete" (something that no file can hold must be given again; `missing`
    names it).
    """

    def __init__(
        self, message: str, *, path: str, reason: str, line: int | None = None, missing: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.path = path
        self.reason = reason
        self.line = line
        self.missing = tuple(missing)


class BudgetExceeded(UsageError):
    """The money or token budget of this scope is spent; `spent` and `limit` say how much."""

    def __init__(self, scope: str, *, spent: float, limit: float, unit: str) -> None:
        self.scope = scope
        self.spent = spent
        self.limit = limit
        self.unit = unit
        super().__init__(f"The budget of {scope} is spent: {spent:g} of {limit:g} {unit}. Raise it or stop.")


# --- the pool cannot take the call now ----------------------------------------------------------------------------


class UnavailableError(DspexError):
    """The pool cannot take the call now; nothing was sent."""

    retryable: Retryable = "now"


class PoolSaturated(UnavailableError):
    """The pool's queue is full; `retry_after` is an estimate in seconds from the rate at which it drains."""

    def __init__(self, pool: str, *, queued: int, limit: int, retry_after: float) -> None:
        self.pool = pool
        self.queued = queued
        self.limit = limit
        self.retry_after = retry_after
        super().__init__(
            f"Pool {pool!r} is saturated: {queued} calls are queued and queue_limit is {limit}. "
            f"Try again in about {retry_after:.2g} s, or raise size, concurrency or queue_limit."
        )


class PoolUnhealthy(UnavailableError):
    """The pool is degraded (its workers keep dying before they do any work) and fails fast; see `last_error`."""

    def __init__(self, pool: str, *, last_error: str, retry_in: float) -> None:
        self.pool = pool
        self.last_error = last_error
        self.retry_in = retry_in
        super().__init__(
            f"Pool {pool!r} is degraded and fails fast: {last_error} The next start is tried in {retry_in:.2g} s."
        )


class PoolClosed(UnavailableError):
    """The supervisor is not started, is stopping or has stopped; `was_running` if it ended the call in its worker.

    `is_stopping` tells that from a pool that drains. Its own process makes another supervisor; a client of a service
    that stops may try again once that is back.
    """

    retryable: Retryable = "no"
    was_running: bool = False
    is_stopping: bool = False


class NotRunning(UnavailableError, ConnectionError):
    """Nobody answers on a supervisor's control socket; `path` is where it was looked for."""

    def __init__(self, path: str, reason: str, *, remedy: str = "Start one with `dspex start`.") -> None:
        self.path = path
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"No supervisor answers at {path}: {reason}. {remedy}")


class TooManyClients(UnavailableError):
    """A supervisor has as many clients as it takes; `clients` are connected, `limit` is its max_clients."""

    def __init__(self, *, clients: int, limit: int) -> None:
        self.clients = clients
        self.limit = limit
        super().__init__(
            f"The supervisor takes {limit} clients and has {clients}: close one, share one among threads, or start it "
            f"with a higher --max-clients (max_clients in [control]). Commands such as `dspex status` have places of "
            f"their own."
        )


class ResourceExhausted(UnavailableError):
    """The operating system has no more of `resource` (descriptors, threads, memory) for `who`."""

    def __init__(self, resource: str, who: str, *, remedy: str) -> None:
        self.resource = resource
        self.who = who
        super().__init__(f"No {resource} are left for {who}. {remedy}")


class PoolTooLarge(SettingsError, ValueError):
    """This machine cannot hold a pool of `size` workers, but `most`; `need` and `limit` are the two figures."""

    def __init__(self, pool: str, size: int, *, most: int, need: str, limit: str) -> None:
        self.pool = pool
        self.size = size
        self.most = most
        self.need = need
        self.limit = limit
        super().__init__(
            f"Pool {pool!r} cannot have {size:,} workers here: they need at least {need}, and the limit is {limit}. "
            f"{most:,} are the most that could fit.",
            key=f"pools.{pool}.size",
        )


class TooManyCallbacks(UnavailableError):
    """A running call asked the host for too much at once (`what`: callbacks or bytes); `scope` had the limit."""

    retryable: Retryable = "now"

    def __init__(
        self,
        pool: str,
        name: str,
        *,
        scope: Literal["call", "worker", "pool"],
        command: str,
        actual: int,
        limit: int,
        what: str = "callbacks",
    ) -> None:
        self.pool = pool
        self.name = name
        self.scope = scope
        self.command = command
        self.actual = actual
        self.limit = limit
        self.what = what
        super().__init__(
            f"{name!r} was not run for the call {command!r} in pool {pool!r}: its {scope} has {actual:,} {what} under "
            f"way, the limit is {limit:,}. Ask for less at a time, and read or close the streams that were asked for."
        )


class TooManyToolsLeft(UnavailableError):
    """Tools or metrics of calls that have ended still run, and hold every thread or task that they may."""

    def __init__(self, pool: str, *, left: int, limit: int) -> None:
        self.pool = pool
        self.left = left
        self.limit = limit
        super().__init__(
            f"No more tools and metrics are run for pool {pool!r}: {left} of them still run though their calls have "
            f"ended, the limit is {limit}. Give what they wait for a timeout, then restart this process."
        )


class PoisonCall(UnavailableError):
    """This very call (`digest`) has killed its worker `strikes` times while running alone; refused for `until_s`."""

    retryable: Retryable = "no"

    def __init__(self, pool: str, command: str, *, digest: str, strikes: int, until: float, until_s: float) -> None:
        self.pool = pool
        self.command = command
        self.digest = digest
        self.strikes = strikes
        self.until = until
        super().__init__(
            f"The call {command!r} with these arguments killed its worker in pool {pool!r} {strikes} times while it "
            f"ran alone, and is refused for {until_s:.0f} s more. Look at the arguments, or use "
            f"pool({pool!r}).forgive({digest!r})."
        )


class WorkerBootError(UnavailableError):
    """A worker could not start; `stderr_tail` holds the end of what it printed."""

    def __init__(self, message: str, *, pool: str, stderr_tail: str = "", exit_code: int | None = None) -> None:
        super().__init__(message)
        self.pool = pool
        self.stderr_tail = stderr_tail
        self.exit_code = exit_code
        if stderr_tail:
            self.add_note(f"What it printed last:\n{stderr_tail.rstrip()}")  # a traceback shows it


# --- the call was taken and did not end well ----------------------------------------------------------------------


class InterruptedCall(DspexError):
    """The call was taken and did not come back with an answer of its own."""

    retryable: Retryable = "if_idempotent"


class CallTimeout(InterruptedCall, TimeoutError):
    """The call's deadline passed; `phase` is "queued" (it was never sent) or "running"."""

    def __init__(self, pool: str, command: str, *, timeout: float, phase: Literal["queued", "running"]) -> None:
        self.pool = pool
        self.command = command
        self.timeout = timeout
        self.phase = phase
        what = "it was still queued and was never sent" if phase == "queued" else "it was running and is being stopped"
        super().__init__(f"The call {command!r} in pool {pool!r} passed its deadline of {timeout:g} s: {what}.")


class CallCancelled(InterruptedCall):
    """The call was cancelled from another thread, by its stream's close or by a sibling branch that failed."""


class OptimizationStopped(CallCancelled):
    """An optimization was cancelled; `partial` is the best program that it had found, None where it had none."""


class WorkerDied(InterruptedCall):
    """The worker that ran the call died; `started` says whether the call can have begun."""

    def __init__(
        self,
        pool: str,
        command: str,
        *,
        worker: str,
        pid: int,
        cause: str,
        signal: int | None = None,
        exit_code: int | None = None,
        started: Started = "unknown",
        stderr_tail: str = "",
        culprit: int | None = None,
    ) -> None:
        self.pool = pool
        self.command = command
        self.worker = worker
        self.pid = pid
        self.cause = cause
        self.signal = signal
        self.exit_code = exit_code
        self.started = started
        self.stderr_tail = stderr_tail
        self.culprit = culprit
        end = f"signal {signal}" if signal else f"exit code {exit_code}" if exit_code is not None else "status unknown"
        then = "A new worker takes its place; retry if the call is idempotent."
        if cause == "stopped":
            then = "Its supervisor was stopped, and gave it no more time (stop_grace)."
        super().__init__(
            f"Worker {worker} (pid {pid}) died ({cause}, {end}) while it ran {command!r} in pool {pool!r}. "
            f"The call started: {started}. {then}"
        )


class WorkerMemoryExceeded(InterruptedCall, MemoryError):
    """The worker and its children went over the pool's memory cap and were killed; sizes are in bytes."""

    def __init__(
        self, pool: str, command: str, *, worker: str, cap: int, seen: int, peak: int, layer: str, in_flight: int
    ) -> None:
        self.pool = pool
        self.command = command
        self.worker = worker
        self.cap = cap
        self.seen = seen
        self.peak = peak
        self.layer = layer
        self.in_flight = in_flight
        mib = 1024 * 1024
        super().__init__(
            f"Worker {worker} of pool {pool!r} used {seen / mib:.0f} MiB of its memory_cap of {cap / mib:.0f} MiB "
            f"(found by the {layer} layer), and was killed with its children; {in_flight} call(s) were running, "
            f"{command!r} among them. Raise memory_cap, or send less at a time."
        )


class ConnectionLost(InterruptedCall, ConnectionError):
    """The connection to a supervisor's control socket ended while the call was under way; `path` is the socket."""

    def __init__(self, path: str, reason: str, *, what: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(
            f"The connection to the supervisor at {path} ended while {what} was under way: {reason}. If the "
            f"supervisor lives, it has cancelled that. Connect again with dspex.connect(); retry if the call is "
            f"idempotent."
        )


class Unresponsive(InterruptedCall, TimeoutError):
    """A supervisor took a request through its control socket (`path`) and did not answer it within `timeout` s."""

    def __init__(self, path: str, request: str, *, timeout: float) -> None:
        self.path = path
        self.request = request
        self.timeout = timeout
        super().__init__(
            f"The supervisor at {path} did not answer {request!r} within {timeout:g} s. Its process may be stopped or "
            f"stuck; `dspex stop --now` ends it."
        )


class ProtocolError(InterruptedCall):
    """The worker sent something that is not the protocol; it was retired."""


# --- the code in the worker raised --------------------------------------------------------------------------------


class RemoteError(DspexError):
    """Code in the worker, or a tool of the host, raised; `type`, `message` and `traceback` are its own, as text."""

    def __init__(self, type: str, message: str, *, traceback: str = "", where: str = "") -> None:
        self.type = type
        self.message = message
        self.traceback = traceback
        self.where = where
        place = f" in {where}" if where else ""
        super().__init__(f"{type} was raised{place}: {message}" if message else f"{type} was raised{place}.")


class ToolFailed(DspexError, RuntimeError):
    """A tool that a model called raised; `tool` is its name, the cause is what it raised."""

    def __init__(self, tool: str, error: BaseException) -> None:
        self.tool = tool
        super().__init__(f"The tool {tool!r} raised {type(error).__name__}; the cause says what.")


class OptimizationFailed(DspexError):
    """An optimizer ended without a usable program (its metric or its language model kept failing)."""


class JobNotCancelled(DspexError):
    """A job of another process was asked to end and did not within `waited` seconds; `pid` is that process, if known.

    The request was taken back.
    """

    retryable: Retryable = "now"

    def __init__(self, job: str, *, pid: int | None, waited: float) -> None:
        self.job = job
        self.pid = pid
        self.waited = waited
        where = "a process that the system does not name" if pid is None else f"process {pid}"
        super().__init__(
            f"The job {job} runs in {where}, and did not end within {waited:g} s of being asked: that may be stopped, "
            f"or have an older version of DSPex. Ask again, or interrupt it there (Ctrl-C, kill -INT {pid or 'PID'})."
        )


class MetricTimeout(DspexError, TimeoutError):
    """A metric did not score an example within `limit` seconds; `metric` is its name, `example` says which it was.

    `left` counts the threads of this process that such metrics hold on to.
    """

    def __init__(self, metric: str, *, example: str, limit: float, left: int = 0) -> None:
        self.metric = metric
        self.example = example
        self.limit = limit
        self.left = left
        held = f" What hangs goes on in its thread; this process has {left} such." if left else ""
        super().__init__(
            f"The metric {metric} did not score {example} within {limit:g} s (metric_timeout). Look at what it waits "
            f"for, or give it more time with metric_timeout=.{held}"
        )


class EvaluationFailed(DspexError):
    """An evaluation ended without a score: no row could be scored, or `max_errors` rows failed; `partial` has the rows.

    `metric` names the metric, `failed` counts the rows with an error; `__cause__` is the first of these.
    """

    def __init__(self, message: str, *, metric: str, failed: int, partial: Any) -> None:
        super().__init__(message)
        self.metric = metric
        self.failed = failed
        self.partial = partial


class CheckFailed(DspexError, ValueError):
    """A prediction kept failing its checks; `failures` are the last ones, `prediction` is the last answer."""

    def __init__(self, failures: Sequence[str], *, attempts: int, prediction: Any) -> None:
        self.failures = tuple(failures)
        self.attempts = attempts
        self.prediction = prediction
        super().__init__(
            f"The prediction failed {len(self.failures)} of its checks in each of {attempts} attempts: "
            f"{'; '.join(self.failures)}. Allow more attempts, or take the best with on_failure='return'."
        )


# --- sessions -----------------------------------------------------------------------------------------------------


class SessionError(DspexError):
    """The session's worker or state is not what the caller assumed."""

    def __init__(self, message: str, *, pool: str, session: str) -> None:
        super().__init__(message)
        self.pool = pool
        self.session = session


class SessionBusy(SessionError):
    """The session's worker has no free slot and the pool's affinity is strict_fail_fast."""

    retryable: Retryable = "now"


class SessionLost(SessionError):
    """The worker that held the session's state is gone; open the session again with fresh=True."""

    def __init__(self, *, pool: str, session: str, reason: str, generation: int) -> None:
        self.reason = reason
        self.generation = generation
        super().__init__(
            f"The state of session {session!r} in pool {pool!r} is lost: its worker (generation {generation}) is gone "
            f"({reason}). Begin again with sup.session({pool!r}, {session!r}, fresh=True), or use durable=True.",
            pool=pool,
            session=session,
        )


class SessionLimit(SessionError):
    """The pool holds session_limit sessions, and every one has state that must not be thrown away."""

    retryable: Retryable = "now"


class SessionStateTooLarge(SessionError):
    """A durable session's state went over 1 MiB."""


# --- language models ----------------------------------------------------------------------------------------------


class LMError(DspexError):
    """The language model or its endpoint; the same class on both routes, named as in DSPy.

    `provider_message` is what the provider said, as far as it was read, without keys; it may quote the prompt. The text
    of the error holds as much of it as quotes nothing of the request.
    """

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        model: str | None = None,
        provider: str | None = None,
        provider_code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        provider_message: str | None = None,
    ) -> None:
        super().__init__(f"[{model}] {message}" if model else message)
        self.message = message
        self.code = code
        self.model = model
        self.provider = provider
        self.provider_code = provider_code
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after
        self.provider_message = provider_message


class LMTransportError(LMError, ConnectionError):
    """No answer came: name resolution, connection, TLS, reset."""

    retryable: Retryable = "now"


class LMCertificateError(LMTransportError):
    """The endpoint's certificate, or this client's own, was refused; trying again changes nothing."""

    retryable: Retryable = "no"


class LMProxyError(LMTransportError):
    """The proxy refused: other credentials (`status` is 407), or it does not let this endpoint be reached."""

    retryable: Retryable = "no"


class LMLocalLimitError(LMTransportError):
    """This process or machine has no more of what a connection needs (descriptors, ports, memory)."""


class LMConfigurationError(LMError):
    """The LM's record cannot be used as it is."""


class LMNotConfiguredError(LMConfigurationError):
    """The LM lacks a key or an endpoint."""


class LMUnsupportedFeatureError(LMError):
    """The model or this client cannot do what was asked."""


class LMUnexpectedError(LMError):
    """The endpoint answered something that is not its protocol."""


class LMStreamAssemblyError(LMUnexpectedError):
    """A stream ended before it was whole."""


class LMLockTimeoutError(LMError):
    """A local credential lock was not free in time."""

    retryable: Retryable = "now"


class LMCollectionLimitError(LMError):
    """A response went over the collector's limit."""


class LMProviderError(LMError):
    """The provider answered with an error."""


class LMAuthError(LMProviderError):
    """The key was refused (401, 403)."""


class LMBillingError(LMProviderError):
    """Credit or quota is used up (402, or 429 insufficient_quota)."""


class LMRateLimitError(LMProviderError):
    """Too many requests (429); `retry_after` is the pause in seconds that the provider asked for."""

    retryable: Retryable = "now"


class LMInvalidRequestError(LMProviderError):
    """The provider refused the request's content (400, 404, 409, 413, 422)."""


class LMContextWindowExceededError(LMInvalidRequestError):
    """The prompt does not fit the model's context."""


class LMUnsupportedModelError(LMInvalidRequestError):
    """The endpoint does not serve this model."""


class LMRefusedError(LMProviderError):
    """The model gave no answer: it refused, or a content filter held it back; `refusal` is what was said, if anything.

    What was answered in part is no error: the prediction's `finish_reason` is then "content_filter".
    """

    def __init__(self, message: str = "", *, refusal: str = "", **facts: Any) -> None:
        super().__init__(message, **facts)
        self.refusal = refusal


class LMTimeoutError(LMProviderError, TimeoutError):
    """The provider, or the wait for it, took too long (408, 504)."""

    retryable: Retryable = "now"


class LMServerError(LMProviderError):
    """The provider failed (5xx, 529)."""

    retryable: Retryable = "now"


class LMEmptyStreamError(LMStreamAssemblyError, LMServerError):
    """A stream ended before an answer began, or the reply was none: nothing was shown, so it can be asked again."""


class AdapterParseError(DspexError, ValueError):
    """The model's text lacks output fields of the signature; `lm_response` is the text, `parsed` what was found."""

    def __init__(
        self,
        message: str,
        *,
        adapter: str,
        expected: Sequence[str] = (),
        parsed: dict[str, Any] | None = None,
        lm_response: str = "",
    ) -> None:
        super().__init__(message)
        self.adapter = adapter
        self.expected = tuple(expected)
        self.parsed = parsed or {}
        self.lm_response = lm_response


# --- pipelines ----------------------------------------------------------------------------------------------------


class PipelineError(DspexError):
    """A pipeline failed at `step`; `causes` holds every failure, the first one first, and `result` what was done."""

    def __init__(self, message: str, *, step: str, causes: Sequence[BaseException] = (), result: Any = None) -> None:
        super().__init__(message)
        self.step = step
        self.causes = tuple(causes)
        self.result = result


class StepTimeout(InterruptedCall, TimeoutError):
    """A step's time, or its run's, was up; `timeout` is the span in seconds that was given to `whose` of the two."""

    def __init__(self, step: str, *, timeout: float, whose: Literal["step", "run"]) -> None:
        self.step = step
        self.timeout = timeout
        self.whose = whose
        owner = "The step" if whose == "step" else "The run's time was up in step"
        end = f"had not ended after its timeout of {timeout:g} s" if whose == "step" else f"(timeout: {timeout:g} s)"
        super().__init__(f"{owner} {step!r} {end}. Raise timeout=, or give the step less to do.")


class InvalidReturn(UsageError, TypeError):
    """A native step gave back something else than what it declares to write."""


class KeyClash(UsageError, ValueError):
    """Two parallel branches write the same key; `keys` names them."""

    def __init__(self, keys: Iterable[str], *, where: str) -> None:
        self.keys = tuple(sorted(keys))
        super().__init__(
            f"Parallel branches in {where} write the same key(s): {_listing(self.keys)}. Rename them, or collect the "
            f"branches with into=."
        )


def _either(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in names)


def _listing(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return (shown or "none") + rest
