"""A bridge whose commands do to their worker what user code should not. Used by the tests of this folder."""

from __future__ import annotations

import multiprocessing
import os
import resource
import threading
import time
from pathlib import Path
from typing import Any

from dspex_worker.bridge import Bridge, Context, Failure

bridge = Bridge("hostile")


@bridge.command()
def close_everything(ctx: Context) -> None:
    """Close all descriptors but 0, 1 and 2, as daemons do."""
    os.closerange(3, 4000)


@bridge.command()
def close_streams(ctx: Context) -> None:
    """Close the three descriptors that a process is born with."""
    for descriptor in range(3):
        os.close(descriptor)


@bridge.command()
def forbid_descriptors(ctx: Context) -> None:
    """Let not even the open descriptors be polled any more."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@bridge.command()
def forbid_threads(ctx: Context, path: str) -> None:
    """Leave no memory for another thread's stack, make the file `path`, and stay."""
    status = Path("/proc/self/status").read_text()
    taken = int(status.partition("VmData:")[2].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (taken + 1024 * 1024, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    Path(path).touch()
    time.sleep(30.0)


class BareFailure(Failure):
    """A Failure that was never made one."""

    def __init__(self) -> None:
        pass


@bridge.command()
def fail(ctx: Context, how: str) -> None:
    """Raise an exception of ours that cannot be sent as it is."""
    if how == "kind":
        raise Failure(KeyError, "text")  # type: ignore[arg-type]
    if how == "bare":
        raise BareFailure
    if how == "large facts":
        raise Failure("ValueError", "text", one=b"1" * 9_000_000, two=b"2" * 9_000_000)
    raise Failure("ValueError", "text", **{"\ud800": 1})


@bridge.command()
def ask(ctx: Context, name: Any, arguments: Any) -> Any:
    """Make a callback, well-formed or not."""
    return ctx.call_parent(name, arguments)


@bridge.command()
def emit(ctx: Context, name: Any, facts: Any) -> None:
    """Tell an event, well-formed or not."""
    ctx.emit(name, facts)


@bridge.command()
def fork_and_return(ctx: Context, path: str) -> int:
    """Fork; both processes return, the child with a dozen descriptors on a file of its own. Gives the child's pid."""
    child = os.fork()
    if child == 0:
        for _ in range(12):
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return 0
    os.waitpid(child, 0)
    return child


@bridge.command()
def leave_a_thread(ctx: Context, path: str) -> None:
    """Leave a thread behind that asks the supervisor once the call is over, and writes down what became of it."""

    def ask_later() -> None:
        done.wait()
        try:
            outcome = repr(ctx.call_parent("tool", {}))
        except BaseException as error:
            outcome = type(error).__name__
        part = Path(f"{path}.part")
        part.write_text(outcome)
        part.rename(path)

    done.clear()
    threading.Thread(target=ask_later, daemon=True).start()


done = threading.Event()


@bridge.command()
def go_on(ctx: Context) -> None:
    """Let the thread that was left behind go on."""
    done.set()


def square(number: int) -> int:
    """What other processes are to compute."""
    return number * number


@bridge.command()
def squares(ctx: Context, method: str) -> list[int]:
    """Use a pool of processes."""
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(square, [1, 2, 3])


@bridge.command(session="write")
def write(ctx: Context, values: dict[str, Any], spoil: str = "", result: Any = None) -> Any:
    """Write into the session; then put in what cannot be kept, or give what cannot be sent."""
    ctx.session.update(values)
    if spoil == "object":
        ctx.session["zz"] = object()
    elif spoil == "key":
        ctx.session["\ud800"] = 1
    elif spoil == "size":
        ctx.session["zz"] = bytes(1_100_000)
    elif spoil == "look":
        ctx.session.get(1)
        ctx.session.get("\ud800")
    return {1, 2} if spoil == "result" else result


@bridge.command(session="read")
def read(ctx: Context) -> dict[str, Any]:
    """Give the session's state."""
    return dict(ctx.session)


@bridge.command()
def count_sessions(ctx: Context) -> int:
    """How many sessions this worker holds anything for."""
    return len(ctx._running.runtime.sessions)


@bridge.command()
def reveal(ctx: Context, secret: str) -> None:
    """Put a concealed text into an error, its cause and its facts."""
    ctx.conceal(secret)
    try:
        raise ValueError(f"the key {secret} was refused")
    except ValueError as error:
        raise Failure("Unheard", f"about {secret}", of=secret) from error
