"""The workers' LM: DSPy's own requests, carried by the parent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dspy
from dspy.clients import capabilities, execution

from dspex_worker.bridge import Cancelled, Failure
from dspex_worker.programs.lms.lm_transport import PLACEHOLDER_KEY
from dspex_worker.programs.lms.worker_lm import LMCache, parent_lm
from tests.support.worker_cases.parent import (
    RECORD,
    chat,
    fails_with,
    over_http,
    parent,
    programs,
    server,
    signature,
    spec,
)

RICH = signature(
    "question; hints: list[str]",
    "items: list[int]; kind: Literal['a', 'b']; note: str | None",
)
RICH_ANSWER = {"items": "[1, 2]", "kind": "a", "note": "n"}


@contextmanager
def plain_dspy() -> Iterator[None]:
    """DSPy as it is without a worker: its own LMs connect by themselves."""
    ours = execution.execute, capabilities._capabilities
    execution.execute, capabilities._capabilities = (function.__wrapped__ for function in ours)
    try:
        yield
    finally:
        execution.execute, capabilities._capabilities = ours


def _bodies_of(
    record: dict[str, Any], adapter: str, config: dict[str, Any], answer: str
) -> tuple[list[bytes], list[bytes]]:
    """The bodies that plain DSPy sends and those that the worker sends, for the same program and LM."""
    sig = dspy.Signature("question, hints: list[str] -> items: list[int], kind: Literal['a','b'], note: Optional[str]")
    inputs = {"question": "Q «x» é", "hints": ["h1", "h2"]}
    options = {key: value for key, value in record.items() if key not in ("ref", "options")} | record.get("options", {})
    with server(lambda body: answer) as (url, plain):
        lm = dspy.LM(**options, api_base=url, api_key="k", cache=False, engine="lm15")
        adapters = {"chat": dspy.ChatAdapter, "json": dspy.JSONAdapter, "xml": dspy.XMLAdapter}
        with plain_dspy(), dspy.context(lm=lm, adapter=adapters[adapter]()):
            dspy.ChainOfThought(sig)(**inputs, **({"config": config} if config else {}))
        lm.close()
    with server(lambda body: answer) as (url, ours):
        call = over_http()
        rich = spec("dspy.ChainOfThought", RICH)
        call.call(programs().run, call, rich, inputs, {**record, "api_base": url}, adapter, config)
    return plain, ours


def test_body_bytes_equal_plain_dspy() -> None:
    """parity: for chat, json and xml, known and unknown models, options of the LM and of the call."""
    answers = {
        "chat": chat(reasoning="r", **RICH_ANSWER),
        "json": json.dumps({"reasoning": "r", "items": [1, 2], "kind": "a", "note": None}),
        "xml": "<reasoning>r</reasoning><items>[1]</items><kind>b</kind><note>n</note>",
    }
    records = [
        {"ref": "r", "model": "openai/gpt-4o-mini"},
        {"ref": "r", "model": "openai/unknown", "temperature": 0.3, "max_tokens": 77, "options": {"seed": 3}},
        {"ref": "r", "model": "hosted_vllm/m", "max_tokens": 5, "options": {"stop": ["x"], "top_p": 0.9}},
        {"ref": "r", "model": "deepseek/deepseek-chat", "temperature": 1.0},
        {"ref": "r", "model": "openrouter/some/model", "temperature": 0.0},
        {"ref": "r", "model": "groq/llama-3.3-70b-versatile"},
    ]
    for record in records:
        for adapter, answer in answers.items():
            plain, ours = _bodies_of(record, adapter, {"temperature": 0.5, "rollout_id": 4}, answer)
            assert plain == ours and plain, (record, adapter)


def test_n_choices_are_as_many_requests_in_order() -> None:
    """unit: n=3 sends three equal bodies that differ in `candidate`, and all completions come back."""
    call = parent(lambda body: chat(answer=str(len(call.requests))))
    result = call.call(programs().run, call, spec(), {"question": "q"}, RECORD, config={"n": 3})
    assert [request["candidate"] for request in call.requests] == [0, 1, 2]
    assert len({request["body"] for request in call.requests}) == 1
    assert call.bodies[0]["temperature"] == 0.7  # DSPy's rule for n > 1 without a temperature
    assert [one["answer"] for one in result["completions"]] == ["1", "2", "3"]
    assert result["outputs"] == {"answer": "1"}


def test_request_names_record_rollout_and_cache() -> None:
    """unit: what DSPy asked beyond the bytes reaches the parent; no key and no authorization header does."""
    call = parent(chat(answer="x"))
    lm = RECORD | {"timeout": 9.5}
    call.call(programs().run, call, spec(), {"question": "q"}, lm, rollout_id=7, config={"cache": False})
    call.call(programs().run, call, spec(), {"question": "q"}, lm)
    first, second = call.requests
    assert (first["lm"], first["rollout_id"], first["cache"], first["timeout"]) == ("r1", 7, False, 9.5)
    assert (second["rollout_id"], second["cache"], second["stream"]) == (None, True, False)
    assert first["url"] == "http://lm.invalid/v1/chat/completions" and first["method"] == "POST"
    assert "rollout_id" not in call.bodies[0] and "cache" not in call.bodies[0]
    for request in call.requests:
        names = [name.lower() for name, _ in request["headers"]]
        assert "authorization" not in names and "content-type" in names
        assert PLACEHOLDER_KEY not in json.dumps(request["headers"]) + request["url"]


def test_anthropic_key_header_is_dropped_too() -> None:
    """unit: a provider with another header for its key sends none either."""
    reply = {
        "id": "1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [{"type": "text", "text": chat(answer="hello")}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    call = parent(lambda body: (200, reply, []))
    result = call.call(programs().run, call, spec(), {"question": "q"}, {"ref": "a", "model": "anthropic/claude-x"})
    assert result["outputs"] == {"answer": "hello"}
    assert all(name.lower() != "x-api-key" for name, _ in call.requests[0]["headers"])
    assert call.requests[0]["url"] == "https://api.anthropic.com/v1/messages"


def test_structured_outputs_make_json_the_default_and_send_a_schema() -> None:
    """unit: as for the embedded model: json adapter, json_schema response format, max_tokens as vLLM spells it."""
    call = parent('{"answer": "Paris"}')
    supports = {"response_schema": True, "function_calling": False, "reasoning": False}
    lm = {
        "ref": "l",
        "model": "hosted_vllm/smollm2",
        "api_base": "http://e/v1",
        "max_tokens": 50,
        "supports": supports,
    }
    result = call.call(programs().run, call, spec(), {"question": "q"}, lm | {"structured_outputs": True})
    assert result["outputs"] == {"answer": "Paris"} and list(result["usage"]) == ["hosted_vllm/smollm2"]
    body = call.bodies[0]
    assert body["model"] == "smollm2" and body["max_tokens"] == 50
    assert body["response_format"]["type"] == "json_schema"
    assert list(body["response_format"]["json_schema"]["schema"]["properties"]) == ["answer"]


def test_equal_records_share_one_lm_and_the_number_kept_is_bounded() -> None:
    """unit: the LM cache."""
    from dspex_worker.programs.lms.worker_lm import KEPT

    lms = LMCache()
    assert lms.get(dict(RECORD)) is lms.get(dict(RECORD))
    assert lms.get(None) is None
    first = lms.get({**RECORD, "ref": "0"})
    for number in range(1, KEPT + 2):
        lms.get({**RECORD, "ref": str(number)})
    assert lms.get({**RECORD, "ref": "0"}) is not first
    assert len(lms._made) == KEPT


def test_async_modules_go_through_the_parent_too() -> None:
    """unit: a module that awaits gets the same answer, and its rollout is told."""
    call = parent(chat(answer="a"))
    asyncspec = spec("tests.support.user_code:Awaiting")
    result = call.call(programs().run, call, asyncspec, {"question": "q"}, RECORD, rollout_id=2)
    assert result["outputs"] == {"answer": "a"}
    assert call.requests[0]["rollout_id"] == 2 and call.closed == 1


def test_sync_and_async_bodies_are_equal() -> None:
    """unit: both engines build the same bytes."""
    call = parent(chat(answer="a"))

    async def ask() -> None:
        lm = parent_lm(RECORD)
        with dspy.context(lm=lm):
            await dspy.Predict("question -> answer").acall(question="q")

    call.call(programs().run, call, spec(), {"question": "q"}, RECORD)
    call.call(lambda: asyncio.run(ask()))
    assert call.requests[0]["body"] == call.requests[1]["body"]


def test_cancelled_wait_leaves_the_program_at_once() -> None:
    """unit: Cancelled passes through DSPy's and our except clauses; nothing is asked afterwards."""

    def answer(body: dict[str, Any]) -> str:
        call.cancelled.set()
        return chat(answer="too late")

    call = parent(answer)
    best = spec(
        "dspy.BestOfN", options={"N": 3, "threshold": 2.0, "reward_fn": {"import": "tests.support.user_code:is_short"}}
    )
    for one in (spec(), spec("dspy.ChainOfThought"), best):
        call.cancelled.clear()
        before = len(call.requests)
        try:
            call.call(programs().run, call, one, {"question": "q"}, RECORD)
        except Cancelled:
            assert len(call.requests) == before + 1
        else:
            raise AssertionError(f"{one['module']} was not cancelled")


