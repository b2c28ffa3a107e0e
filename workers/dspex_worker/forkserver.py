"""The template: the single-threaded parent of a pool's workers.

It imports what the workers need once and forks them in milliseconds (`start_method="fork"`), or launches another
interpreter for each (`"exec"`). It opens each child's pidfd before it can reap it, has memory watched (`watch`) without
sharing a GIL with the host, and cleans up: when a worker ends, its process group and everything it left behind are
killed before it is reaped. Workers are subreapers, so whatever is adopted here comes from a worker that is dead.

When the supervisor goes away (its end of the control socket closes), the template kills until it has no children, then
exits. The kernel's lifelines work beside it and do not need it.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import os
import select
import signal
import socket
import time
import traceback
from array import array
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, NoReturn

from . import lifeline, signals
from .birth import STDIO, Gate, be_worker
from .bridge import Bridge
from .error_report import describe
from .memory import procfs
from .memory.cgroup import ControlGroup
from .memory.monitor import MemoryMonitor, MonitoredWorker
from .startup import EXIT_BOOT, load_bridge
from .vigil import Hold
from .wire import decode, encode

CONTROL_SIZE = 64 * 1024  # bytes of one control message; each is one packet


@dataclass
class ForkedWorker:
    """A worker, as its parent knows it."""

    generation: int
    pid: int
    pidfd: int
    lifeline: int
    watched: MonitoredWorker
    group: ControlGroup | None = None


class ForkServer:
    """One pool's template. Everything runs on the main thread; the only waits are in `poll`."""

    def __init__(self, control: socket.socket, parent: int) -> None:
        self._control = control
        self._parent = parent
        self._parent_end = _open_pidfd(parent)
        self._children: dict[int, ForkedWorker] = {}  # by pidfd
        self._bridge: Bridge | None = None
        self._settings: dict[str, Any] = {}
        self._imported_sigchld: Any = None  # what an import did with SIGCHLD: a worker's children are its own
        self._poll = select.poll()
        self._poll.register(control.fileno(), select.POLLIN)
        if self._parent_end is not None:  # a child that the supervisor forked may keep our socket open
            self._poll.register(self._parent_end, select.POLLIN)
        self._watch = MemoryMonitor(report=self._report, over=self._over)

    def greet(self) -> None:
        """Say that this is no stranger's program, before any code of the user's runs."""
        self._say("hello", {"pid": os.getpid()})

    def warm(self, settings: dict[str, Any], hold: Hold) -> None:
        """Import for all future children, unless they are to be exec'd; then say that the template is ready.

        `hold` is let go: from then on the control socket tells of the supervisor's end, and there are children to kill.
        """
        self._settings = settings
        threads = 1
        if settings["start_method"] == "fork":
            self._bridge = load_bridge(settings)
            # An import that ignores SIGCHLD, or handles it by waiting for any child, would take our children's ends.
            self._imported_sigchld = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signals.leave_to_supervisor()
            gc.collect()
            gc.freeze()  # children then share these objects' pages instead of copying them at their first collection
        hold.release()
        if self._bridge is not None:
            threads = _count_threads()
            if threads != 1:  # forking would lose those threads and keep their locks
                self._bridge = None
        facts = {"pid": os.getpid(), "threads": threads, "forks": self._bridge is not None}
        self._say("warm", {**facts, "memory_problem": procfs.problem()})

    def serve(self) -> NoReturn:
        """Start, watch and bury workers until the supervisor is gone."""
        while True:
            for descriptor, event in self._poll.poll(self._patience_ms()):
                if descriptor in self._children:
                    self._bury(self._children[descriptor])
                elif descriptor == self._control.fileno() and event & select.POLLIN:
                    self._obey()
                else:
                    self._end()
            if os.getppid() != self._parent:
                self._end()
            self._watch.look(time.monotonic())

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
        branch, gate = self._settings["cgroup"], None
        try:
            if len(descriptors) <= STDIO:  # the kernel drops what does not fit into this process's table
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            gate = Gate() if branch is not None else None
            signals.hold()  # until the child leaves them to the supervisor as well
            pid = os.fork()
        except OSError as error:
            signals.release()
            if gate is not None:
                gate.open()
            self._say("not_spawned", {"generation": generation, "error": str(error)})
            for descriptor in descriptors:
                os.close(descriptor)
            return
        if pid == 0:
            if self._imported_sigchld is not None:
                signal.signal(signal.SIGCHLD, self._imported_sigchld)
            be_worker(self._settings, self._bridge, descriptors, gate)
        signals.release()
        pidfd = os.pidfd_open(pid)
        for descriptor in descriptors[:STDIO]:
            os.close(descriptor)
        watched = self._watch.begin(generation, pid, self._settings["memory_cap"], self._settings["memory_soft"])
        child = ForkedWorker(generation, pid, pidfd, descriptors[STDIO], watched)
        problem = ""
        if gate is not None:
            problem = self._enclose(child, Path(branch))
            gate.open()
        self._children[pidfd] = child
        self._poll.register(pidfd, select.POLLIN)
        self._say("spawned", {"generation": generation, "pid": pid, "cgroup_problem": problem}, pidfd)

    def _enclose(self, child: ForkedWorker, branch: Path) -> str:
        """Put the worker, which waits, into a control group of its own; give why that was not possible."""
        try:
            group = ControlGroup.create(
                branch, f"{self._settings['pool']}.{child.generation}", self._settings["memory_cap"]
            )
        except OSError as error:
            return f"no group in {branch}: {error.strerror}"
        try:
            group.adopt(child.pid)
        except OSError as error:
            group.remove(patience=0.0)
            return f"no process can be moved to {branch}: {error.strerror}"
        child.group = group
        return ""

    # -- watching --

    def _patience_ms(self) -> float | None:
        due = self._watch.due
        return None if due == inf else max(0.0, due - time.monotonic()) * 1000

    def _report(self, watched: MonitoredWorker, counted: int) -> None:
        gauge = watched.gauge
        self._say(
            "memory",
            {"generation": watched.generation, "rss": gauge.rss, "counted": counted, "peak": gauge.peak},
        )

    def _over(self, watched: MonitoredWorker, seen: int) -> None:
        """Say it, then kill: the supervisor is to know why the worker died when it learns that it did."""
        self._say_over(watched, seen, watched.gauge.peak, "poll")
        self._kill(watched.generation)

    def _say_over(self, watched: MonitoredWorker, seen: int, peak: int, layer: str) -> None:
        cap = self._settings["memory_cap"]
        facts = {"seen": seen, "peak": max(peak, seen), "cap": cap, "layer": layer}
        self._say("over", {"generation": watched.generation, **facts})

    # -- ending --

    def _kill(self, generation: int) -> None:
        for child in self._children.values():
            if child.generation == generation:
                self._kill_tree(child)

    def _kill_tree(self, child: ForkedWorker) -> None:
        """Kill the worker's descendants and its group; the worker is unreaped, so its pid is its own."""
        if child.group is not None:
            child.group.kill()
        below = procfs.descendants(child.pid)
        _kill_group(child.pid)
        for pid in below:
            _kill_pid(pid)

    def _bury(self, child: ForkedWorker) -> None:
        """The worker has ended: kill what it left, reap it, tell the supervisor."""
        _kill_group(child.pid)
        self._kill_orphans()
        _, status, usage = os.wait4(child.pid, 0)
        self._poll.unregister(child.pidfd)
        del self._children[child.pidfd]
        os.close(child.pidfd)
        os.close(child.lifeline)  # kept until now: without a reader, an emptied pipe would not kill what was left
        self._watch.end(child.generation)
        code = os.waitstatus_to_exitcode(status)
        facts = {"exit_code": code if code >= 0 else None, "signal": -code if code < 0 else None}
        peak = max(child.watched.gauge.peak, usage.ru_maxrss * 1024)
        is_sacrificed = False
        if child.group is not None:
            peak = max(peak, child.group.peak())
            is_sacrificed = self._read_group(child, child.group)
        self._say("exit", {"generation": child.generation, "peak": peak, "sacrificed": is_sacrificed, **facts})

    def _read_group(self, child: ForkedWorker, group: ControlGroup) -> bool:
        """Say it if the group's limit ended the worker; give whether the machine's did. Then the group goes."""
        is_full, is_sacrificed = group.was_full(), group.was_sacrificed()
        if is_full and not child.watched.is_over:
            peak = group.peak() or self._settings["memory_cap"]
            self._say_over(child.watched, peak, peak, "cgroup")
        group.kill()
        group.remove()
        return is_sacrificed

    def _kill_orphans(self) -> None:
        """Kill whatever was adopted: living workers keep their own orphans, so it belonged to a dead one."""
        known = {child.pid for child in self._children.values()}
        deadline = time.monotonic() + 1.0
        while strangers := [pid for pid in procfs.children(os.getpid()) if pid not in known]:
            for pid in strangers:
                _kill_pid(pid)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0 if time.monotonic() < deadline else os.WNOHANG)
            if time.monotonic() > deadline:
                break  # one that SIGKILL does not end (a disk that hangs) must not stop the pool

    def _end(self) -> NoReturn:
        """The supervisor is gone: kill until there are no children."""
        while pids := procfs.children(os.getpid()):
            for child in pids:
                for pid in (*procfs.descendants(child), child):
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


