"""Fork a pool's workers from a single-threaded parent, and reap them: the fork server.

It imports what the workers need once and forks them in milliseconds (`start_method="fork"`), or launches another
interpreter for each (`"exec"`). It opens each child's pidfd before it can reap it, monitors the workers' memory without
sharing a GIL with the host, and cleans up: when a worker ends, its process group and everything it left behind are
killed before it is reaped.

When the supervisor goes away (its end of the control socket closes), the fork server kills until it has no children,
then exits. The kernel's lifelines work beside it and do not need it.
"""

from __future__ import annotations

import argparse
import errno
import gc
import os
import select
import signal
import time
import traceback
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, NoReturn

from . import signals, starting
from .bridge import Bridge
from .bridge_loader import load_bridge
from .control_socket import ControlSocket
from .error_report import describe
from .exits import EXIT_BOOT
from .lifeline import Lifeline, become_subreaper, is_cut
from .memory import procfs
from .memory.cgroup import ControlGroup
from .memory.monitor import MemoryMonitor, MonitoredWorker
from .process_title import set_title
from .reaping import kill_all_children, kill_group, kill_orphans, kill_tree
from .startup import STDIO, Gate, become_worker
from .teardown import keep_finalizers_from_workers


@dataclass
class ForkedWorker:
    """A worker, as its parent sees it."""

    generation: int
    pid: int
    pidfd: int
    lifeline: int
    monitored: MonitoredWorker
    group: ControlGroup | None = None