def test_models_that_the_parent_cannot_carry_are_refused_by_name() -> None:
    """unit: unknown providers, and the names that a cloud has elsewhere."""
    for model in ("nobody/x", "bedrock/claude"):
        call = parent(chat(answer="a"))
        with fails_with("LMUnsupportedFeatureError") as caught:
            call.call(programs().run, call, spec(), {"question": "q"}, {"ref": "r", "model": model})
        assert "direct=True" in caught[0].message and not call.requests


def test_a_cloud_without_its_endpoint_is_refused_as_dspy_refuses_it() -> None:
    """unit: nothing is asked."""
    call = parent(chat(answer="a"))
    with fails_with("LMNotConfiguredError") as caught:
        call.call(programs().run, call, spec(), {"question": "q"}, {"ref": "r", "model": "azure/gpt"})
    assert "AZURE_OPENAI_ENDPOINT" in caught[0].message and not call.requests


def test_direct_records_use_dspy_as_it_is() -> None:
    """unit: the worker itself connects, with the key of the frame; errors do not show it."""
    with server(lambda body: chat(answer="direct")) as (url, bodies):
        call = parent(chat(answer="not asked"))
        lm = {"ref": "d", "model": "openai/x", "direct": True, "api_key": "sk-secret", "api_base": url}
        assert call.call(programs().run, call, spec(), {"question": "q"}, lm)["outputs"] == {"answer": "direct"}
        assert len(bodies) == 1 and not call.requests
        programs().lms.get(lm).close()


