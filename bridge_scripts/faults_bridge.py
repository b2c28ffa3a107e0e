"""Inject faults: the `faults` bridge, for tests, the chaos bench and users' own tests. No dspy.

Only a pool that names it in its configuration runs it; the control socket cannot.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dspex_worker.bridge import Bridge, Context, Failure

bridge = Bridge("faults")
_leaked: list[bytearray] = []
lock = threading.Lock()  # of whoever loads this module: a host that forks its workers forks its state along


@bridge.command(cancel_safe=True)
def sleep(ctx: Context, seconds: float) -> float:
    """Sleep; a cancel interrupts it only where a signal can (concurrency 1)."""
    time.sleep(seconds)
    return seconds


@bridge.command(cancel_safe=True)
def spin(ctx: Context, seconds: float) -> int:
    """Keep the interpreter busy in pure Python."""
    until = time.monotonic() + seconds
    turns = 0
    while time.monotonic() < until:
        turns += 1
    return turns


@bridge.command()
def spin_c(ctx: Context, seconds: float) -> float:
    """Hold the GIL in C: nothing else in this process runs meanwhile, and no signal ends it early."""
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
    return seconds


@bridge.command()
def spin_free(ctx: Context, seconds: float) -> float:
    """Stay in C without the GIL: others in this process go on, but no exception and no signal ends it early."""
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        ctypes.CDLL(None).usleep(int(seconds * 1_000_000))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
    return seconds


@bridge.command()
def exit(ctx: Context, code: int = 1) -> None:
    """End the process without a reply."""
    os._exit(code)


@bridge.command()
def kill(ctx: Context, signal: int = signal.SIGKILL) -> None:
    """Send this worker a signal."""
    os.kill(os.getpid(), signal)
    time.sleep(30.0)


@bridge.command(cancel_safe=True)
def announced(
    ctx: Context, path: str, gate: str = "", command: str = "", arguments: dict[str, Any] | None = None
) -> Any:
    """Append this process's pid to a file, wait until the file `gate` exists, and run another command.

    Returns what that returned, or the pid.
    """
    effect(ctx, path, str(os.getpid()))
    while gate and not Path(gate).exists():
        time.sleep(0.001)
    return bridge.commands[command].function(ctx, **(arguments or {})) if command else os.getpid()


@bridge.command()
def take_lock(ctx: Context, patience: float) -> bool:
    """Take this module's lock and give it back; False if it is held for longer than that."""
    if not lock.acquire(timeout=patience):
        return False
    lock.release()
    return True


@bridge.command()
def spin_unsafe(ctx: Context, seconds: float) -> int:
    """`spin`, by a command that did not declare itself safe to cancel."""
    return spin(ctx, seconds)


@bridge.command()
def reply_then_die(ctx: Context, n: int) -> int:
    """Return n, and die by SIGKILL as soon as the reply is written."""
    writer = ctx._running.runtime.writer  # on purpose, as in `garbage`
    write = writer.write

    def write_and_die(frame: bytes) -> None:
        write(frame)
        os.kill(os.getpid(), signal.SIGKILL)

    writer.write = write_and_die
    return n


@bridge.command()
def allocate(ctx: Context, bytes: int, seconds: float = 0.0, after: float = 0.0) -> int:
    """After a while touch that much memory, hold it for a while, let it go."""
    time.sleep(after)
    block = bytearray(bytes)
    block[::4096] = b"x" * len(block[::4096])
    time.sleep(seconds)
    return len(block)


@bridge.command()
def leak(ctx: Context, bytes: int) -> int:
    """Keep that much memory for good; returns what was leaked so far."""
    block = bytearray(bytes)
    block[::4096] = b"x" * len(block[::4096])
    _leaked.append(block)
    return sum(map(len, _leaked))


@bridge.command()
def spawn(ctx: Context, seconds: float, detach: bool = False) -> int:
    """Start a child that sleeps, and return its pid; `detach` puts it in a session of its own."""
    child = subprocess.Popen(["sleep", str(seconds)], start_new_session=detach)
    child.returncode = 0  # nobody waits for it: it outlives this call
    return child.pid


