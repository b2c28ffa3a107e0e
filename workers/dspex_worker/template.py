"""The template: the single-threaded parent of a pool's workers.

It imports what the workers need once and forks them in milliseconds (`start_method="fork"`), or launches another
interpreter for each (`"exec"`). It opens each child's pidfd before it can reap it, watches memory without sharing a GIL
with the host, and cleans up: when a worker ends, its process group and everything it left behind are killed before it
is reaped. Workers are subreapers, so whatever is adopted here comes from a worker that is dead.

When the supervisor goes away (its end of the control socket closes), the template kills until it has no children, then
exits. The kernel's lifelines work beside it and do not need it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import select
import signal
import socket
import sys
import time
import traceback
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from . import lifeline, memory
from .boot import EXIT_BOOT, load_bridge, run_worker
from .bridge import Bridge
from .failures import describe
from .wire import decode, encode

CONTROL_SIZE = 64 * 1024  # bytes of one control message; each is one packet
STDIO = 3
POLL_CAPPED = 0.05  # seconds between looks at the memory of workers under a cap
POLL_UNCAPPED = 0.5
RESCAN_EVERY = 0.5  # seconds between looks for new members of a worker's tree


@dataclass
class Child:
    """A worker, as its parent knows it."""

    generation: int
    pid: int
    pidfd: int
    lifeline: int
    gauge: memory.TreeGauge
    reported: int = 0
    is_over: bool = False


class Template:
    """One pool's template. Everything runs on the main thread; the only waits are in `poll`."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, Child] = {}  # by pidfd
        self._bridge: Bridge | None = None
        self._settings: dict[str, Any] = {}
        self._poll = select.poll()
        self._poll.register(control.fileno(), select.POLLIN)
        self._next_look = 0.0
        self._next_rescan = 0.0

    def warm(self, settings: dict[str, Any]) -> None:
        """Import for all future children, unless they are to be exec'd; then say that the template is ready."""
        self._settings = settings
        threads = 1
        if settings["start_method"] == "fork":
            self._bridge = load_bridge(settings)
            gc.collect()
            gc.freeze()  # children then share these objects' pages instead of copying them at their first collection
            threads = len(list(Path("/proc/self/task").iterdir()))
            if threads > 1:  # forking would lose those threads and keep their locks
                self._bridge = None
        self._say("warm", {"pid": os.getpid(), "threads": threads, "forks": self._bridge is not None})

    def serve(self) -> NoReturn:
        """Start, watch and bury workers until the supervisor is gone."""
        while True:
            for descriptor, event in self._poll.poll(self._patience_ms()):
                if descriptor != self._control.fileno():
                    self._bury(self._children[descriptor])
                elif event & select.POLLIN:
                    self._obey()
                else:
                    self._end()
            self._look_at_memory()

    # -- starting --

    def _obey(self) -> None:
        try:
            data, ancillary, _, _ = self._control.recvmsg(CONTROL_SIZE, socket.CMSG_SPACE(16 * array("i").itemsize))
        except ConnectionResetError:  # it died with words of ours unread
            self._end()
        descriptors = _descriptors(ancillary)
        if not data:
            self._end()
        order = decode(data)
        if order[0] == "spawn":
            self._spawn(order[1], descriptors)
        elif order[0] == "kill":
            self._kill(order[1])

    def _spawn(self, generation: int, descriptors: list[int]) -> None:
        """Start a worker on (stdin, stdout, stderr, lifeline), and pass its pidfd on."""
        try:
            pid = os.fork()
        except OSError as error:
            self._say("not_spawned", {"generation": generation, "error": str(error)})
            for descriptor in descriptors:
                os.close(descriptor)
            return
        if pid == 0:
            self._be_worker(descriptors)
        pidfd = os.pidfd_open(pid)
        for descriptor in descriptors[:STDIO]:
            os.close(descriptor)
        child = Child(generation, pid, pidfd, descriptors[STDIO], memory.TreeGauge(pid))
        self._children[pidfd] = child
        self._poll.register(pidfd, select.POLLIN)
        self._say("spawned", {"generation": generation, "pid": pid}, pidfd)

    def _be_worker(self, descriptors: list[int]) -> NoReturn:
        """In the child: become a session of its own, drop all that is the template's, and go."""
        try:
            os.setsid()
            for target, descriptor in enumerate(descriptors[:STDIO]):
                os.dup2(descriptor, target)
            self._close_inherited(keep=descriptors[STDIO])
            if self._bridge is None:
                os.set_inheritable(descriptors[STDIO], True)
                python = self._settings["python"]
                os.execv(python, [python, "-P", "-m", "dspex_worker", "--lifeline", str(descriptors[STDIO])])
            _reseed()
            run_worker(descriptors[STDIO], self._bridge)
        except BaseException as error:  # a forked child must never run on as a second template
            os.write(2, f"the worker could not start: {error}\n".encode(errors="replace"))
        os._exit(EXIT_BOOT)

    def _close_inherited(self, keep: int) -> None:
        os.closerange(STDIO, keep)
        os.closerange(keep + 1, max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 1)

    # -- watching --

    def _patience_ms(self) -> float | None:
        return max(0.0, self._next_look - time.monotonic()) * 1000 if self._children else None

    def _look_at_memory(self) -> None:
        now = time.monotonic()
        if now < self._next_look or not self._children:
            return
        cap = self._settings.get("memory_cap")
        self._next_look = now + (POLL_CAPPED if cap else POLL_UNCAPPED)
        is_rescan = now >= self._next_rescan
        if is_rescan:
            self._next_rescan = now + RESCAN_EVERY
        for child in self._children.values():
            self._look_at(child, cap, is_rescan)

    def _look_at(self, child: Child, cap: int | None, is_rescan: bool) -> None:
        if is_rescan:
            child.gauge.rescan()
        rss = child.gauge.rss()
        if cap and rss > cap and not child.is_over:
            child.is_over = True
            self._say("over", {"generation": child.generation, "seen": rss, "peak": child.gauge.peak, "cap": cap})
            self._kill_tree(child)
        elif is_rescan and abs(rss - child.reported) > 1024 * 1024:
            child.reported = rss
            self._say("memory", {"generation": child.generation, "rss": rss, "peak": child.gauge.peak})

    # -- ending --

    def _kill(self, generation: int) -> None:
        for child in self._children.values():
            if child.generation == generation:
                self._kill_tree(child)

    def _kill_tree(self, child: Child) -> None:
        """Kill the worker's descendants and its group; the worker is unreaped, so its pid is its own."""
        below = memory.descendants(child.pid)
        _kill_group(child.pid)
        for pid in below:
            _kill_pid(pid)

    def _bury(self, child: Child) -> None:
        """The worker has ended: kill what it left, reap it, tell the supervisor."""
        _kill_group(child.pid)
        self._kill_orphans()
        _, status, usage = os.wait4(child.pid, 0)
        self._poll.unregister(child.pidfd)
        del self._children[child.pidfd]
        os.close(child.pidfd)
        os.close(child.lifeline)  # kept until now: without a reader, an emptied pipe would not kill what was left
        child.gauge.close()
        code = os.waitstatus_to_exitcode(status)
        facts = {"exit_code": code if code >= 0 else None, "signal": -code if code < 0 else None}
        peak = max(child.gauge.peak, usage.ru_maxrss * 1024)
        self._say("exit", {"generation": child.generation, "peak": peak, **facts})

    def _kill_orphans(self) -> None:
        """Kill whatever was adopted: living workers keep their own orphans, so it belonged to a dead one."""
        known = {child.pid for child in self._children.values()}
        deadline = time.monotonic() + 1.0
        while strangers := [pid for pid in memory.children(os.getpid()) if pid not in known]:
            for pid in strangers:
                _kill_pid(pid)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0 if time.monotonic() < deadline else os.WNOHANG)
            if time.monotonic() > deadline:
                break  # one that SIGKILL does not end (a disk that hangs) must not stop the pool

    def _end(self) -> NoReturn:
        """The supervisor is gone: kill until there are no children."""
        while pids := memory.children(os.getpid()):
            for child in pids:
                for pid in (*memory.descendants(child), child):
                    _kill_pid(pid)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, 0 if pids else os.WNOHANG)[0]:  # its own children only: nobody else runs here
                    pids = []
        os._exit(0)

    def _say(self, word: str, facts: dict[str, Any], descriptor: int | None = None) -> None:
        ancillary = []
        if descriptor is not None:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [descriptor]))]
        try:
            self._control.sendmsg([encode([word, facts])], ancillary)
        except OSError:
            self._end()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    for descriptor in found:
        os.set_inheritable(descriptor, False)
    return list(found)


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _kill_pid(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _reseed() -> None:
    """Two children must not draw the same numbers; numpy's global generator does not reseed itself at fork."""
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed(int.from_bytes(os.urandom(4), "little"))


def _take_own_signals() -> None:
    """Undo what is inherited through exec from a host that ignores or blocks signals: without SIGCHLD, children reap
    themselves and nobody learns how they ended; a blocked SIGUSR1 would never interrupt a call (C15)."""
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # those two Python itself ignores
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def main() -> NoReturn:
    """`python -m dspex_worker.template --control FD --lifeline FD`: started by the supervisor, one for each pool."""
    parser = argparse.ArgumentParser(prog="dspex_worker.template", description=main.__doc__)
    parser.add_argument("--control", type=int, required=True, help="a SOCK_SEQPACKET socket to the supervisor")
    parser.add_argument("--lifeline", type=int, required=True, help="the read end of the template's lifeline")
    arguments = parser.parse_args()
    _take_own_signals()
    control = socket.socket(fileno=arguments.control)
    for descriptor in (arguments.control, arguments.lifeline):
        os.set_inheritable(descriptor, False)
    lifeline.arm(arguments.lifeline)  # while it imports it cannot look at its socket
    lifeline.become_subreaper()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    template = Template(control)
    try:
        template.warm(decode(control.recv(CONTROL_SIZE))[1])
    except BaseException as error:  # said to the supervisor, whose WorkerBootError carries it and the stderr tail
        traceback.print_exc()
        template._say("not_warm", describe(error))
        os._exit(EXIT_BOOT)
    lifeline.disarm(arguments.lifeline)  # from here on the socket tells it, and it has children to clean up
    try:
        template.serve()
    except BaseException:  # its workers go on without it (T6), unless nobody is left to kill them
        traceback.print_exc()
        if lifeline.is_cut(control.fileno()):
            template._end()
        os._exit(EXIT_BOOT)


if __name__ == "__main__":
    main()
