"""Process: a reply that takes a worker's parser for ever: DSPy's own parser, in a process that can be killed."""

from __future__ import annotations

import threading
from typing import Any

import dspex
from dspex.errors import CallTimeout
from dspex.testing import FakeLM

ENDLESS = '[[ ## words ## ]]\n["a" ' + '["a" ' * 60_000  # json_repair needs the square of its length: hours
PATIENCE_S = 60.0


def test_hostile_reply_costs_its_own_call_the_deadline_and_nothing_else() -> None:
    """process: a call beside it is answered meanwhile, and the pool has its two workers again."""
    sig = "question -> words: list[str]"
    asked = threading.Event()

    def reply(messages: Any) -> str:
        if "hostile" not in str(messages):
            return '[[ ## words ## ]]\n["b"]'
        asked.set()
        return ENDLESS

    pools = [dspex.PoolConfig(name="dspy", size=2)]
    with FakeLM(reply) as lm, dspex.Supervisor(pools=pools) as supervisor:
        supervisor.wait_ready()
        ask = dspex.predictor("predict", sig, lm=lm, implementation="python", supervisor=supervisor)
        assert ask(question="before").words == ["b"]
        failures: list[BaseException] = []

        def hostile() -> None:
            try:
                ask.using(timeout=5.0)(question="hostile")
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=hostile)
        thread.start()
        assert asked.wait(PATIENCE_S)
        for number in range(5):
            assert ask(question=f"beside {number}").words == ["b"]
        thread.join(PATIENCE_S)
        assert len(failures) == 1 and isinstance(failures[0], CallTimeout), failures
        supervisor.wait_ready()
        assert {ask(question=f"after {number}").words[0] for number in range(4)} == {"b"}