@bridge.command()
def fork(ctx: Context, seconds: float) -> int:
    """Fork a child that executes nothing else and sleeps, as multiprocessing does; returns its pid."""
    child = os.fork()
    if child == 0:
        time.sleep(seconds)
        os._exit(0)
    return child


@bridge.command()
def daemonize(ctx: Context, seconds: float) -> int:
    """Start a process that leaves this worker's session and loses its parent; returns its pid."""
    script = f"setsid sleep {seconds} >/dev/null 2>&1 & echo $!"
    found = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    return int(found.stdout)


@bridge.command("print")
def print_text(ctx: Context, text: str) -> None:
    """Print to stdout, as user code does."""
    print(text, flush=True)


@bridge.command()
def write_fd1(ctx: Context, text: str) -> int:
    """Write to descriptor 1, as C libraries do."""
    return os.write(1, text.encode())


@bridge.command()
def flood_stderr(ctx: Context, bytes: int) -> int:
    """Write that many bytes to stderr."""
    line = b"x" * 1023 + b"\n"
    for _ in range(bytes // len(line)):
        os.write(2, line)
    return bytes


@bridge.command()
def garbage(
    ctx: Context, data: bytes = b"\xff\xff\xff\xffthis is not a frame", exit: bool = False, seconds: float = 30.0
) -> None:
    """Write bytes that are no frame to the protocol's pipe; then stay for a while, or exit."""
    writer = ctx._running.runtime.writer  # on purpose: nothing public can break the protocol
    os.write(writer._descriptor, data)
    if exit:
        os._exit(0)
    time.sleep(seconds)


@bridge.command()
def unsendable(ctx: Context, kind: str) -> Any:
    """Return a value that cannot cross: a "set", a "cycle" or an "object"."""
    if kind == "cycle":
        cycle: list[Any] = []
        cycle.append(cycle)
        return cycle
    return {1, 2} if kind == "set" else {"deep": [object()]}


@bridge.command()
def raise_error(ctx: Context, type: str = "ValueError", message: str = "injected") -> None:
    """Raise an exception: a builtin's name, or one of DSPex's kinds."""
    import builtins

    found = getattr(builtins, type, None)
    if isinstance(found, builtins.type) and issubclass(found, BaseException):
        raise found(message)
    raise Failure(type, message)


class BrokenError(Exception):
    """An exception that cannot be shown as it is."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def __str__(self) -> str:
        if self.text == "raises":
            raise RuntimeError("no text")
        if self.text == "exits":
            raise SystemExit(3)
        return "\ud800" if self.text == "surrogates" else "x" * 20_000_000


@bridge.command()
def raise_broken(ctx: Context, text: str) -> None:
    """Raise an exception whose text "raises", "exits", holds "surrogates" or is "endless"."""
    raise BrokenError(text)


@bridge.command()
def recurse(ctx: Context) -> None:
    """Call itself until the stack ends."""
    recurse(ctx)


@bridge.command()
def shell(ctx: Context, command: str) -> int:
    """Run a shell command that inherits this worker's descriptors 0, 1 and 2; returns its exit status."""
    return subprocess.call(["sh", "-c", command])


@bridge.command(cancel_safe=True)
def swallow(ctx: Context, seconds: float) -> int:
    """Catch every interrupt for that long; returns how many there were."""
    until = time.monotonic() + seconds
    caught = 0
    while time.monotonic() < until:
        try:
            while time.monotonic() < until:
                pass
        except BaseException:  # what this command is for: it heeds no cancel
            caught += 1
    return caught


@bridge.command(cancel_safe=True)
def count(ctx: Context, n: int, delay_s: float = 0.0) -> Iterator[int]:
    """Stream 0 .. n-1, and return n."""
    for i in range(n):
        if delay_s:
            time.sleep(delay_s)
        yield i
    return n


@bridge.command()
def effect(ctx: Context, path: str, token: str, padding: str = "") -> None:
    """Append a line to a file: what really ran, and how often. The padding only makes the call larger."""
    descriptor = os.open(Path(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{token}\n".encode())
    finally:
        os.close(descriptor)


@bridge.command()
def die_once(ctx: Context, path: str, token: str) -> int:
    """Append a line to a file, and die if it was the first; else return how many there are."""
    effect(ctx, path, token)
    lines = Path(path).read_text().split().count(token)
    if lines == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return lines


@bridge.command()
def spawn_allocate(ctx: Context, bytes: int, seconds: float) -> int:
    """Let a child process allocate that much, and wait for it."""
    code = f"import time; b = bytearray({bytes}); b[::4096] = b'x' * len(b[::4096]); time.sleep({seconds})"
    return subprocess.call([sys.executable, "-S", "-c", code])


@bridge.command()
def payload(ctx: Context, bytes: int) -> Any:
    """Return that many bytes."""
    return b"p" * bytes


@bridge.command(session="write")
def remember(ctx: Context, key: str, value: Any) -> dict[str, Any]:
    """Keep a value in the session's state."""
    ctx.session[key] = value
    return _whoami(ctx)


@bridge.command(session="read")
def recall(ctx: Context, key: str) -> dict[str, Any]:
    """Return a value of the session's state."""
    if key not in ctx.session:
        raise Failure("UnknownName", f"no {key!r}", what="session key", name=key, known=list(ctx.session))
    return {"value": ctx.session[key], **_whoami(ctx)}


@bridge.command(session="write")
def append(ctx: Context, value: Any) -> list[Any]:
    """Add a value to a list in the session's state, and return the list."""
    ctx.session["list"] = [*ctx.session.get("list", []), value]
    return list(ctx.session["list"])


@bridge.command(session="write")
def forget_key(ctx: Context, key: str) -> None:
    """Delete a value of the session's state."""
    del ctx.session[key]


@bridge.command(session="write")
def remember_with_effect(ctx: Context, key: str, value: Any, path: str) -> dict[str, Any]:
    """`remember`, and append the key to a file."""
    effect(ctx, path, key)
    return remember(ctx, key, value)


@bridge.command(session="write")
def remember_then_die(ctx: Context, key: str, value: Any) -> None:
    """Change the session's state and die before the reply."""
    ctx.session[key] = value
    os.kill(os.getpid(), signal.SIGKILL)


@bridge.command(session="write")
def remember_object(ctx: Context, key: str) -> None:
    """Put something into the session's state that cannot cross."""
    ctx.session[key] = object()


@bridge.command(session="read")
def write_in_read(ctx: Context) -> None:
    """Try to change the session's state without the right to."""
    ctx.session["key"] = 1


@bridge.command(session="write")
def ask_writing(ctx: Context, name: str, arguments: dict[str, Any]) -> Any:
    """`ask`, as a command that runs alone in its session."""
    return ctx.call_parent(name, arguments)


@bridge.command()
def count_then_raise(ctx: Context, n: int) -> Iterator[int]:
    """Stream 0 .. n-1, then raise."""
    yield from range(n)
    raise ValueError("after the last chunk")


@bridge.command()
def ask(ctx: Context, name: str, arguments: dict[str, Any]) -> Any:
    """Make a callback and return its answer."""
    return ctx.call_parent(name, arguments)


@bridge.command()
def ask_stream(ctx: Context, name: str, arguments: dict[str, Any]) -> Iterator[Any]:
    """Make a streamed callback and pass its chunks on."""
    with contextlib.closing(ctx.stream_parent(name, arguments)) as chunks:
        yield from chunks


@bridge.command()
def environment(ctx: Context) -> dict[str, str]:
    """Return the worker's environment variables."""
    return dict(os.environ)


def _whoami(ctx: Context) -> dict[str, Any]:
    return {"pid": os.getpid(), "generation": ctx.generation, "worker": ctx.worker, "python": sys.version_info[1]}
