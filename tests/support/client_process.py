"""One client of a service, in a process of its own: many calls at once, each with a token that must come back.

    python -m tests.support.client_process SOCKET NAME CALLS

It says "ready" once it is connected, begins at a line on its stdin, and in the end prints what came of each call, as
JSON. Programs run natively and in workers; agents, rewards and metrics call back into this process.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import dspex
from dspex.control import Client

QA = "question -> answer"
AFTERWARDS = 8  # calls that are made in the end, over the same client


class Talker:
    """The calls of one client."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name
        self._qa = dspex.predictor("predict", QA, supervisor=client, timeout=300)
        self._agent = dspex.react(QA, tools=[self.lookup], supervisor=client, timeout=300)
        self._kinds: tuple[Callable[[str], Awaitable[bool]], ...] = (
            self._natively, self._in_worker, self._by_agent, self._best, self._command, self._scored,
        )  # fmt: skip

    def lookup(self, key: str) -> str:
        """Look a key up."""
        return f"{self._name}:{os.getpid()}:{key}"

    async def one(self, number: int) -> str:
        """Make a call, and return what came of it."""
        token = f"{self._name}-{number}"
        try:
            is_own = await self._kinds[number % len(self._kinds)](token)
        except dspex.DspexError as error:
            return f"{type(error).__name__} ({error.retryable})"
        return "ok" if is_own else "crossed"

    async def _natively(self, token: str) -> bool:
        return bool((await self._qa.acall(question=f"<{token}>")).answer == token)

    async def _in_worker(self, token: str) -> bool:
        return bool((await self._qa.using(implementation="python").acall(question=f"<{token}>")).answer == token)

    async def _by_agent(self, token: str) -> bool:
        made = await self._agent.acall(question=f"<{token}>")
        return bool(made.trajectory["observation_0"] == self.lookup(token))

    async def _best(self, token: str) -> bool:
        def reward(inputs: Any, prediction: Any) -> float:
            return float(prediction.answer == token)

        best = dspex.best_of_n(
            QA, reward_fn=reward, N=2, threshold=1.0, supervisor=self._client, implementation="python", timeout=300
        )
        return bool((await best.acall(question=f"<{token}>")).answer == token)

    async def _command(self, token: str) -> bool:
        answered = await self._client.acall("faults", "append", {"value": token}, session=token, timeout=300)
        return bool(answered == [token])

    async def _scored(self, token: str) -> bool:
        seen: list[str] = []

        def metric(example: Any, prediction: Any) -> bool:
            seen.append(prediction["answer"])
            return bool(example["answer"] == prediction["answer"])

        rows = [{"question": f"<{token}>", "answer": token}]
        report = await dspex.aevaluate(self._qa.using(implementation="python"), rows, metric=metric)
        return report.score == 100.0 and seen == [token]


async def talk(client: Client, name: str, calls: int) -> dict[str, Any]:
    """Make the calls, all at once; return what came of them, and of some more over the same client."""
    talker = Talker(client, name)
    began = time.monotonic()
    outcomes = await asyncio.gather(*(talker.one(number) for number in range(calls)))
    seconds = time.monotonic() - began
    afterwards = [await talker.one(calls + number) for number in range(AFTERWARDS)]
    return {
        "name": name,
        "outcomes": Counter(outcomes),
        "afterwards": Counter(afterwards),
        "seconds": round(seconds, 2),
        "usage": client.usage()["requests"],
    }


def main() -> None:
    socket, name, calls = sys.argv[1:4]
    with dspex.connect(socket, client=name) as client:
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps(asyncio.run(talk(client, name, int(calls)))), flush=True)


if __name__ == "__main__":
    main()
