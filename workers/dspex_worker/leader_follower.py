"""Leader/Followers: the thread that reads a call runs it; another takes over reading after a tick.

Exactly one thread of a worker, the leader, takes messages from the supervisor. Handing each call to another thread
would cost two thread switches, most of a short call's time. So the leader runs what it reads, and a *watch* looks after
it: if a call has not ended within a tick, the watch takes the lead, and with it the messages that were read but not
handled. A call that is about to wait for the supervisor gives the lead away before. So reading goes on whatever calls
do, and PING, CANCEL and further calls wait a tick or two at most.

Threads that neither lead nor watch nor run a call stand by. When calls must run on the main thread (`concurrency` 1),
another leader gives the lead back to it together with the call.
"""

from __future__ import annotations

import threading
from collections import deque
from queue import Empty, SimpleQueue
from typing import Generic, NoReturn, Protocol, TypeVar

from .wire.messages import Message

TICK = 0.001  # seconds that a call may keep the leader from reading before the watch takes over
FREE, TO_MAIN = 0, -1  # the lead is given away: to the watch, or to the main thread
IDLE_TICKS = 20  # after so many without a call the watch sleeps until the next one


class LedCall(Protocol):
    """A call, as the leader sees it."""

    is_nested: bool


C = TypeVar("C", bound=LedCall)


class MessageSource(Protocol[C]):
    """The work of a leader, beside leading; `Runtime` in workers."""

    def read(self) -> list[Message]:
        """Block until there is more, and return it."""
        ...

    def handle(self, message: Message) -> C | None:
        """Act on a message, and return the call to run if it is one."""
        ...

    def run(self, call: C, /) -> None:
        """Run a call to its reply."""

    def fail(self) -> NoReturn:
        """End the process: an exception left one of the others, and without a leader nobody would read."""
        ...


class LeaderFollower(Generic[C]):
    """The leader and the followers among one worker's threads."""

    def __init__(self, source: MessageSource[C], *, calls_on_main: bool) -> None:
        self._source = source
        self._calls_on_main = calls_on_main
        self._main = threading.main_thread().ident or 0
        self._for_main: SimpleQueue[C] = SimpleQueue()  # with the lead
        self._inbox: deque[Message] = deque()  # read, not handled; the leader's
        self._lock = threading.Lock()  # guards who leads, and what the watch knows
        self._leader = FREE  # a thread, or one of the two
        self._runs = 0  # calls that leaders have begun
        self._is_running = False  # the leader is in a call
        self._is_watched = False
        self._duty: SimpleQueue[None] = SimpleQueue()  # whoever takes from it is the watch
        self._handovers: SimpleQueue[None] = SimpleQueue()
        self._standing_by = 0

    # -- the main thread --

    def begin(self, received: list[Message]) -> NoReturn:
        """Lead from the main thread, beginning with what was received before; never returns."""
        try:
            self._begin(received)
        except BaseException:  # whatever it is, nobody would read any more
            self._source.fail()

    def _begin(self, received: list[Message]) -> NoReturn:
        self._inbox.extend(received)
        self._leader = self._main
        self._lead(self._main)
        while True:
            if self._calls_on_main:
                running = self._for_main.get()
                self._leader = self._main
                if self._run_as_leader(self._main, running):
                    self._lead(self._main)
            else:
                self._stand_by_once()

    # -- a running call --

    def step_aside(self) -> None:
        """Let another thread lead, if the calling one does and is about to wait."""
        if self._leader != threading.get_ident():
            return
        with self._lock:
            self._leader = FREE
            self._is_running = False
        self._handovers.put(None)

    # -- leading --

    def _lead(self, me: int) -> None:
        """Read, handle and run, until a call has cost this thread the lead."""
        inbox = self._inbox
        while True:
            while inbox:
                running = self._source.handle(inbox.popleft())
                if running is None:
                    continue
                if self._calls_on_main and me != self._main and not running.is_nested:
                    self._leader = TO_MAIN  # it may still be leaving its last call, and must not think that it leads
                    self._for_main.put(running)
                    return
                if not self._run_as_leader(me, running):
                    return
            inbox.extend(self._source.read())

    def _run_as_leader(self, me: int, running: C) -> bool:
        """Run the call under watch; False if the lead was lost meanwhile."""
        self._runs += 1
        self._is_running = True
        if not self._is_watched:
            self._call_watch()
        self._source.run(running)
        with self._lock:
            if self._leader != me:
                return False
            self._is_running = False
            return True

    def _call_watch(self) -> None:
        with self._lock:
            if self._is_watched:
                return
            self._is_watched = True
            is_alone = self._standing_by == 0
            if not is_alone:
                self._standing_by -= 1
        if is_alone:
            threading.Thread(target=self._stand_by, name="dspex-worker", daemon=True).start()
        self._duty.put(None)

    # -- standing by and watching: any other thread --

    def _stand_by(self) -> None:
        try:
            self._duty.get()
            while True:
                self._watch()
                with self._lock:
                    self._standing_by += 1
                self._duty.get()
        except BaseException:  # whatever it is, nobody would read any more
            self._source.fail()

    def _stand_by_once(self) -> None:
        with self._lock:
            self._standing_by += 1
        self._duty.get()
        self._watch()

    def _watch(self) -> None:
        """Watch the leader; return after having led, or when there was nothing to watch for a while."""
        me = threading.get_ident()
        seen, idle = -1, 0
        while True:
            try:
                self._handovers.get(timeout=TICK)
            except Empty:
                pass
            with self._lock:
                if self._leader == FREE or (self._is_running and self._runs == seen):
                    self._leader = me
                    self._is_running = self._is_watched = False
                    break
                seen = self._runs if self._is_running else -1
                idle = 0 if self._is_running else idle + 1
                if idle > IDLE_TICKS:
                    self._is_watched = False
                    return
        self._lead(me)