class ForkServer:
    """One pool's fork server. Everything runs on the main thread; the only waits are in `poll`."""

    def __init__(self, control: ControlSocket, parent: int) -> None:
        self._control = control
        self._parent = parent
        self._parent_end = _open_pidfd(parent)
        self._workers: dict[int, ForkedWorker] = {}  # by pidfd
        self._bridge: Bridge | None = None
        self._settings: dict[str, Any] = {}
        self._imported_sigchld: Any = None  # what an import did with SIGCHLD: a worker's children are its own
        self._poll = select.poll()
        self._poll.register(control.descriptor, select.POLLIN)
        if self._parent_end is not None:  # a child that the supervisor forked may keep our socket open
            self._poll.register(self._parent_end, select.POLLIN)
        self._monitor = MemoryMonitor(report=self._report_memory, over=self._on_over)

    # -- warming --

    def warm(self, own_lifeline: Lifeline) -> None:
        """Greet, take the settings, import for all future children unless they are exec'd, and report.

        `own_lifeline` is released: from then on the control socket tells of the supervisor's end, and there are
        children to kill.
        """
        self._send("hello", {"pid": os.getpid()})  # this is no stranger's program, before any code of the user's runs
        (_, self._settings), _ = self._control.receive()
        set_title(f"dspex: {self._settings['pool']} fork server")
        starting.begin()  # the title was a name, too
        threads = 1
        if self._settings["start_method"] == "fork":
            self._import_bridge()
        own_lifeline.release()
        if self._bridge is not None:
            threads = _count_threads()
            if threads != 1:  # forking would lose those threads and keep their locks
                self._bridge = None
        starting.end_of_warming()
        facts = {"pid": os.getpid(), "threads": threads, "forks": self._bridge is not None}
        self._send("warm", {**facts, "memory_problem": procfs.problem()})

    def _import_bridge(self) -> None:
        self._bridge = load_bridge(self._settings)
        keep_finalizers_from_workers()
        # An import that ignores SIGCHLD, or handles it by waiting for any child, would take our children's ends.
        self._imported_sigchld = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signals.leave_to_supervisor()
        gc.collect()
        gc.freeze()  # children then share these objects' pages instead of copying them at their first collection

    def fail(self, error: BaseException) -> None:
        """Report why it cannot be warm; the supervisor's WorkerBootError carries it and the end of stderr."""
        self._send("not_warm", describe(error))

    # -- serving --

    def serve(self) -> NoReturn:
        """Start, watch and reap workers until the supervisor is gone."""
        while True:
            for descriptor, event in self._poll.poll(self._poll_timeout_ms()):
                if descriptor in self._workers:
                    self._reap(self._workers[descriptor])
                elif descriptor == self._control.descriptor and event & select.POLLIN:
                    self._handle_command()
                else:
                    self.end()
            if os.getppid() != self._parent:
                self.end()
            self._monitor.look(time.monotonic())

    def end(self) -> NoReturn:
        """Kill all remaining workers, and exit: the supervisor is gone."""
        kill_all_children()
        os._exit(0)

    def _poll_timeout_ms(self) -> float | None:
        due = self._monitor.due
        return None if due == inf else max(0.0, due - time.monotonic()) * 1000

    def _handle_command(self) -> None:
        try:
            command, descriptors = self._control.receive()
        except ConnectionError:  # gone, perhaps with messages of ours unread
            self.end()
        if command[0] == "spawn":
            self._spawn(command[1], descriptors)
        elif command[0] == "kill":
            self._kill(command[1])

    def _send(self, kind: str, facts: dict[str, Any], descriptor: int | None = None) -> None:
        try:
            self._control.send(kind, facts, descriptor)
        except OSError:
            self.end()

    # -- starting workers --

    def _spawn(self, generation: int, descriptors: list[int]) -> None:
        """Start a worker on (stdin, stdout, stderr, lifeline), and pass its pidfd on."""
        branch, gate = self._settings["cgroup"], None
        try:
            if len(descriptors) <= STDIO:  # the kernel drops what does not fit into this process's table
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            gate = Gate() if branch is not None else None
            signals.block()  # until the child leaves them to the supervisor as well
            pid = os.fork()
        except OSError as error:
            signals.unblock()
            self._report_not_spawned(generation, descriptors, gate, error)
            return
        if pid == 0:
            if self._imported_sigchld is not None:
                signal.signal(signal.SIGCHLD, self._imported_sigchld)
            become_worker(self._settings, self._bridge, descriptors, gate)
        signals.unblock()
        worker = self._take_in(generation, pid, descriptors)
        problem = ""
        if gate is not None:
            assert branch is not None
            problem = self._enclose(worker, Path(branch))
            gate.open()
        self._workers[worker.pidfd] = worker
        self._poll.register(worker.pidfd, select.POLLIN)
        self._send("spawned", {"generation": generation, "pid": pid, "cgroup_problem": problem}, worker.pidfd)

    def _report_not_spawned(self, generation: int, descriptors: list[int], gate: Gate | None, error: OSError) -> None:
        if gate is not None:
            gate.open()
        self._send("not_spawned", {"generation": generation, "error": str(error)})
        for descriptor in descriptors:
            os.close(descriptor)

    def _take_in(self, generation: int, pid: int, descriptors: list[int]) -> ForkedWorker:
        pidfd = os.pidfd_open(pid)
        for descriptor in descriptors[:STDIO]:
            os.close(descriptor)
        cap, soft = self._settings["memory_cap"], self._settings["memory_soft"]
        return ForkedWorker(generation, pid, pidfd, descriptors[STDIO], self._monitor.begin(generation, pid, cap, soft))

    def _enclose(self, worker: ForkedWorker, branch: Path) -> str:
        """Put the worker, which waits, into a control group of its own; return why that was not possible, or ""."""
        name, cap = f"{self._settings['pool']}.{worker.generation}", self._settings["memory_cap"]
        try:
            group = ControlGroup.create(branch, name, cap)
        except OSError as error:
            return f"no group in {branch}: {error.strerror}"
        try:
            group.adopt(worker.pid)
        except OSError as error:
            group.remove(patience=0.0)
            return f"no process can be moved to {branch}: {error.strerror}"
        worker.group = group
        return ""

    # -- their memory --

    def _report_memory(self, monitored: MonitoredWorker, counted: int) -> None:
        gauge = monitored.gauge
        facts = {"generation": monitored.generation, "rss": gauge.rss, "counted": counted, "peak": gauge.peak}
        self._send("memory", facts)

    def _on_over(self, monitored: MonitoredWorker, seen: int) -> None:
        """Report it, then kill: the supervisor is to know why the worker died when it learns that it did."""
        self._report_over(monitored, seen, monitored.gauge.peak, "poll")
        self._kill(monitored.generation)

    def _report_over(self, monitored: MonitoredWorker, seen: int, peak: int, layer: str) -> None:
        cap = self._settings["memory_cap"]
        facts = {"seen": seen, "peak": max(peak, seen), "cap": cap, "layer": layer}
        self._send("over", {"generation": monitored.generation, **facts})

    # -- their ends --

    def _kill(self, generation: int) -> None:
        for worker in self._workers.values():
            if worker.generation == generation:
                if worker.group is not None:
                    worker.group.kill()
                kill_tree(worker.pid)

    def _reap(self, worker: ForkedWorker) -> None:
        """Kill what an ended worker left, reap it, and report how it ended."""
        kill_group(worker.pid)
        kill_orphans({known.pid for known in self._workers.values()})
        _, status, usage = os.wait4(worker.pid, 0)
        self._remove(worker)
        code = os.waitstatus_to_exitcode(status)
        facts = {"exit_code": code if code >= 0 else None, "signal": -code if code < 0 else None}
        peak = max(worker.monitored.gauge.peak, usage.ru_maxrss * 1024)
        is_sacrificed = False
        if worker.group is not None:
            peak = max(peak, worker.group.peak())
            is_sacrificed = self._remove_group(worker, worker.group)
        self._send("exit", {"generation": worker.generation, "peak": peak, "sacrificed": is_sacrificed, **facts})

    def _remove(self, worker: ForkedWorker) -> None:
        self._poll.unregister(worker.pidfd)
        del self._workers[worker.pidfd]
        os.close(worker.pidfd)
        os.close(worker.lifeline)  # kept until now: without a reader, an emptied pipe would not kill what was left
        self._monitor.end(worker.generation)

    def _remove_group(self, worker: ForkedWorker, group: ControlGroup) -> bool:
        """Report it if the group's limit ended the worker; return whether the machine's did. Then remove the group."""
        is_full, is_sacrificed = group.was_full(), group.was_sacrificed()
        if is_full and not worker.monitored.is_over:
            peak = group.peak() or self._settings["memory_cap"]
            self._report_over(worker.monitored, peak, peak, "cgroup")
        group.kill()
        group.remove()
        return is_sacrificed


