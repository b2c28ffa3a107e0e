"""Run your own code in supervised workers: a value made once per worker, a stream, and a question to the host.

Run it: python examples/own_bridge.py

This file is two things: a script, and the bridge (the commands) of the pool "atlas", which its workers load.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from dspex_worker.bridge import Bridge, Context, Settings

bridge = Bridge("atlas")
countries: frozenset[str] = frozenset()


@bridge.setup
def setup(settings: Settings) -> None:
    """In each worker before its first call: what is slow to make, or belongs to one process."""
    global countries
    countries = frozenset("Brazil China Egypt France Germany India Italy Japan Kenya Spain".split())


@bridge.command()
def find(ctx: Context, text: str) -> list[str]:
    """A command takes and gives plain values."""
    return [word for word in text.replace(",", " ").split() if word in countries]


@bridge.command()
def capitals(ctx: Context, text: str) -> Iterator[str]:
    """A generator streams. The host has the language model and its key; a worker asks it."""
    for country in find(ctx, text):
        answer = ctx.call_parent("ask", {"question": f"What is the capital of {country}?"})
        yield f"{country}: {answer}"


def main() -> None:
    import dspex  # here: the workers load this file too, and need no dspex

    dspex.configure(lm=dspex.LM(os.environ.get("DSPEX_LM", "local/smollm2"), max_tokens=60, temperature=0.0))
    demos = [{"question": "What is the capital of Spain?", "answer": "Madrid"}]
    ask = dspex.predictor("predict", "question -> answer", demos=demos)

    with dspex.Supervisor(pools=[dspex.PoolConfig("atlas", bridge=__file__, size=2)]) as supervisor:
        supervisor.register("ask", lambda request: ask(question=request.arguments["question"]).answer)
        text = "We flew from Japan to France, and went on to Germany by train."
        print("countries:", supervisor.call("atlas", "find", {"text": text}, timeout=10))
        for line in supervisor.stream("atlas", "capitals", {"text": text}):
            print(line, flush=True)


if __name__ == "__main__":
    main()
