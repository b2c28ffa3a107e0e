"""The supervisor's handle on a pool's template process: start it, ask it for workers, hear how they end.

Runs on the engine's thread. The template is a child of the host; workers are the template's children, and the host
needs neither waitpid nor SIGCHLD for them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dspex_worker.wire import Malformed, decode, encode

from ..config import PoolConfig
from .engine import GONE, Engine
from .stderr import StderrTail

CONTROL_SIZE = 64 * 1024
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

Said = Callable[[str, dict[str, Any], int | None], None]


@dataclass(frozen=True, slots=True)
class Pipes:
    """The supervisor's ends of a new worker's pipes."""

    stdin: int
    stdout: int
    stderr: int
    lifeline: int

    def close(self) -> None:
        for descriptor in (self.stdin, self.stdout, self.stderr, self.lifeline):
            os.close(descriptor)


class TemplateProcess:
    """One template, from its start to its end. `said` hears its words; `gone` is called once when it has ended."""

    def __init__(self, config: PoolConfig, engine: Engine, *, said: Said, gone: Callable[[], None]) -> None:
        self.stderr = StderrTail()
        self._engine = engine
        self._said = said
        self._gone = gone
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._control.setblocking(False)
        lifeline, self._lifeline = os.pipe2(os.O_CLOEXEC)
        errors, their_errors = os.pipe2(os.O_CLOEXEC)
        self._errors = errors
        os.set_blocking(errors, False)
        try:
            self._process = self._launch(config, theirs.fileno(), lifeline, their_errors)
        finally:
            theirs.close()
            os.close(lifeline)
            os.close(their_errors)
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        engine.register(self._control.fileno(), self._on_control)
        engine.register(errors, self._on_stderr)
        engine.register(self._pidfd, self._on_death)
        self._send(["warm", _settings(config)])

    def spawn(self, generation: int) -> Pipes:
        """Ask for a worker.

        Raises:
            OSError: no descriptors are left, or the template is gone.
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

    def kill(self, generation: int) -> None:
        """Kill a worker with its whole tree, also what left its group; the lifeline has killed the group already."""
        with contextlib.suppress(OSError):  # gone: what its workers left behind is init's
            self._send(["kill", generation])

    def close(self) -> None:
        """Let it go: it kills its children and exits."""
        for descriptor in (self._control.fileno(), self._errors, self._pidfd):
            self._engine.unregister(descriptor)
        self._control.close()
        os.close(self._errors)
        os.close(self._pidfd)
        try:
            self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=1.0)
        os.close(self._lifeline)

    def descriptors(self) -> list[int]:
        """What a forked child of the host must close."""
        return [self._control.fileno(), self._errors, self._pidfd, self._lifeline]

    def _launch(self, config: PoolConfig, control: int, lifeline: int, errors: int) -> subprocess.Popen[bytes]:
        command = [_template_python(config), "-P", "-m", "dspex_worker.template"]
        return subprocess.Popen(
            [*command, "--control", str(control), "--lifeline", str(lifeline)],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            pass_fds=(control, lifeline),
            start_new_session=True,
            env=worker_environment(config.env),
        )

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
                self._engine.unregister(self._control.fileno())
                return
            descriptor = _one_descriptor(ancillary)
            try:
                word, facts = decode(data)
            except (Malformed, ValueError):
                continue
            self._said(word, facts, descriptor)

    def _on_stderr(self, event: int) -> None:
        if not self.stderr.read_from(self._errors):
            self._engine.unregister(self._errors)

    def _on_death(self, event: int) -> None:
        self.stderr.read_from(self._errors)
        self._on_control(0)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=0.1)
        self._engine.unregister(self._pidfd)
        self._gone()


def worker_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Give the environment of workers: an allow-list, what DSPex fixes, and the pool's `env`."""
    kept = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    return {**kept, **FIXED_ENVIRONMENT, **extra}


def _settings(config: PoolConfig) -> dict[str, Any]:
    return {
        "pool": config.name,
        "bridge": str(config.bridge_path),
        "python": config.python,
        "start_method": config.start_method,
        "imports": list(config.imports),
        "path": list(config.path),
        "options": dict(config.options),
        "memory_cap": config.memory_cap,
    }


def _template_python(config: PoolConfig) -> str:
    return config.python


def _make_pipes() -> tuple[Pipes, list[int]]:
    """Give (our ends, the worker's ends in the order of descriptors 0, 1, 2 and its lifeline)."""
    made: list[int] = []
    try:
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
    return Pipes(stdin_w, stdout_r, stderr_r, lifeline_w), [stdin_r, stdout_w, stderr_w, lifeline_r]


def _one_descriptor(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(data) >= 4:
            descriptor = array("i", data[:4])[0]
            os.set_inheritable(descriptor, False)
            return descriptor
    return None
