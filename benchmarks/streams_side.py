"""One side of the streams benchmark, in a fresh process: `python -m benchmarks.streams_side SIDE URL CANCELS`.

It prints the delays of the pieces of one whole stream, and for each of CANCELS streams that it gave up in the middle
how long the endpoint still saw the connection; all in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.streaming_endpoint import closed_at

_STAMP = re.compile(r"(\d+\.\d+);")
BEFORE_CANCEL = 5  # pieces that are read before a stream is given up
SEEN_WITHIN_S = 10.0


class Threaded:
    """A stream that a thread reads, and gives up by closing it."""

    def __init__(self, begin: Callable[[], Iterator[Any]], close: Callable[[], object]) -> None:
        self._begin = begin
        self.close = close

    def delays(self) -> list[float]:
        return [delay for item in self._begin() for delay in _delays(getattr(item, "text", ""))]

    def give_up(self) -> float:
        """Read a little, stop, and say when."""
        seen = 0
        items: Any = self._begin()
        for item in items:
            seen += len(_delays(getattr(item, "text", "")))
            if seen >= BEFORE_CANCEL:
                break
        at = time.monotonic()
        items.close()
        return at


class Awaited:
    """A stream that a task reads, and gives up by being cancelled."""

    def __init__(
        self, begin: Callable[[], Any], close: Callable[[], object], text_of: Callable[[Any], str] | None = None
    ) -> None:
        self._begin = begin
        self._text_of = text_of or (lambda item: getattr(item, "text", ""))
        self._runner = asyncio.Runner()  # one loop for all, as in a server
        self.close = close

    def delays(self) -> list[float]:
        async def whole() -> list[float]:
            return [delay async for item in self._begin() for delay in _delays(self._text_of(item))]

        return self._runner.run(whole())

    def give_up(self) -> float:
        """Read a little, cancel the task, and say when."""
        return self._runner.run(self._give_up())

    async def _give_up(self) -> float:
        has_enough = asyncio.Event()

        async def read() -> None:
            seen = 0
            async for item in self._begin():
                seen += len(_delays(self._text_of(item)))
                if seen >= BEFORE_CANCEL:
                    has_enough.set()

        task = asyncio.create_task(read())
        await asyncio.wait_for(has_enough.wait(), SEEN_WITHIN_S)
        at = time.monotonic()
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0.05)  # the loop goes on, as a server's does
        return at


Side = Threaded | Awaited


def main() -> None:
    name, base, cancels = sys.argv[1], sys.argv[2], int(sys.argv[3])
    side = SIDES[name](base)
    side.delays()  # warm
    delays = side.delays()
    gone = [_gone(side, base) for _ in range(cancels)]
    print(json.dumps({"delays": delays, "gone": gone}), flush=True)
    side.close()


def _delays(text: str) -> list[float]:
    now = time.monotonic()
    return [(now - float(stamp)) * 1000 for stamp in _STAMP.findall(text)]


def _gone(side: Side, base: str) -> float | None:
    """How long the endpoint saw the connection after the cancel; None if it saw no end in time."""
    before = len(closed_at(base))
    at = side.give_up()
    while time.monotonic() < at + SEEN_WITHIN_S:
        if len(moments := closed_at(base)) > before:
            return (moments[-1] - at) * 1000
        time.sleep(0.002)
    return None


def _program(base: str, implementation: str) -> tuple[Any, Callable[[], object]]:
    import dspex

    lm = dspex.LM("openai/any", api_base=base, api_key="k", cache=False)
    sup = dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]).start() if implementation == "python" else None
    options: dict[str, Any] = {"lm": lm, "implementation": implementation}
    if sup is not None:
        options["supervisor"] = sup
    program = dspex.predictor("predict", "question -> answer", **options)
    return program, (sup.stop if sup is not None else lambda: None)


def _threaded(implementation: str) -> Callable[[str], Side]:
    def side(base: str) -> Side:
        program, close = _program(base, implementation)
        return Threaded(lambda: program.stream(question="?"), close)

    return side


def _awaited(implementation: str) -> Callable[[str], Side]:
    def side(base: str) -> Side:
        program, close = _program(base, implementation)
        return Awaited(lambda: program.astream(question="?"), close)

    return side


def _dspy(base: str) -> Side:
    import dspy

    dspy.configure(lm=dspy.LM("openai/any", api_base=base, api_key="k", cache=False, engine="lm15"))
    predict = dspy.Predict("question -> answer")

    def begin() -> Any:
        # A listener that saw a stream cancelled shows nothing of the next one: each stream gets its own.
        listener = dspy.streaming.StreamListener("answer")
        return dspy.streamify(predict, stream_listeners=[listener])(question="?")

    def text_of(item: Any) -> str:
        return item.chunk if isinstance(item, dspy.streaming.StreamResponse) else ""

    return Awaited(begin, lambda: os._exit(0), text_of)


SIDES: dict[str, Callable[[str], Side]] = {
    "dspex native": _threaded("native"),
    "dspex native, async": _awaited("native"),
    "dspex in a worker": _threaded("python"),
    "dspex in a worker, async": _awaited("python"),
    "dspy streamify": _dspy,
}

if __name__ == "__main__":
    main()
