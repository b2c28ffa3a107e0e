"""Requests through the parent without lm15, as on DSPy 3.3; here on whichever DSPy there is."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import dspy
import pydantic
import pytest
from dspy.utils import exceptions as dspy_errors

from dspex_worker.failure import Failure
from dspex_worker.programs.lms.chat_requests import ChatRequests

RECORD = {"model": "openai/gpt-x", "dialect": "openai", "api_base": "http://host/v1?key=1", "ref": "r"}
ASK = [{"role": "user", "content": "é?"}]
REPLY = {
    "model": "gpt-x",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}],
    "usage": {"total_tokens": 3},
}


class Transport:
    """Answers with one head and body; keeps what was sent."""

    def __init__(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.sent: list[Any] = []
        self._body = body
        self._head = {"status": status, "headers": list((headers or {}).items())}

    def opened(self, request: Any) -> tuple[dict[str, Any], Generator[bytes]]:
        self.sent.append(request)
        return self._head, self._chunks()

    def _chunks(self) -> Generator[bytes]:
        for at in range(0, len(self._body), 7):  # not at the ends of lines, nor of characters
            yield self._body[at : at + 7]


class Viewer:
    def __init__(self) -> None:
        self.shown: list[str] = []

    def show(self, text: str) -> bool:
        self.shown.append(text)
        return True

    def finish(self) -> None:
        self.shown.append("<end>")


def requests(transport: Any, **record: Any) -> ChatRequests:
    return ChatRequests({**RECORD, **record}, transport)


def test_a_request_is_worded_as_chat_completions_are() -> None:
    """unit: to the record's own address; what is None or not the model's business stays out."""
    transport = Transport(json.dumps(REPLY).encode())
    options = {"temperature": 0.5, "max_tokens": None, "rollout_id": 3, "cache": False, "api_key": "k"}
    reply = requests(transport).ask(ASK, options, None)
    [sent] = transport.sent
    assert (sent.method, sent.url) == ("POST", "http://host/v1/chat/completions?key=1")
    assert json.loads(sent.body) == {"model": "gpt-x", "messages": ASK, "temperature": 0.5}
    assert "é" in sent.body.decode()
    assert (reply.choices[0].message.content, dict(reply.usage), reply.choices[0].logprobs) == (
        "yes",
        {"total_tokens": 3},
        None,
    )


def test_a_model_of_pydantics_is_worded_as_its_schema() -> None:
    """unit: DSPy 3.3 leaves that to LiteLLM."""

    class Answer(pydantic.BaseModel):
        answer: str

    body = requests(None).body(ASK, {"response_format": Answer})
    assert body["response_format"]["json_schema"] == {
        "name": "Answer",
        "schema": Answer.model_json_schema(),
        "strict": True,
    }
    assert requests(None).body(ASK, {"response_format": {"type": "json_object"}})["response_format"] == {
        "type": "json_object"
    }


def test_a_stream_is_shown_and_put_together() -> None:
    """unit: text, reasoning, tool calls in pieces, the usage of the last event."""
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "reasoning_content": "hm"},
        {"content": "yé"},
        {"content": "s"},
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
    ]
    events = [{"model": "gpt-x", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    events += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}, REPLY | {"choices": []}]
    text = "".join(f"data: {json.dumps(event, ensure_ascii=False)}\r\n\r\n" for event in events)
    transport, viewer = Transport(f": keep-alive\n\n{text}data: [DONE]\n\n".encode()), Viewer()
    reply = requests(transport).ask(ASK, {}, viewer)
    assert json.loads(transport.sent[0].body)["stream_options"] == {"include_usage": True}
    assert viewer.shown == ["yé", "s", "<end>"]
    [choice] = reply.choices
    assert (choice.message.content, choice.message.reasoning_content, choice.finish_reason) == (
        "yés",
        "hm",
        "tool_calls",
    )
    [call] = choice.message.tool_calls
    assert (call.id, call.function.name, call.function.arguments) == ("c", "f", '{"a":1}')
    assert reply.usage.total_tokens == 3


def test_replies_that_are_none_are_the_servers_errors() -> None:
    """unit: no JSON, no object, no choices."""
    for body in (b"{", b"[1]", b"{}", b'{"choices": []}'):
        with pytest.raises(dspy_errors.LMServerError):
            requests(Transport(body)).ask(ASK, {}, None)


def test_what_cannot_be_carried_is_refused_with_the_way_out() -> None:
    """unit: before anything is sent."""
    requests(None).require_possible()
    for record in ({"dialect": "anthropic"}, {"dialect": None, "model": "gemini/x"}, {"model_type": "responses"}):
        with pytest.raises(Failure, match=r"direct=True") as refused:
            requests(None, **record).require_possible()
        assert refused.value.kind == "LMUnsupportedFeatureError"
        assert dspy.__version__ in refused.value.message
