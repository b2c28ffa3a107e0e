"""Start a fork server, request workers from it, and receive its reports.

Runs on the engine's thread. The fork server is a child of the host; workers are the fork server's children, and the
host needs neither waitpid nor SIGCHLD for them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspex_worker import launching, starting
from dspex_worker.wire import Malformed, decode, encode

from ... import forks
from ...config import PoolConfig
from ...descriptors import above_streams, raised
from ...lm.providers import KEY_NAMES
from .child_process import FIRST_PASSED, ChildProcess
from .engine import Engine
from .stderr_tail import StderrTail

CONTROL_SIZE = 64 * 1024
PATIENCE = 2.0  # seconds that a fork server has to kill its children, when no engine watches for its end
PIPE_SIZE = 256 * 1024  # bytes in a worker's pipe: one syscall moves more of a large frame

ENVIRONMENT = (  # what a worker may know of the host's environment (X3)
    "PATH HOME USER LOGNAME LANG LANGUAGE LC_ALL LC_CTYPE TZ TMPDIR TEMP TMP SHELL TERM PYTHONPATH VIRTUAL_ENV "
    "LD_LIBRARY_PATH SSL_CERT_FILE SSL_CERT_DIR XDG_CACHE_HOME XDG_CONFIG_HOME XDG_RUNTIME_DIR CUDA_VISIBLE_DEVICES"
).split()
FIXED_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches a table over the network at its first use
    "PYTHONUNBUFFERED": "1",
    "DSPY_CACHEDIR": "/dev/null/dspex",  # DSPy's disk cache cannot be opened there: caching is the supervisor's
}


@dataclass(frozen=True, slots=True)
class WorkerPipes:
    """The supervisor's ends of a new worker's pipes."""

    stdin: int
    stdout: int
    stderr: int
    lifeline: int

    def close(self) -> None:
        for descriptor in (self.stdin, self.stdout, self.stderr, self.lifeline):
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class ForkserverMessage:
    """A fork server's report on itself or a worker; a `descriptor` belongs to whoever takes the message."""

    process: ForkserverProcess
    kind: str
    facts: dict[str, Any]
    descriptor: int | None


class ForkserverProcess:
    """One fork server, from its start to its end; `on_exit` is called once, when it has ended."""

    def __init__(
        self,
        config: PoolConfig,
        engine: Engine,
        cgroup: str | None,
        *,
        learned: Mapping[str, str],
        on_message: Callable[[ForkserverMessage], None],
        on_exit: Callable[[ForkserverProcess], None],
    ) -> None:
        self.config = config
        self.learned = learned  # modules of the user's, beside the pool's `imports`
        self.stderr = StderrTail()
        self.failure: dict[str, Any] | None = None  # what it reported of why it cannot be warm
        self.was_killed = False
        self.has_greeted = False  # else what runs there is not ours
        self.memory_problem = ""  # why it cannot see its workers' memory
        self._engine = engine
        self._on_message = on_message
        self._on_exit = on_exit
        self._process, self._control, self._lifeline, self._errors = _launch(config)
        self.pid = self._process.pid
        engine.poller.register(self._control.fileno(), self._on_control)
        engine.poller.register(self._errors, self._on_stderr)
        engine.poller.register(self._process.pidfd, self._on_death)
        with contextlib.suppress(OSError):  # it has ended already: its pidfd says so, and its output why
            self._send(["warm", _settings(config, cgroup, learned)])

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs, or if the host took it."""
        return self._process.status

    def spawn(self, generation: int) -> WorkerPipes:
        """Request a worker.

        Raises:
            OSError: no descriptors are left, or the fork server is gone.
        """
        ours, theirs = _make_pipes()
        try:
            self._send(["spawn", generation], theirs)
        except OSError:
            ours.close()
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        return ours

    def receive(self) -> None:
        """Take its reports now, without waiting for the engine to come to it."""
        self._on_control(0)

    def kill_worker(self, generation: int) -> None:
        """Kill a worker with its whole tree, also what left its group; the lifeline has killed the group already."""
        with contextlib.suppress(OSError):  # gone: what its workers left behind is init's
            self._send(["kill", generation])

    def is_stopped(self) -> bool:
        """Whether a signal stopped it (SIGSTOP): then it neither watches nor starts workers, and does not end."""
        return self._process.is_stopped()

    def let_go(self) -> None:
        """Let it kill its children and exit. May be called again."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._cut_lifeline()  # if it is still importing, it does not look at its socket

    def kill(self) -> None:
        """Kill it; its workers stay: their lifelines are ours."""
        self.was_killed = True
        self._process.kill()

    def end_without_engine(self) -> None:
        """Let it kill its children and exit, wait for that, and close all that is ours."""
        self.let_go()
        if not self._process.wait(PATIENCE):
            self.kill()
            self._process.wait()
        self.after_fork()

    def after_fork(self) -> None:
        """Close what is ours; in a forked child of the host, what is the parent's."""
        with forks.held_back():
            self._control.close()
            self._cut_lifeline()
            errors, self._errors = self._errors, -1
            pidfd, self._process.pidfd = self._process.pidfd, -1
            for descriptor in (errors, pidfd):
                if descriptor >= 0:
                    os.close(descriptor)

    def _send(self, message: list[Any], descriptors: list[int] | None = None) -> None:
        ancillary = []
        if descriptors:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))]
        self._control.sendmsg([encode(message)], ancillary)

    def _on_control(self, event: int) -> None:
        while True:
            try:
                data, ancillary, _, _ = self._control.recvmsg(CONTROL_SIZE, socket.CMSG_SPACE(4 * 4))
            except BlockingIOError:
                return
            except OSError:
                data, ancillary = b"", []
            if not data:
                self._engine.poller.unregister(self._control.fileno())
                return
            descriptor = _one_descriptor(ancillary)
            try:
                kind, facts = decode(data)
            except (Malformed, ValueError):
                continue
            if kind == "hello":
                self.has_greeted = True
                continue
            self._on_message(ForkserverMessage(self, kind, facts, descriptor))

    def _on_stderr(self, event: int) -> None:
        if not self.stderr.read_from(self._errors):
            self._engine.poller.unregister(self._errors)

    def _on_death(self, event: int) -> None:
        self.stderr.read_from(self._errors)
        self._on_control(0)
        if not self.has_greeted:  # a launcher, whose program may go on without it
            self._process.kill_group()
        self._process.wait()  # it has ended: this takes its status and returns
        for descriptor in (self._control.fileno(), self._errors, self._process.pidfd):
            self._engine.poller.unregister(descriptor)
        self.after_fork()
        self._on_exit(self)

    def _cut_lifeline(self) -> None:
        with forks.held_back():
            lifeline, self._lifeline = self._lifeline, -1
            if lifeline >= 0:
                os.close(lifeline)


