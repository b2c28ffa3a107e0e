"""Parity: for many providers, a worker and this process send the same bytes and end alike.

With every option, refusal, filter, error, tool call cut short and stream that the random calls have.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest

import dspex
from dspex.errors import DspexError
from dspex.lm.providers import PROVIDERS
from tests.support.lm.cloud_cases import CLOUD_CASES, KEY, URL, CloudCase
from tests.support.lm.cloud_endpoint import CloudEndpoint
from tests.support.lm.cloud_endpoint import family as dialect_of
from tests.support.parity.calls import MODELS
from tests.support.parity.cases import Cases
from tests.support.parity.oracle import plain, plain_logprobs
from tests.support.parity.random_values import TEXT
from tests.support.parity.wire_replies import Family, family_of, reply_of, stream_of

pytestmark = pytest.mark.parity

SEED = int(os.environ.get("DSPEX_PARITY_SEED", "20261130"))
CALLS = int(os.environ.get("DSPEX_PROVIDER_CALLS", "15"))
ASKED = "question -> answer, note"
_ACCOUNTS = ("AWS_", "AZURE_", "GOOGLE_", "VERTEX", "ANTHROPIC_", "META_")
Found = tuple[Any, list[bytes]]
_COMMON = {model.partition("/")[0]: model for model in reversed(MODELS)}
# Those that have a case of their own are asked by it; the others get a key and an endpoint, as OpenAI's API does.
CASES = (
    *(CloudCase(model, "", {"api_base": f"{URL}/base", "api_key": KEY}) for model in _COMMON.values()),
    *(case for case in CLOUD_CASES if not case.path.endswith("/responses")),
)
IDS = [f"{at}-{re.split('[:/]', case.model)[0]}" for at, case in enumerate(CASES)]


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as supervisor:
        supervisor.wait_ready()
        yield supervisor


@pytest.fixture(scope="module")
def endpoint() -> Iterator[CloudEndpoint]:
    made = CloudEndpoint()
    yield made
    made.close()


def test_the_random_calls_ask_every_native_provider() -> None:
    """contract: all that are spoken to natively, but the embedded model and the Responses API (`test_responses.py`)."""
    asked = {re.split("[:/]", case.model)[0] for case in CASES}
    assert asked == {prefix for prefix, provider in PROVIDERS.items() if provider.dialect != "responses"} - {"local"}


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_worker_sends_and_reads_what_this_process_does(
    sup: dspex.Supervisor, endpoint: CloudEndpoint, case: CloudCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """parity: the bytes of each request, the answers with their log probabilities, the class of each error."""
    for name in [name for name in os.environ if name.startswith(_ACCOUNTS)]:
        monkeypatch.delenv(name)
    for name, value in case.environment_at(endpoint.url).items():
        monkeypatch.setenv(name, value)
    family = family_of(case.model) if not case.path else cast(Family, dialect_of(case.path))
    supply, differences = Cases(f"{SEED}/{case.model}"), list[str]()
    ends: list[str] = []
    for number in range(CALLS):
        adapter = random.Random(number).choice(("chat", "json"))
        call = supply.calls.call_of(case.model, {"answer": TEXT, "note": TEXT}, adapter, family)
        made = stream_of if call["streamed"] else reply_of
        replies = [made(reply, family) for reply in call["replies"]]
        native, worker = (_called(sup, endpoint, case, call, replies, adapter, route) for route in ("native", "python"))
        ends.append(native[0][0])
        if native != worker:
            differences.append(f"{call} ({adapter})\n  native {native}\n  worker {worker}")
    assert not differences, f"{len(differences)} of {CALLS}; the first:\n" + "\n".join(differences[:3])
    assert {"error", "value"} == set(ends)


def _called(
    sup: dspex.Supervisor, endpoint: CloudEndpoint, case: CloudCase, call: Mapping[str, Any], replies: list[Any],
    adapter: str, route: Any,
) -> Found:  # fmt: skip
    endpoint.answers[:] = [*replies, *replies[-1:] * 8]
    found = _outcome(sup, case.options_at(endpoint.url), call, adapter, route)
    return found, [asked.body for asked in endpoint.taken()]


def _outcome(
    sup: dspex.Supervisor, options: Mapping[str, Any], call: Mapping[str, Any], adapter: str, route: Any
) -> Any:
    try:
        lm = dspex.LM(call["model"], cache=False, retries=0, **options, **call["lm"])
        program = dspex.predictor(
            "predict", ASKED, lm=lm, adapter=adapter, config=call["config"], implementation=route, supervisor=sup
        )
        if call["streamed"]:
            *_, found = program.stream(question="why?")
        else:
            found = program(question="why?")
    except DspexError as error:
        return ("error", type(error).__name__)
    assert found.route.startswith(route)
    made = [plain(dict(each)) for each in found.completions]
    return ("value", [*made, *map(plain_logprobs, found.all_logprobs)])
