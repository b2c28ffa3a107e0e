"""Turn a bare process into a worker: lead a session, claim stdio, send HELLO, set up, be ready."""

from __future__ import annotations

import errno
import faulthandler
import os
import platform
import random
import resource
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

from . import __version__, launching, signals, stack_dump, starting, stdio
from .bridge import Bridge, Settings
from .bridge_loader import load_bridge
from .context import Identity
from .error_report import describe
from .exits import EXIT_BOOT, leave
from .frame_writer import FrameWriter
from .lifeline import Lifeline, become_subreaper
from .memory import rlimits
from .message_reader import MessageReader
from .output_log import OutputLog
from .process_title import set_title
from .processor_share import take_share
from .runtime import Runtime
from .teardown import Teardown
from .wire import FRAME_MOST, MAGIC, PROTOCOL, FrameBuffer, Malformed, messages
from .wire.messages import Kind

STDIO = 3  # descriptors 0, 1 and 2


# -- a forked child of the fork server --


class Gate:
    """Holds a forked child back until its parent opens the gate, or is gone."""

    def __init__(self) -> None:
        self._inside, self._outside = os.pipe2(os.O_CLOEXEC)

    def open(self) -> None:
        """Open it, in the parent."""
        os.close(self._inside)
        os.close(self._outside)

    def wait(self) -> None:
        """Wait in the child, having closed its copy of the parent's end, whose closing opens the gate."""
        os.close(self._outside)
        os.read(self._inside, 1)
        os.close(self._inside)


def become_worker(settings: Settings, bridge: Bridge | None, descriptors: list[int], gate: Gate | None) -> NoReturn:
    """Lead a session, close all that is the fork server's, and run the worker: in this process, or through exec."""
    try:
        os.setsid()
        if gate is not None:
            gate.wait()
        for target, descriptor in enumerate(descriptors[:STDIO]):
            os.dup2(descriptor, target)
        lifeline_end = descriptors[STDIO]
        _close_inherited(keep=lifeline_end)
        if bridge is None:
            os.set_inheritable(lifeline_end, True)
            python = settings["python"]
            roots = launching.ROOTS if python == sys.executable else ()
            os.execv(python, [*launching.command(python, "dspex_worker", roots), "--lifeline", str(lifeline_end)])
        _reseed()
        run_worker(lifeline_end, bridge)
    except BaseException as error:  # a forked child must never run on as a second fork server
        os.write(2, f"the worker could not start: {error}\n".encode(errors="replace"))
    os._exit(EXIT_BOOT)


def _close_inherited(keep: int) -> None:
    os.closerange(STDIO, keep)
    try:
        last = max(int(entry.name) for entry in os.scandir("/proc/self/fd"))
    except OSError:  # no /proc: as many as there may be
        last = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    os.closerange(keep + 1, last + 1)


def _reseed() -> None:
    """Reseed random generators: two children must not draw the same numbers, and numpy's does not reseed at fork."""
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed(int.from_bytes(os.urandom(4), "little"))


# -- every worker --


def run_worker(lifeline_end: int, bridge: Bridge | None = None) -> NoReturn:
    """Run a worker on descriptors 0, 1, 2 until the process ends; `bridge` is given if the fork server loaded it."""
    starting.begin()
    incoming, outgoing = stdio.claim()
    writer, buffer = FrameWriter(outgoing), FrameBuffer(FRAME_MOST)  # the host keeps to the pool's limit
    own_lifeline = Lifeline(lifeline_end)
    become_subreaper()  # its orphans stay below it, so that its end is theirs and its memory includes theirs
    signals.leave_to_supervisor()
    faulthandler.enable(sys.stderr)
    stacks = stack_dump.listen()
    rlimits.prefer_as_oom_victim()
    writer.send(Kind.HELLO, MAGIC, *PROTOCOL, _facts(own_lifeline.kind, stacks))
    try:
        settings = _read_hello(incoming, buffer)
        set_title(f"dspex: {settings['worker']}")
        starting.begin()  # the title was a name, too
        bridge = bridge or load_bridge(settings)
        _set_up(bridge, settings)
    except BaseException as error:  # the supervisor shows it, as text, to whoever waits for the pool
        traceback.print_exc()
        writer.send(Kind.ERROR, 0, describe(error), None)
        leave(EXIT_BOOT)
    starting.end()
    signals.leave_to_supervisor()  # whatever an import or a setup made of them
    output = OutputLog(writer)
    output.install()
    writer.send(Kind.READY, {name: c.facts() for name, c in bridge.commands.items()})
    writer.limit = settings["frame_limit"]
    Runtime(
        bridge,
        identity=Identity(settings["pool"], settings["worker"], settings["generation"]),
        reader=MessageReader(incoming, buffer, settings["worker"]),
        writer=writer,
        private=(incoming, outgoing, lifeline_end, *([stacks] if stacks >= 0 else [])),
        concurrency=settings["concurrency"],
        output=output,
        teardown=Teardown(bridge, settings, output),
        stacks=stacks,
    ).serve()


def _facts(lifeline_kind: str, stacks: int) -> dict[str, Any]:
    return {
        "lifeline": lifeline_kind,
        "stacks": stacks,
        "pid": os.getpid(),
        "worker_version": __version__,
        "python": platform.python_version(),
        "path": str(Path(__file__).parent),
    }


def _read_hello(incoming: int, buffer: FrameBuffer) -> Settings:
    """Return the settings in the supervisor's HELLO.

    Raises:
        Malformed: something else came, or another protocol.
    """
    while True:
        data = os.read(incoming, 4)  # no more than a header at once: what follows the HELLO belongs to the runtime
        if not data:
            leave(0)
        for body in buffer.feed(data):
            message = messages.read(body)
            if message[0] != Kind.HELLO or message[1] != MAGIC or message[2] != PROTOCOL[0]:
                raise Malformed(f"the supervisor greets with {message[:4]}; this worker speaks {MAGIC} {PROTOCOL[0]}")
            settings: Settings = message[4]
            return settings


def _set_up(bridge: Bridge, settings: Settings) -> None:
    """Set the limits, run the bridge's setups, and check that what is left of the cap is enough."""
    take_share(settings["pool"], settings.get("nice") or 0, settings.get("cpus"))
    cap = settings.get("memory_cap")
    if cap is not None and not bridge.runs_optimizers:
        rlimits.limit_data(cap, settings["concurrency"])
    for setup in bridge.setups:
        setup(settings)
    if cap is not None:
        rlimits.check_cap(settings["pool"], cap)
    _check_threads()


def _check_threads() -> None:
    """Start a thread and end it: the first call needs one.

    Raises:
        OSError: none is left.
    """
    thread = threading.Thread(target=int, name="dspex-check")
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, f"{starting.NO_PROCESSES} (a worker needs threads: {error})") from None
    thread.join()