def _launch(config: PoolConfig) -> tuple[ChildProcess, socket.socket, int, int]:
    """Return (the process, our end of its control socket, its lifeline's write end, its output's read end).

    Raises:
        OSError: no such interpreter, or no descriptors or processes are left; nothing is left open.
    """
    with above_streams(), contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        control, child_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        ours.callback(control.close)
        theirs.callback(child_control.close)
        child_lifeline, lifeline = _pipe(theirs, ours)
        errors, child_errors = _pipe(ours, theirs)
        control.setblocking(False)
        os.set_blocking(errors, False)
        roots = launching.ROOTS if config.interpreter == sys.executable else ()  # another one has a copy of its own
        ends = ["--control", str(FIRST_PASSED), "--lifeline", str(FIRST_PASSED + 1)]
        process = ChildProcess(
            [*launching.command(config.interpreter, "dspex_worker.forkserver", roots), *ends],
            output=child_errors,
            passed=[child_control.fileno(), child_lifeline],
            environment={**_environment(config), **starting.marks(config.name)},
        )
        ours.pop_all()
        return process, control, lifeline, errors


def _environment(config: PoolConfig) -> dict[str, str]:
    """Return the environment of its workers; a virtualenv of their own knows nothing of the host's."""
    environment = worker_environment(config.env)
    if config.virtualenv is not None:
        if "PYTHONPATH" not in config.env:
            environment.pop("PYTHONPATH", None)
        environment["VIRTUAL_ENV"] = str(config.virtualenv.path)
    return environment


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """Return a pipe whose ends are closed with these two."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    reader.callback(os.close, read_end)
    writer.callback(os.close, write_end)
    return read_end, write_end


def worker_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of workers: an allow-list, what DSPex fixes, and the pool's `env`.

    In the place of a key of this process stands what means it: code that reads `os.environ["OPENAI_API_KEY"]` for its
    LM works, and the key stays here.
    """
    held = {name: starting.HELD_KEY for name in KEY_NAMES if os.environ.get(name)}
    kept = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    if sys.flags.ignore_environment:  # python -E, or -I
        kept.pop("PYTHONPATH", None)
    if sys.flags.no_user_site:  # python -s, or -I
        kept["PYTHONNOUSERSITE"] = "1"
    return {**kept, **held, **FIXED_ENVIRONMENT, **extra}


def _settings(config: PoolConfig, cgroup: str | None, learned: Mapping[str, str]) -> dict[str, Any]:
    return {
        "learned": dict(learned),
        "host_path": [entry or str(Path.cwd()) for entry in sys.path] if learned else [],
        "pool": config.name,
        "bridge": str(config.bridge_path),
        "python": config.interpreter,
        "start_method": config.start_method,
        "imports": list(config.imports),
        "path": list(config.import_path),
        "options": dict(config.options),
        "memory_cap": config.memory_cap,
        "memory_soft": config.recycle_after_memory,
        "cgroup": cgroup,
    }


def _make_pipes() -> tuple[WorkerPipes, list[int]]:
    """Return (our ends, the worker's ends in the order of descriptors 0, 1, 2 and its lifeline)."""
    made: list[int] = []
    try:
        with above_streams():
            for _ in range(4):
                made += os.pipe2(os.O_CLOEXEC)
    except OSError:
        for descriptor in made:
            os.close(descriptor)
        raise
    stdin_r, stdin_w, stdout_r, stdout_w, stderr_r, stderr_w, lifeline_r, lifeline_w = made
    for descriptor in (stdin_w, stdout_r, stderr_r):
        os.set_blocking(descriptor, False)
    for descriptor in (stdin_w, stdout_r):
        with contextlib.suppress(OSError):  # beyond the user's pipe quota: the default size works too
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    return WorkerPipes(stdin_w, stdout_r, stderr_r, lifeline_w), [stdin_r, stdout_w, stderr_w, lifeline_r]


def _one_descriptor(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(data) >= 4:
            descriptor = array("i", data[:4])[0]
            os.set_inheritable(descriptor, False)
            return raised(descriptor)
    return None