def _open_pidfd(pid: int) -> int | None:
    """Return a pidfd of a process; None if it has ended, or this system has none."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _count_threads() -> int:
    """Return how many threads this process has; 0 if that cannot be known."""
    try:
        return len(list(os.scandir("/proc/self/task")))
    except OSError:
        return 0


def _lead_a_session() -> None:
    """Lead a session, without the host's terminal; the host has seen to it unless its Python is too old."""
    if os.getsid(0) != os.getpid():
        os.setsid()


def main() -> NoReturn:
    """`python -m dspex_worker.forkserver --control FD --lifeline FD`: started by the supervisor, one for each pool."""
    parser = argparse.ArgumentParser(prog="dspex_worker.forkserver", description=main.__doc__)
    parser.add_argument("--control", type=int, required=True, help="a SOCK_SEQPACKET socket to the supervisor")
    parser.add_argument("--lifeline", type=int, required=True, help="the read end of the fork server's lifeline")
    arguments = parser.parse_args()
    parent = os.getppid()
    _lead_a_session()
    signals.take_own()
    for descriptor in (arguments.control, arguments.lifeline):
        os.set_inheritable(descriptor, False)
    starting.begin()
    own_lifeline = Lifeline(arguments.lifeline, parent=parent)  # while it imports it cannot look at its socket
    become_subreaper()
    server = ForkServer(ControlSocket(arguments.control), parent)
    try:
        server.warm(own_lifeline)
    except BaseException as error:  # whatever it is, the supervisor must hear why no worker can start
        traceback.print_exc()
        server.fail(error)
        os._exit(EXIT_BOOT)
    try:
        server.serve()
    except BaseException:  # its workers go on without it (T6), unless nobody is left to kill them
        traceback.print_exc()
        if is_cut(arguments.control):
            server.end()
        os._exit(EXIT_BOOT)


if __name__ == "__main__":
    main()
