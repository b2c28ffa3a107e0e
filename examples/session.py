"""Keep state in a worker from call to call, and still have it when that worker is killed.

Run it: python examples/session.py

This file is two things: a script, and the bridge (the commands) of the pool "notes", which its workers load.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from dspex_worker.bridge import Bridge, Context

bridge = Bridge("notes")


@bridge.command(session="write")
def note(ctx: Context, text: str) -> list[str]:
    """Add a note to the session."""
    notes: list[str] = [*ctx.session.get("notes", []), text]
    ctx.session["notes"] = notes
    return notes


@bridge.command(session="read")
def recall(ctx: Context) -> dict[str, Any]:
    """The session's notes, and who holds them."""
    return {"notes": ctx.session.get("notes", []), "pid": os.getpid()}


def main() -> None:
    import dspex  # here: the workers load this file too, and need no dspex

    lm = dspex.LM(os.environ.get("DSPEX_LM", "local/smollm2"), max_tokens=60, temperature=0.0)
    with dspex.Supervisor(pools=[dspex.PoolConfig("notes", bridge=__file__, size=2)]) as supervisor:
        # Without durable=True the notes would live in the worker alone, and the call after its death be SessionLost.
        with supervisor.session("notes", durable=True) as session:
            for text in ("Ann is from Oslo.", "Ann has a dog.", "The dog is called Rex."):
                session.call("note", {"text": text})
            before = session.call("recall")
            print(f"process {before['pid']} holds {len(before['notes'])} notes; it is killed now")

            os.kill(before["pid"], signal.SIGKILL)
            after = session.call("recall", idempotent=True)  # may run again, should the kill meet it on its way
            print(f"process {after['pid']} holds {len(after['notes'])} notes")

        question = "What is the name of the dog?"
        inputs = {"notes": after["notes"], "question": question}
        out = dspex.predict("notes: list[str], question -> answer", inputs, lm=lm)
        print(f"{question} {out.answer}")


if __name__ == "__main__":
    main()
