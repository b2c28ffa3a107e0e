"""Show the Python stacks of a pool's workers: also of one that answers nothing else. Any thread."""

from __future__ import annotations

import contextlib
import signal
from time import sleep
from typing import TYPE_CHECKING, TypedDict

from dspex_worker import stack_dump
from dspex_worker.wire import messages
from dspex_worker.wire.messages import Kind

from ..errors import UnknownName
from ..lm.redaction import redact
from ..terminal_text import inert
from .call import next_id
from .processes.stack_request import StackRequest

if TYPE_CHECKING:
    from .dispatcher import Dispatcher
    from .worker import Worker

LOOK = 0.005  # seconds between looks at whether a worker has answered


class WorkerStacks(TypedDict):
    """The stacks of all threads of one worker, the latest call of each first.

    `stacks` is faulthandler's text: files, lines and functions, no values. Where there is none `problem` says why, with
    what the kernel knows of the process.
    """

    worker: str
    generation: int
    pid: int
    stacks: str
    problem: str


class StackLook:
    """One look at a worker's stacks; several at once share one."""

    def __init__(self, dispatcher: Dispatcher, worker: Worker) -> None:
        self._dispatcher = dispatcher
        self._worker = worker
        self._problem = ""
        self._request: StackRequest | None = None
        try:
            self._request = self._begin()
        except OSError as error:
            self._problem = f"its stacks cannot be had: {error.strerror}"

    @property
    def is_done(self) -> bool:
        """Whether `row` is whole; ask again and again."""
        return self._request is None or self._request.look()

    def row(self) -> WorkerStacks:
        """Return what was seen."""
        worker, request = self._worker, self._request
        return {
            "worker": worker.name,
            "generation": worker.generation,
            "pid": worker.pid,
            "stacks": "" if request is None else inert(redact(request.text)),
            "problem": self._problem if request is None else request.problem,
        }

    def wait(self) -> WorkerStacks:
        """Wait until it is done; blocks for three seconds at most."""
        while not self.is_done:
            sleep(LOOK)
        return self.row()

    def _begin(self) -> StackRequest:
        worker = self._worker
        descriptor = worker.greeting.get("stacks")
        if not worker.pid or not isinstance(descriptor, int) or descriptor < 0:
            raise OSError(0, "it is only starting, or this system has no files in memory")
        number, is_open = next_id(), worker.message_order.is_open
        with self._dispatcher.lock:
            if (running := worker.stack_request) is not None and not running.is_done:
                return running
            request = StackRequest(worker.pid, descriptor, number=number, asks=is_open, signal=self._send_signal)
            worker.stack_request = request
        if is_open:
            self._dispatcher.post(worker, messages.write(Kind.STACKS, number))
        return request

    def _send_signal(self) -> None:
        worker = self._worker
        with self._dispatcher.lock:  # whoever takes it out of the pool closes its pidfd afterwards
            if worker.pidfd is not None and self._dispatcher.workers.get(worker.generation) is worker:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(worker.pidfd, stack_dump.SIGNAL)


def look_at(dispatcher: Dispatcher, worker: str | int) -> StackLook:
    """Begin to look at a worker, by its name or its pid; of two of a name, at the one that came last.

    Raises:
        UnknownName: there is no such worker in this pool.
    """
    there = list(dispatcher.workers.values())[::-1]  # the latest first
    for one in there:
        if worker in (one.name, one.pid or None):
            return StackLook(dispatcher, one)
    raise UnknownName("worker", str(worker), [one.name for one in there])
