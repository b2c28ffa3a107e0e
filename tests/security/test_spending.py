"""Security: budgets hold whatever a worker asks and whatever an endpoint reports of what was used."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dspex.errors import BudgetExceeded, LMConfigurationError, LMError
from dspex.lm.forwarding import Origin
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from dspex.lm.usage import Account, cost_of, counters_in
from dspex.testing import FakeLM
from tests.support.lm.peer import Peer, http
from tests.support.lm.requests import ASK, asked_by_worker, forwarded

Fake = Callable[..., FakeLM]
PRICED: dict[str, Any] = {"api_key": "canary-42424242", "retries": 0, "cache": False, "price": (1.0, 2.0)}


@pytest.fixture
def endpoint() -> Iterator[Callable[..., LM]]:
    """An LM whose endpoint sends these bodies, one per connection."""
    made: list[Peer] = []

    def make(*bodies: bytes, model: str = "openai/fake") -> LM:
        made.append(Peer(*([http(body)] for body in bodies)))
        return LM(model, api_base=made[-1].url.removesuffix("/x"), **PRICED)

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(
    "options", [{}, {"stream_options": {}}, {"stream_options": {"include_usage": False}}, {"stream_options": None}]
)
def test_stream_that_does_not_ask_for_its_usage_is_counted(
    options: dict[str, Any], fake: Fake, client: LMClient
) -> None:
    """collaboration: the parent asks for it, as it does for its own; a budget ends the worker's requests."""
    lm = fake("some words of an answer", cache=False)
    client.register(lm)
    body = json.dumps({"model": "fake", "messages": [], "stream": True, **options}).encode()
    with Account("worker", budget_tokens=1) as account:
        list(client.forward(forwarded(lm, body=body), origin=Origin((account,))))
        assert account.tokens > 0
        with pytest.raises(BudgetExceeded):
            list(client.forward(forwarded(lm, body=body), origin=Origin((account,))))


