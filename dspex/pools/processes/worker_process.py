"""One worker process: its pipes, its pid, its reports, and how it ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex_worker.output_limit import BYTES_S, LINES_S, OutputLimit
from dspex_worker.wire import MAGIC, PROTOCOL, FrameBuffer, messages
from dspex_worker.wire.messages import Kind
from dspex_worker.wire.shapes import MessageOrder

from ... import forks
from ...descriptors import above_streams
from .channel import Channel
from .engine import Engine
from .forkserver_process import WorkerPipes
from .pipe_io import PipeReader
from .poller import READABLE
from .stderr_tail import StderrTail

if TYPE_CHECKING:
    from .forkserver_process import ForkserverProcess

READ_SIZE = 64 * 1024  # bytes at once; a buffer over malloc's mmap threshold costs more than the rest of the read


class WorkerProcess:
    """One generation of one slot. The engine's thread changes it."""

    def __init__(
        self, generation: int, slot: int, forkserver: ForkserverProcess, engine: Engine, *, concurrency: int
    ) -> None:
        config = forkserver.config
        self.config = config  # what it is made from; the pool's may have changed since
        self.forkserver: ForkserverProcess | None = forkserver  # its parent, while that lives
        self.frame_limit = config.frame_limit
        self.generation = generation
        self.slot = slot
        self.name = f"{config.name}/{slot}"
        self.pid = 0
        self.pidfd: int | None = None
        self.channel: Channel | None = None
        self.buffer = FrameBuffer(self.frame_limit)
        self.message_order = MessageOrder()
        self.stderr = StderrTail()
        self.log_limit = OutputLimit(2 * LINES_S, 2 * BYTES_S)  # what an honest worker keeps to by itself
        self.output_limit = OutputLimit()
        self.unfinished_line = b""  # of what it writes to stderr
        self.see_output: Callable[[bytes], None] | None = None
        self.greeting: dict[str, Any] = {}
        self.boot_error: dict[str, Any] | None = None
        self.exit: dict[str, Any] | None = None
        self.over: dict[str, Any] | None = None
        self.protocol_error = ""
        self.kill_reason = ""  # why the pool killed it, if it did
        self.rss = 0  # as measured last; 0 before the first time
        self.counted = 0  # what of it counts against the cap
        self.peak = 0
        self._reader = PipeReader(READ_SIZE)
        self._stderr_fd = -1
        self._lifeline = -1
        self._engine = engine
        self._concurrency = concurrency
        self._on_end: Callable[[], None] | None = None

    def attach(self, pipes: WorkerPipes, *, on_end: Callable[[], None], on_torn: Callable[[], None]) -> None:
        """Take our ends of its pipes, and send HELLO; what reads its stdout registers itself with the engine."""
        engine, self._on_end = self._engine, on_end
        self._stderr_fd = pipes.stderr
        self._lifeline = pipes.lifeline

        def want_writable(wanted: bool) -> None:
            engine.poller.set_writable_wanted(pipes.stdin, wanted)

        channel = self.channel = Channel(pipes.stdin, pipes.stdout, want_writable, on_torn)
        engine.poller.register(pipes.stdin, lambda _: channel.resume(), 0)
        engine.poller.register(pipes.stderr, self._on_stderr, READABLE)
        channel.append(messages.write(Kind.HELLO, MAGIC, *PROTOCOL, self._settings()))
        channel.flush()

    def watch(self, pid: int, pidfd: int) -> None:
        """Watch for the end of its process. The descriptor is ours from now on."""
        if self.pidfd is not None:  # it reported its pid before its fork server did
            os.close(pidfd)
            return
        self.pid = pid
        self.pidfd = pidfd
        if (on_end := self._on_end) is not None:
            self._engine.poller.register(pidfd, lambda _: on_end())

    def watch_reported_pid(self) -> bool:
        """`watch` by the pid that the worker reported; False if there is none yet, or it has ended.

        Its fork server may report it later than it is ready, or be killed before it does (T6).
        """
        pid = self.greeting.get("pid")
        if not isinstance(pid, int) or self.channel is None or self.channel.is_closed:
            return False
        try:
            with above_streams():
                pidfd = os.pidfd_open(pid)
        except OSError:
            return False
        if not holds_other_end(pid, self.channel.stdin):  # its report may be false, and what is watched may be killed
            os.close(pidfd)
            return False
        poll = select.poll()
        poll.register(self.channel.stdout, select.POLLIN)
        if any(event & select.POLLHUP for _, event in poll.poll(0)):  # it has ended, and the pid may be another's
            os.close(pidfd)
            return False
        self.watch(pid, pidfd)
        return True

    def read(self) -> tuple[bytes, bool]:
        """Return (what its stdout holds, whether that was all there was to come)."""
        if self.channel is None or self.channel.is_closed:
            return b"", True
        try:
            data = self._reader.read(self.channel.stdout)
        except BlockingIOError:
            return b"", False
        except OSError:
            return b"", True
        if not data:
            self._engine.poller.unregister(self.channel.stdout)
        return data, not data

    def kill(self) -> None:
        """Kill it and its group: the kernel does, when the lifeline's write end closes (T4). No pid is trusted."""
        with forks.held_back():
            lifeline, self._lifeline = self._lifeline, -1
            if lifeline >= 0:
                os.close(lifeline)
        if self.pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def pause(self) -> None:
        """Stop reading until `resume`: its pipe fills, and it waits."""
        if self.channel is not None and not self.channel.is_closed:
            self._engine.poller.pause(self.channel.stdout)

    def resume(self) -> None:
        """Read on."""
        if self.channel is not None and not self.channel.is_closed:
            self._engine.poller.resume(self.channel.stdout)

    def stop_watching(self) -> None:
        if self.pidfd is not None:
            self._engine.poller.unregister(self.pidfd)

    def drain_stderr(self) -> None:
        if self._stderr_fd >= 0:
            self.stderr.read_from(self._stderr_fd, self.see_output)

    def close(self) -> None:
        """Close all that is ours; it has ended, or never began."""
        engine = self._engine
        with forks.held_back():  # a child would close the numbers again, which may be another file's by then
            for descriptor in (self.pidfd, self._stderr_fd, self._lifeline):
                if descriptor is not None and descriptor >= 0:
                    engine.poller.unregister(descriptor)
                    os.close(descriptor)
            self.pidfd, self._stderr_fd, self._lifeline = None, -1, -1
        if self.channel is not None and not self.channel.is_closed:
            engine.poller.unregister(self.channel.stdin)
            engine.poller.unregister(self.channel.stdout)
            self.channel.close()

    def reap(self) -> None:
        """Take its exit status if it fell to this process: its fork server is gone, and this is its init (T6)."""
        if self.pidfd is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)

    def after_fork(self) -> None:
        """In a forked child of the host: close what is the parent's."""
        pipes = [] if self.channel is None or self.channel.is_closed else [self.channel.stdin, self.channel.stdout]
        for descriptor in (*pipes, self.pidfd, self._stderr_fd, self._lifeline):
            if descriptor is not None and descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)

    def _on_stderr(self, event: int) -> None:
        if not self.stderr.read_from(self._stderr_fd, self.see_output):
            self._engine.poller.unregister(self._stderr_fd)

    def _settings(self) -> dict[str, Any]:
        config = self.config
        return {
            "pool": config.name,
            "worker": self.name,
            "generation": self.generation,
            "concurrency": self._concurrency,
            "bridge": str(config.bridge_path),
            "imports": list(config.imports),
            "path": list(config.import_path),
            "options": dict(config.options),
            "frame_limit": self.frame_limit,
            "memory_cap": config.memory_cap,
            "nice": config.nice,
            "cpus": None if config.cpus is None else list(config.cpus),
        }

    def __repr__(self) -> str:
        return f"<worker {self.name} generation {self.generation}, pid {self.pid}>"


def holds_other_end(pid: int, descriptor: int) -> bool:
    """Return whether another process has the pipe open that `descriptor` is an end of."""
    pipe = f"pipe:[{os.fstat(descriptor).st_ino}]"
    if pid == os.getpid():
        return False
    with contextlib.suppress(OSError):  # it is another user's, or has ended
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                if str(link.readlink()) == pipe:
                    return True
    return False
