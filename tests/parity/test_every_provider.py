"""Parity: for many providers, a worker and this process send the same bytes and end alike.

With every option, refusal, filter, error, tool call cut short and stream that the random calls have.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import dspex
from dspex.errors import DspexError
from dspex.lm.providers import PROVIDERS
from dspex.testing import FakeLM, FakeReply
from tests.support.parity.calls import MODELS
from tests.support.parity.cases import Cases
from tests.support.parity.oracle import plain, plain_logprobs
from tests.support.parity.random_values import TEXT
from tests.support.parity.wire_replies import reply_of, stream_of

pytestmark = pytest.mark.parity

SEED = int(os.environ.get("DSPEX_PARITY_SEED", "20261130"))
CALLS = int(os.environ.get("DSPEX_PROVIDER_CALLS", "15"))
ASKED_MODELS = (*MODELS, "sglang/qwen", "zai/glm-4.6", "meta-chat/llama")
NATIVE = sorted({model.partition("/")[0] for model in ASKED_MODELS})
ASKED = "question -> answer, note"
Found = tuple[Any, list[bytes]]


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as supervisor:
        supervisor.wait_ready()
        yield supervisor


def test_the_random_calls_ask_native_providers() -> None:
    """contract: those that are compared here are spoken to natively."""
    assert all(PROVIDERS[prefix].native for prefix in NATIVE) and len(NATIVE) >= 10


@pytest.mark.parametrize("prefix", NATIVE)
def test_a_worker_sends_and_reads_what_this_process_does(sup: dspex.Supervisor, prefix: str) -> None:
    """parity: the bytes of each request, the answers with their log probabilities, the class of each error."""
    model = next(model for model in ASKED_MODELS if model.startswith(f"{prefix}/"))
    supply, differences = Cases(f"{SEED}/{prefix}"), list[str]()
    ends: list[str] = []
    for number in range(CALLS):
        adapter = random.Random(number).choice(("chat", "json"))
        call = supply.calls.call_of(model, {"answer": TEXT, "note": TEXT}, adapter)
        native, worker = (_called(sup, call, adapter, route) for route in ("native", "python"))
        ends.append(native[0][0])
        if native != worker:
            differences.append(f"{call} ({adapter})\n  native {native}\n  worker {worker}")
    assert not differences, f"{len(differences)} of {CALLS}; the first:\n" + "\n".join(differences[:3])
    assert {"error", "value"} == set(ends)


def _called(sup: dspex.Supervisor, call: Mapping[str, Any], adapter: str, route: Any) -> Found:
    replies, made = call["replies"], stream_of if call["streamed"] else reply_of
    is_anthropic = call["model"].startswith("anthropic/")
    bodies = [made(reply, is_anthropic) for reply in replies]
    script = [FakeReply(status=status, body=body) for status, body in [*bodies, *bodies[-1:] * 8]]
    with FakeLM(script, model=call["model"]) as server:
        return _outcome(sup, server, call, adapter, route), [request.raw for request in server.requests]


def _outcome(sup: dspex.Supervisor, server: FakeLM, call: Mapping[str, Any], adapter: str, route: Any) -> Any:
    try:
        lm = dspex.LM(
            call["model"], api_base=server.api_base, api_key=server.api_key, cache=False, retries=0, **call["lm"]
        )
        options = {"lm": lm, "adapter": adapter, "config": call["config"], "implementation": route, "supervisor": sup}
        program = dspex.predictor("predict", ASKED, **options)
        if call["streamed"]:
            *_, found = program.stream(question="why?")
        else:
            found = program(question="why?")
    except DspexError as error:
        return ("error", type(error).__name__)
    assert found.route.startswith(route)
    made = [plain(dict(each)) for each in found.completions]
    return ("value", [*made, *map(plain_logprobs, found.all_logprobs)])
