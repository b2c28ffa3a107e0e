"""Each peer in a process of its own, told over its stdin what to measure: `python -m benchmarks.peers NAME`.

A peer runs the same command everywhere: give back a small dict. Lines in: {"latency": calls} or {"throughput": calls,
"in_flight": n}; lines out: {"p50": µs, "p99": µs} or {"per_s": calls per second}. Two workers each.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from benchmarks.report import percentile

WORKERS = 2
Call = Callable[[int], Any]


def echo(**arguments: Any) -> dict[str, Any]:
    return arguments


class RawPipe:
    """What the machine can do: one process, blocking pipes, MessagePack, one call at a time, no guards at all."""

    CHILD = """
import os, struct, msgpack
while True:
    data = os.read(0, 65536)
    if not data: break
    id, arguments = msgpack.unpackb(data[4:])
    body = msgpack.packb([id, arguments])
    os.write(1, struct.pack(">I", len(body)) + body)
"""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-c", self.CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def call(self, i: int) -> Any:
        import msgpack

        body = msgpack.packb([i, {"i": i}])
        assert self._child.stdin and self._child.stdout
        os.write(self._child.stdin.fileno(), struct.pack(">I", len(body)) + body)
        return msgpack.unpackb(os.read(self._child.stdout.fileno(), 65536)[4:])[1]

    def close(self) -> None:
        self._child.kill()
        self._child.wait()


class Futures:
    """Anything with `submit(fn, **kwargs) -> future`."""

    def __init__(self, executor: Any, close: Callable[[], None]) -> None:
        self._executor = executor
        self.close = close

    def call(self, i: int) -> Any:
        return self._executor.submit(echo, i=i).result()

    def many(self, calls: int, in_flight: int) -> None:
        waiting: deque[Any] = deque()
        for i in range(calls):
            waiting.append(self._executor.submit(echo, i=i))
            if len(waiting) >= in_flight:
                waiting.popleft().result()
        while waiting:
            waiting.popleft().result()


def process_pool_executor() -> Futures:
    from concurrent.futures import ProcessPoolExecutor

    executor = ProcessPoolExecutor(WORKERS)
    return Futures(executor, executor.shutdown)


def loky() -> Futures:
    from loky import get_reusable_executor

    executor = get_reusable_executor(WORKERS, timeout=60)
    return Futures(executor, lambda: executor.shutdown(kill_workers=True))


class Pebble:
    def __init__(self) -> None:
        from pebble import ProcessPool

        self._pool = ProcessPool(WORKERS)

    def call(self, i: int) -> Any:
        return self._pool.schedule(echo, kwargs={"i": i}).result()

    def many(self, calls: int, in_flight: int) -> None:
        waiting: deque[Any] = deque()
        for i in range(calls):
            waiting.append(self._pool.schedule(echo, kwargs={"i": i}))
            if len(waiting) >= in_flight:
                waiting.popleft().result()
        while waiting:
            waiting.popleft().result()

    def close(self) -> None:
        self._pool.stop()
        self._pool.join()


class MultiprocessingPool:
    def __init__(self) -> None:
        import multiprocessing

        self._pool = multiprocessing.Pool(WORKERS)

    def call(self, i: int) -> Any:
        return self._pool.apply(echo, kwds={"i": i})

    def many(self, calls: int, in_flight: int) -> None:
        waiting: deque[Any] = deque()
        for i in range(calls):
            waiting.append(self._pool.apply_async(echo, kwds={"i": i}))
            if len(waiting) >= in_flight:
                waiting.popleft().get()
        while waiting:
            waiting.popleft().get()

    def close(self) -> None:
        self._pool.terminate()
        self._pool.join()


class Dspex:
    """This project, with every guard on: deadlines, memory watch, lifelines, sessions, events."""

    concurrency = 8  # the default

    def __init__(self) -> None:
        import dspex

        config = dspex.PoolConfig(
            "bench", bridge="faults", size=WORKERS, concurrency=self.concurrency, queue_limit=100_000
        )
        self._supervisor = dspex.Supervisor(pools=[config]).start()
        self._supervisor.wait_ready()
        self._pool = self._supervisor.pool("bench")

    def call(self, i: int) -> Any:
        return self._pool.call("echo", {"i": i})

    def many(self, calls: int, in_flight: int) -> None:
        async def one_after_another(count: int) -> None:
            for i in range(count):
                await self._pool.acall("echo", {"i": i})

        async def all_of_them() -> None:
            await asyncio.gather(*(one_after_another(calls // in_flight) for _ in range(in_flight)))

        asyncio.run(all_of_them())

    def close(self) -> None:
        self._supervisor.stop()


class DspexWide(Dspex):
    """The same, with room for more calls in each worker: for tiny ones, so that none ever waits for the parent."""

    concurrency = 32


class DspexThreads(Dspex):
    """The same, called from blocking threads."""

    def many(self, calls: int, in_flight: int) -> None:
        def one_after_another() -> None:
            for i in range(calls // in_flight):
                self._pool.call("echo", {"i": i})

        threads = [threading.Thread(target=one_after_another) for _ in range(in_flight)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


PEERS: dict[str, Callable[[], Any]] = {
    "raw pipe": RawPipe,
    "dspex": Dspex,
    "dspex (32 in a worker)": DspexWide,
    "dspex (threads)": DspexThreads,
    "ProcessPoolExecutor": process_pool_executor,
    "multiprocessing.Pool": MultiprocessingPool,
    "loky": loky,
    "pebble": Pebble,
}


def main() -> None:
    peer = PEERS[sys.argv[1]]()
    for i in range(200):
        peer.call(i)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(_measure(peer, json.loads(line))), flush=True)
    peer.close()


def _measure(peer: Any, order: dict[str, Any]) -> dict[str, float]:
    if "latency" in order:
        took = []
        for i in range(order["latency"]):
            began = time.perf_counter()
            peer.call(i)
            took.append((time.perf_counter() - began) * 1e6)
        return {"p50": percentile(took, 0.5), "p99": percentile(took, 0.99)}
    if not hasattr(peer, "many"):
        return {}
    began = time.perf_counter()
    peer.many(order["throughput"], order["in_flight"])
    return {"per_s": order["throughput"] / (time.perf_counter() - began)}


if __name__ == "__main__":
    main()
