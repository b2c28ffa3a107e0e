"""The traffic of a soak: callers that do everything a pool offers, and check every answer.

One event loop runs most of them, a few threads the rest. Each draws what it does next from a generator of its own,
seeded by the run's seed and its number.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from dspex.errors import (
    CallCancelled,
    CallTimeout,
    DspexError,
    PoisonCall,
    ProtocolError,
    RemoteError,
    SessionLost,
    UnknownName,
    WorkerDied,
    WorkerMemoryExceeded,
)
from dspex.pools.supervisor import Supervisor
from tests.support.chaos.outcomes import Books

MANY, SINGLE = "many", "single"  # the pools: several calls in a worker, and one
PATIENCE = 10.0  # seconds: the deadline of calls that should answer; only a stopped worker makes them wait for it
BY_FAULTS = (WorkerDied, ProtocolError, WorkerMemoryExceeded, CallTimeout, CallCancelled)  # what the innocent may hear
LOSSES = ("died", "killed", "recycled", "resized", "expired", "evicted")
ANSWERED = "answered"
Doing = Callable[[int, Random], Awaitable[str]]


class Traffic:
    """Callers of one supervisor, until `stop()`."""

    def __init__(self, sup: Supervisor, books: Books, seed: int) -> None:
        self._sup = sup
        self._books = books
        self._seed = seed
        self._is_over = False
        self._kinds: dict[str, tuple[int, Doing]] = {
            "echo": (40, self._echo),
            "effect": (30, self._effect),
            "error": (10, self._error),
            "payload": (5, self._payload),
            "tool": (8, self._tool),
            "stream": (8, self._stream),
            "stream left": (4, self._stream_left),
            "tool's stream": (4, self._tool_stream),
            "cancel": (6, self._cancel),
            "deadline": (3, self._deadline),
        }
        sup.register("again", self._again)
        sup.register("patient", _patient)
        sup.register("numbers", _numbers)

    def stop(self) -> None:
        """Let every caller end after what it is doing."""
        self._is_over = True

    async def run(self, callers: int, durable: int, stateful: int, threads: int) -> None:
        """Call until `stop()`."""
        loop_of = {self._caller: callers, self._durable: durable, self._stateful: stateful}
        tasks = [
            asyncio.create_task(one(self._random(one.__name__, n))) for one, m in loop_of.items() for n in range(m)
        ]
        blocking = [asyncio.to_thread(self._in_thread, self._random("thread", n)) for n in range(threads)]
        await asyncio.gather(*tasks, *blocking)

    async def once(self, kind: str, doing: Doing, random: Random, allowed: tuple[type[Exception], ...] = ()) -> str:
        """Do one thing under a new id, and note how it ended."""
        id = self._books.open()
        try:
            end = await doing(id, random)
        except DspexError as error:
            end = self._judge(kind, error, allowed)
        self._books.close(id, kind, end)
        return end

    # -- callers --

    async def _caller(self, random: Random) -> None:
        names, weights = list(self._kinds), [weight for weight, _ in self._kinds.values()]
        while not self._is_over:
            name = random.choices(names, weights)[0]
            await self.once(name, self._kinds[name][1], random)

    def _in_thread(self, random: Random) -> None:
        while not self._is_over:
            id = self._books.open()
            try:
                answer = self._sup.call(_pool(random), "echo", {"id": id}, timeout=PATIENCE)
                self._expect(answer == {"id": id}, f"{id} echoed {answer!r}")
                chunks = list(self._sup.stream(MANY, "count", {"n": 20}, timeout=PATIENCE))
                self._expect(chunks == list(range(20)), f"a stream gave {chunks}")
                end = ANSWERED
            except DspexError as error:
                end = self._judge("thread", error)
            self._books.close(id, "thread", end)

    async def _durable(self, random: Random) -> None:
        """A durable session: its list is at every moment what the answered calls made it (S9)."""
        while not self._is_over:
            with self._sup.session(_pool(random), durable=True) as session:
                state = Possible()
                for _ in range(random.randrange(3, 40)):

                    async def append(id: int, random: Random, state: Possible = state, session: Any = session) -> str:
                        timeout = random.choice((PATIENCE, PATIENCE, PATIENCE, 0.002))
                        try:
                            found = await session.acall("append", {"value": id}, timeout=timeout)
                        except (CallTimeout, CallCancelled):
                            state.may_have(id)
                            return "expired"
                        before = f"{state.seen} and perhaps {state.given_up}"
                        self._expect(state.is_after(id, found), f"durable: {found} after {id} on {before}")
                        return ANSWERED

                    await self.once("durable session", append, random)
                    if self._is_over:
                        break

    async def _stateful(self, random: Random) -> None:
        """A session without a copy: its state is there, or SessionLost says why it is not (S6)."""
        number = 0
        while not self._is_over:
            number += 1
            name, pool = f"s{random.randrange(1 << 40)}-{number}", _pool(random)
            with self._sup.session(pool, name) as session:
                key = {"key": "k"}

                async def remember(id: int, random: Random, session: Any = session, key: Any = key) -> str:
                    await session.acall("remember", {**key, "value": id}, timeout=PATIENCE)
                    session.value = id
                    return ANSWERED

                async def recall(id: int, random: Random, session: Any = session, key: Any = key) -> str:
                    found = await session.acall("recall", key, timeout=PATIENCE)
                    self._expect(found["value"] == session.value, f"session: {found} is not {session.value}")
                    return ANSWERED

                end = await self.once("session", remember, random, (SessionLost,))
                while end == ANSWERED and random.random() < 0.9 and not self._is_over:
                    end = await self.once("session", recall, random, (SessionLost,))
                if end == "SessionLost":
                    await self.once("lost session", self._begin_afresh(pool, name), random)

    def _begin_afresh(self, pool: str, name: str) -> Doing:
        async def afresh(id: int, random: Random) -> str:
            try:
                await self._sup.session(pool, name).acall("recall", {"key": "k"}, timeout=PATIENCE)
                self._books.found_wrong(f"lost session {name} answered without fresh=True")
            except SessionLost as lost:
                self._expect(lost.reason in LOSSES, f"lost for {lost.reason!r}")
            try:
                with self._sup.session(pool, name, fresh=True) as session:
                    await session.acall("recall", {"key": "k"}, timeout=PATIENCE)
                self._books.found_wrong(f"fresh session {name} is not empty")
            except UnknownName:
                pass
            return ANSWERED

        return afresh

    # -- what callers do --

    async def _echo(self, id: int, random: Random) -> str:
        value = {"id": id, "text": "x" * random.randrange(200)}
        answer = await self._call(_pool(random), "echo", value)
        self._expect(answer == value, f"{id} echoed {answer!r:.80}")
        return ANSWERED

    async def _effect(self, id: int, random: Random) -> str:
        is_idempotent = random.random() < 0.25
        self._books.expects_effect(id, may_repeat=is_idempotent)
        arguments = {"path": str(self._books.effects), "token": str(id)}
        await self._call(_pool(random), "effect", arguments, idempotent=is_idempotent)
        return ANSWERED

    async def _error(self, id: int, random: Random) -> str:
        try:
            await self._call(_pool(random), "raise_error", {"type": "ValueError", "message": f"<{id}>"})
            self._books.found_wrong(f"{id} did not raise")
        except RemoteError as error:
            self._expect(f"<{id}>" in error.message, f"{id} raised {error!r:.100}")
        return ANSWERED

    async def _payload(self, id: int, random: Random) -> str:
        count = random.choice((1_000, 100_000, 1_000_000))
        sent = await self._call(_pool(random), "echo", {"blob": bytes(count), "id": id})
        got = await self._call(_pool(random), "payload", {"bytes": count})
        self._expect(sent == {"blob": bytes(count), "id": id} and len(got) == count, f"{id}: a payload of {count}")
        return ANSWERED

    async def _tool(self, id: int, random: Random) -> str:
        pool, depth = _pool(random), random.randrange(3)
        arguments = {"name": "again", "arguments": {"id": id, "pool": pool, "depth": depth}}
        try:
            answer = await self._call(pool, "ask", arguments)
        except RemoteError as error:  # what the tool itself heard of a fault, told through its worker
            self._expect(any(fault.__name__ in error.message + error.type for fault in BY_FAULTS), repr(error))
            return "tool heard of a fault"
        self._expect(answer == id, f"tool of {id} answered {answer!r}")
        return ANSWERED

    async def _stream(self, id: int, random: Random) -> str:
        count, is_slow = random.randrange(1, 200), random.random() < 0.1
        chunks = []
        stream = self._sup.astream(_pool(random), "count", {"n": count}, timeout=PATIENCE)
        async with stream:
            async for chunk in stream:
                chunks.append(chunk)
                if is_slow and chunk % 16 == 0:
                    await asyncio.sleep(0.005)
        self._expect(chunks == list(range(count)) and stream.value == count, f"stream {id} of {count} gave {chunks}")
        return ANSWERED

    async def _stream_left(self, id: int, random: Random) -> str:
        last = random.randrange(40)
        async with self._sup.astream(_pool(random), "count", {"n": 1_000_000}, timeout=PATIENCE) as stream:
            async for chunk in stream:
                if chunk == last:
                    return "left"
        return "ended"

    async def _tool_stream(self, id: int, random: Random) -> str:
        count = random.randrange(1, 60)
        arguments = {"name": "numbers", "arguments": {"n": count}}
        stream = self._sup.astream(_pool(random), "ask_stream", arguments, timeout=PATIENCE)
        chunks = [chunk async for chunk in stream]
        self._expect(chunks == list(range(count)), f"a tool's stream of {count} gave {chunks}")
        return ANSWERED

    async def _cancel(self, id: int, random: Random) -> str:
        pool, command, arguments = _endless(random)
        task = asyncio.create_task(self._call(pool, command, arguments))
        await asyncio.sleep(random.choice((0.0, 0.001, 0.02)))
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled"
        return ANSWERED

    async def _deadline(self, id: int, random: Random) -> str:
        pool, command, arguments = _endless(random)
        try:
            await self._call(pool, command, arguments, timeout=random.choice((0.0, 0.002, 0.02)))
        except CallTimeout:
            return "expired"
        return ANSWERED

    # -- how --

    async def _call(self, pool: str, command: str, arguments: Any, *, timeout: float = PATIENCE, **options: Any) -> Any:
        return await self._sup.acall(pool, command, arguments, timeout=timeout, **options)

    def _again(self, request: Any) -> Any:
        """A tool that calls back into its own pool, some levels deep, and from `many` into `single` too."""
        id, pool, depth = (request.arguments[name] for name in ("id", "pool", "depth"))
        remaining = max(0.01, request.deadline - time.monotonic())
        if depth:
            arguments = {"name": "again", "arguments": {"id": id, "pool": pool, "depth": depth - 1}}
            return self._sup.call(pool, "ask", arguments, timeout=remaining)
        target = SINGLE if id % 4 == 0 else pool
        return self._sup.call(target, "echo", {"id": id}, timeout=remaining)["id"]

    def _expect(self, holds: bool, what: str) -> None:
        if not holds:
            self._books.found_wrong(what[:300])

    def _judge(self, kind: str, error: DspexError, allowed: tuple[type[Exception], ...] = ()) -> str:
        name = type(error).__name__
        if isinstance(error, PoisonCall) and PoisonCall not in allowed:
            self._books.found_wrong(f"{kind}: {error}")
        elif not isinstance(error, (*BY_FAULTS, *allowed)):
            self._books.found_wrong(f"{kind}: {error!r}"[:300])
        return name

    def _random(self, *of: object) -> Random:
        return Random(f"{self._seed} {of}")


class Possible:
    """What a durable list may be: what was last seen, and then, in order, any of the calls that were given up since."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.given_up: list[int] = []

    def may_have(self, value: int) -> None:
        self.given_up.append(value)

    def is_after(self, value: int, found: list[int]) -> bool:
        """Whether `found` is one of them with `value` behind; from now on it is what was last seen."""
        known = len(self.seen)
        rest, maybe = found[known:-1], iter(self.given_up)
        holds = found[:known] == self.seen and found[-1:] == [value] and all(one in maybe for one in rest)
        self.seen, self.given_up = found, []
        return holds


def _pool(random: Random) -> str:
    return MANY if random.random() < 0.8 else SINGLE


def _endless(random: Random) -> tuple[str, str, dict[str, Any]]:
    """Something that lasts until it is stopped: in a queue, Python, a sleep, a tool."""
    pool = _pool(random)
    sleep: dict[str, Any] = {"seconds": 0.2 if pool == MANY else 60.0}  # a signal ends it where it runs alone
    patient = {"name": "patient", "arguments": {}}
    return pool, *random.choice([("spin", {"seconds": 60.0}), ("sleep", sleep), ("ask", patient)])


async def _patient(request: Any) -> None:
    await asyncio.sleep(60.0)


async def _numbers(request: Any) -> Any:
    for n in range(request.arguments["n"]):
        yield n