@pytest.mark.parametrize(
    "member",
    [
        {"fallbacks": ["dear"]}, {"preset": "dear"}, {"user_config": {}}, {"model_list": []}, {"Fallbacks": ["dear"]},
        {"context_window_fallbacks": []}, {"api_base": "http://x"}, {"model\u017f": ["dear"]}, {"BASE_URL": "http://x"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("model", ["openai/fake", "anthropic/fake"])
def test_member_by_which_a_gateway_takes_another_model_is_refused(
    model: str, member: dict[str, Any], fake: Fake, client: LMClient
) -> None:
    """collaboration: OpenRouter's and LiteLLM's, also where Go's readers fold case (a long s)."""
    lm = fake("x", model=model)
    client.register(lm)
    body = json.dumps({"model": "fake", "messages": [], **member}, ensure_ascii=False).encode()
    with pytest.raises(LMConfigurationError):
        list(client.forward(asked_by_worker(lm, body=body)))
    assert not lm.requests


def _answer(usage: Any) -> bytes:
    choice = {"message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}
    return json.dumps({"model": "fake", "choices": [choice], "usage": usage}).encode()


def _events(*usages: Any) -> bytes:
    delta = {"choices": [{"delta": {"content": "fine"}, "finish_reason": "stop"}]}
    events = [delta, *({"choices": [], "usage": usage} for usage in usages)]
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"


GOOD = {"prompt_tokens": 10, "completion_tokens": 20}
REPORTS = {
    "total of 0": (_answer({**GOOD, "total_tokens": 0}), 30),
    "no total": (_answer(GOOD), 30),
    "total as text": (_answer({**GOOD, "total_tokens": "9"}), 30),
    "total as bool": (_answer({**GOOD, "total_tokens": True}), 30),
    "negative": (_answer({**GOOD, "total_tokens": -5}), 30),
    "huge": (_answer({**GOOD, "total_tokens": 10**400}), 30),
    "text": (_answer({"prompt_tokens": "10", "completion_tokens": "20"}), 0),
    "list": (_answer([10, 20]), 0),
    "cached": (_answer({**GOOD, "prompt_tokens_details": {"cached_tokens": 10**12}}), 30),
    "details": (_answer({**GOOD, "prompt_tokens_details": [1], "completion_tokens_details": "x"}), 30),
}
STREAMS = {
    "empty after": (_events({**GOOD, "total_tokens": 30}, {}), 30),
    "null after": (_events({**GOOD, "total_tokens": 30}, None), 30),
    "text after": (_events({**GOOD, "total_tokens": 30}, {"prompt_tokens": "x"}), 30),
}


@pytest.mark.parametrize(("body", "tokens"), [*REPORTS.values(), *STREAMS.values()], ids=[*REPORTS, *STREAMS])
@pytest.mark.parametrize("route", ["native", "worker"])
def test_odd_reports_never_lower_an_account(
    route: str, body: bytes, tokens: int, endpoint: Callable[..., LM], client: LMClient
) -> None:
    """collaboration: neither its tokens nor its cost; parts count where the total is less."""
    lm = endpoint(body)
    client.register(lm)
    is_stream = body.startswith(b"data:")
    with Account("all") as account:
        if route == "worker":
            list(client.forward(forwarded(lm, stream=is_stream)))
        elif is_stream:
            list(client.stream(lm, ASK))
        else:
            client.complete(lm, ASK)
    assert account.tokens == tokens
    assert account.cost_usd >= 0
    assert (account.cost is None) == (tokens == 0)


def test_cached_tokens_beyond_the_prompts_earn_nothing() -> None:
    """unit: a model whose cached tokens are cheaper would have had a negative cost."""
    lm = LM("openai/gpt-4o-mini", api_key="canary-42424242")
    usage = {**GOOD, "prompt_tokens_details": {"cached_tokens": 10**9}}
    cost = cost_of(lm, usage)
    assert lm.rates is not None and lm.rates[2] < lm.rates[0]
    assert cost is not None and cost > 0


def test_anthropic_stream_that_is_closed_early_counts_its_prompt(endpoint: Callable[..., LM], client: LMClient) -> None:
    """collaboration: the prompt's tokens are reported first; a reader that leaves then has used them."""
    events = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 100, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "fine"}},
    ]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    lm = endpoint(body, body, model="anthropic/fake")
    client.register(lm)
    asked = json.dumps({"model": "fake", "messages": [], "stream": True}).encode()
    with Account("worker") as worker, contextlib.suppress(LMError):
        parts = client.forward(asked_by_worker(lm, body=asked))
        next(parts)
        parts.close()
    with Account("native") as native, contextlib.suppress(LMError):
        texts = client.stream(lm, ASK)
        next(texts)
        texts.close()
    assert worker.tokens >= 100 and native.tokens >= 100


TEXT = ["some words "] * 100  # 1,100 characters
LEFT: dict[str, list[dict[str, Any]]] = {
    "text": [{"choices": [{"delta": {"content": text}}]} for text in TEXT],
    "reasoning": [{"choices": [{"delta": {"reasoning_content": text}}]} for text in TEXT],
    "arguments": [
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": text}}]}}]}
        for text in TEXT
    ],
    "all but the report": [
        *({"choices": [{"delta": {"content": text}}]} for text in TEXT),
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
    ],
}


@pytest.mark.parametrize("events", LEFT.values(), ids=LEFT)
def test_stream_that_is_left_before_its_report_is_counted(
    events: list[dict[str, Any]], endpoint: Callable[..., LM], client: LMClient
) -> None:
    """collaboration: OpenAI's format reports last; by length then, and images are not counted as words."""
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    lm = endpoint(*[body + _events({**GOOD, "total_tokens": 30})] * 3)
    client.register(lm)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    asked = {"model": "fake", "messages": [{"role": "user", "content": [image]}], "stream": True}
    with Account("left", budget_tokens=250) as account:
        parts = client.forward(forwarded(lm, body=json.dumps(asked).encode()), origin=Origin((account,)))
        read = b""
        while len(read) < len(body):
            read += next(part for part in parts if isinstance(part, bytes))
        parts.close()
        assert 275 <= account.tokens < 1000 and account.cost is not None
        with pytest.raises(BudgetExceeded):
            list(client.forward(forwarded(lm), origin=Origin((account,))))
    with Account("natively") as native, contextlib.suppress(LMError):
        for number, _ in enumerate(client.stream(lm, ASK)):
            if number == 50:
                break
    if "content" in events[0]["choices"][0]["delta"]:  # of the others nothing is given, so nobody can leave
        assert native.tokens >= 100


@pytest.mark.parametrize(
    "reported",
    [
        {"prompt_tokens": -(10**9), "completion_tokens": 1}, {"prompt_tokens": "many"}, {"total_tokens": float("nan")},
        {"prompt_tokens": {"a": 1}}, {"prompt_tokens_details": 5}, {"prompt_tokens_details": {"cached_tokens": "x"}},
        {"completion_tokens": True}, {f"a{number}": 1 for number in range(10_000)}, {"completion_tokens": 10**400},
    ],
)  # fmt: skip
def test_what_a_worker_reports_by_itself_is_counters_or_nothing(reported: dict[str, Any]) -> None:
    """unit: of direct LMs, whose requests the parent sees none of; nothing is subtracted, and nothing fails."""
    account = Account("direct")
    account.add("m", {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}, 1.0)
    account.add("m", counters_in(reported), None)
    assert 10 <= account.tokens <= 11
    assert len(account.stats()["models"]["m"]) < 50