def _open_pidfd(pid: int) -> int | None:
    """Give what tells of the end of a process; None if it has ended, or this system cannot."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _count_threads() -> int:
    """Give how many threads this process has; 0 if that cannot be known."""
    try:
        return len(list(os.scandir("/proc/self/task")))
    except OSError:
        return 0


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _kill_pid(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _lead_a_session() -> None:
    """Have a group of one's own, without the host's terminal; the host has seen to it unless its Python is too old."""
    if os.getsid(0) != os.getpid():
        os.setsid()


def main() -> NoReturn:
    """`python -m dspex_worker.forkserver --control FD --lifeline FD`: started by the supervisor, one for each pool."""
    parser = argparse.ArgumentParser(prog="dspex_worker.forkserver", description=main.__doc__)
    parser.add_argument("--control", type=int, required=True, help="a SOCK_SEQPACKET socket to the supervisor")
    parser.add_argument("--lifeline", type=int, required=True, help="the read end of the template's lifeline")
    arguments = parser.parse_args()
    parent = os.getppid()
    _lead_a_session()
    signals.take_own()
    control = socket.socket(fileno=arguments.control)
    for descriptor in (arguments.control, arguments.lifeline):
        os.set_inheritable(descriptor, False)
    hold = Hold(arguments.lifeline, parent=parent)  # while it imports it cannot look at its socket
    lifeline.become_subreaper()
    template = ForkServer(control, parent)
    template.greet()
    try:
        template.warm(decode(control.recv(CONTROL_SIZE))[1], hold)
    except BaseException as error:  # said to the supervisor, whose WorkerBootError carries it and the stderr tail
        traceback.print_exc()
        template._say("not_warm", describe(error))
        os._exit(EXIT_BOOT)
    try:
        template.serve()
    except BaseException:  # its workers go on without it (T6), unless nobody is left to kill them
        traceback.print_exc()
        if lifeline.is_cut(control.fileno()):
            template._end()
        os._exit(EXIT_BOOT)


if __name__ == "__main__":
    main()