def test_responses_api_is_spoken_through_the_parent() -> None:
    """unit: model_type="responses"."""
    reply = {
        "id": "r",
        "object": "response",
        "model": "gpt-5",
        "status": "completed",
        "output": [
            {
                "type": "message",
                "id": "m",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": chat(answer="ok"), "annotations": []}],
            }
        ],
        "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
    }
    call = parent(lambda body: (200, reply, []))
    lm = {"ref": "r", "model": "openai/gpt-5", "model_type": "responses"}
    assert call.call(programs().run, call, spec(), {"question": "q"}, lm)["outputs"] == {"answer": "ok"}
    assert call.requests[0]["url"] == "https://api.openai.com/v1/responses"


def test_failure_without_a_class_of_dspys_comes_back_as_it_was() -> None:
    """unit: the parent's own refusals (a budget) are not turned into LM errors."""
    call = parent(lambda body: Failure("BudgetExceeded", "spent", scope="s", spent=1.0, limit=1.0, unit="USD"))
    with fails_with("BudgetExceeded") as caught:
        call.call(programs().run, call, spec(), {"question": "q"}, RECORD)
    assert caught[0].facts["scope"] == "s"


def test_answers_from_the_parents_cache_cost_nothing() -> None:
    """unit: the parent says so beside the status; usage is empty and `cached` is set."""
    call = parent(chat(answer="a"))
    asked = call.handlers["lm_request"]

    def cached(request: dict[str, Any]) -> Any:
        head, *body = asked(request)
        yield head | {"cached": True}
        yield from body

    paid = call.call(programs().run, call, spec(), {"question": "q"}, RECORD)
    assert paid["cached"] is False and paid["usage"]["openai/gpt-test"]["total_tokens"] == 5
    call.handlers["lm_request"] = cached
    free = call.call(programs().run, call, spec(), {"question": "q"}, RECORD)
    assert free == {"outputs": {"answer": "a"}, "usage": {}, "cached": True}


def _pair(**changes: Any) -> dict[str, Any]:
    """A record with one fallback."""
    return {**RECORD, "ref": "first", "fallbacks": [{**RECORD, "ref": "second", "model": "openai/other"}], **changes}


def test_fallback_is_asked_when_the_first_cannot() -> None:
    """unit: with the call's own options; the parent hears which turn it is."""
    refused = {"openai/gpt-test": (503, {"error": {"message": "down"}}, [])}

    def answer(body: dict[str, Any]) -> Any:
        return refused.get(f"openai/{body['model']}", chat(answer="from the other"))

    call = parent(answer)
    value = call.call(programs().run, call, spec(), {"question": "q"}, _pair(), None, {"temperature": 0.5})
    assert value["outputs"] == {"answer": "from the other"} and list(value["usage"]) == ["openai/other"]
    assert [request["lm"] for request in call.requests] == ["first", "second"]
    assert [(request["has_alternative"], request["instead_of"]) for request in call.requests] == [
        (True, None),
        (False, "openai/gpt-test"),
    ]
    assert call.requests[1]["reason"] == "LMServerError"
    assert [body["temperature"] for body in call.bodies] == [0.5, 0.5]


def test_failure_of_the_request_itself_is_not_passed_on() -> None:
    """unit: and of failures that are, the first is reported when nobody can."""
    call = parent(lambda body: (400, {"error": {"message": "no"}}, []))
    with fails_with("LMInvalidRequestError"):
        call.call(programs().run, call, spec(), {"question": "q"}, _pair())
    # ChatAdapter asks once more in the json format, as it does after any failure.
    assert {request["lm"] for request in call.requests} == {"first"}
    statuses = iter([401, 503] * 2)
    call = parent(lambda body: (next(statuses), {"error": {"message": "no"}}, []))
    with fails_with("LMAuthError"):
        call.call(programs().run, call, spec(), {"question": "q"}, _pair())


def test_async_modules_fail_over_too() -> None:
    """unit"""
    call = parent(lambda body: (503, {}, []) if body["model"] == "gpt-test" else chat(answer="late"))
    lm = LMCache().get(_pair())
    assert lm is not None

    async def ask() -> Any:
        with dspy.context(lm=lm, dspex_call=call):
            return await dspy.Predict("question -> answer").acall(question="q")

    assert call.call(lambda: asyncio.run(ask())).answer == "late"
