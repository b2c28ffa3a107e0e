"""Collaboration: errors that come as a success, in every envelope: the same class on every way, kept by nobody."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dspex.errors import (
    LMAuthError,
    LMBillingError,
    LMContextWindowExceededError,
    LMEmptyStreamError,
    LMError,
    LMInvalidRequestError,
    LMProviderError,
    LMRateLimitError,
    LMServerError,
    LMStreamAssemblyError,
    LMTimeoutError,
)
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from dspex.lm.request_factory import dialect_of
from dspex.lm.usage import Account
from tests.support.lm.peer import Peer, http
from tests.support.lm.requests import (
    PLAIN,
    STREAM,
    STREAMED,
    Way,
    _complete,
    _forward,
    _forward_stream,
    _stream,
    begun,
)

pytestmark = pytest.mark.usefixtures("short_pauses")

Serve = Callable[..., LM]
MODELS = ("openai/m", "anthropic/m")
KEY = "canary-4242424242-canary"


plainly = pytest.mark.parametrize("way", PLAIN.values(), ids=PLAIN)
streaming = pytest.mark.parametrize("way", STREAMED.values(), ids=STREAMED)

SHAPES: list[tuple[Any, type[LMError]]] = [
    ({"error": {"code": 502, "message": "refused"}}, LMServerError),
    ({"error": {"code": 429, "message": "slow down"}}, LMRateLimitError),
    ({"error": {"code": "429", "message": "slow down"}}, LMRateLimitError),
    ({"error": {"code": "rate_limit_exceeded", "message": "slow down"}}, LMRateLimitError),
    ({"error": {"code": 429, "type": "insufficient_quota", "message": "spent"}}, LMBillingError),
    ({"error": {"message": "no", "type": "invalid_request_error"}}, LMInvalidRequestError),
    ({"error": {"code": "context_length_exceeded", "message": "too long"}}, LMContextWindowExceededError),
    ({"error": {"error": {"type": "authentication_error", "message": "who?"}}}, LMAuthError),
    ({"error": "CUDA out of memory"}, LMServerError),
    ({"error": "busy", "code": 401}, LMAuthError),
    ({"error": ["CUDA out of memory"]}, LMServerError),
    ({"error": [{"message": "late", "code": 504}]}, LMTimeoutError),
    ({"object": "error", "message": "no such thing", "code": 400}, LMInvalidRequestError),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, LMServerError),
    ({"type": "error", "message": "busy", "code": "rate_limited"}, LMRateLimitError),
    ({"choices": [{"error": {"code": 429, "message": "upstream"}}]}, LMRateLimitError),
    ({"choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}, LMServerError),
    ({"detail": "Model is loading"}, LMServerError),
    ({"detail": [{"loc": ["body"], "msg": "field required"}]}, LMServerError),
    ({"message": "no", "code": "invalid_api_key"}, LMAuthError),
    ([{"error": {"code": 503, "status": "UNAVAILABLE", "message": "later"}}], LMServerError),
]
shaped = pytest.mark.parametrize(("shape", "kind"), SHAPES, ids=[json.dumps(shape)[:50] for shape, _ in SHAPES])


def good(model: str, *, stream: bool) -> bytes:
    """An answer, "fine"."""
    if model.startswith("openai"):
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        if not stream:
            message = {"role": "assistant", "content": "fine"}
            return http(
                json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}).encode()
            )
        return sse(
            {"choices": [{"delta": {"content": "fine"}, "finish_reason": "stop"}]}, {"choices": [], "usage": usage}
        )
    if not stream:
        content = [{"type": "text", "text": "fine"}]
        return http(json.dumps({"type": "message", "content": content, "stop_reason": "end_turn"}).encode())
    return sse(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "fine"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    )


def sse(*payloads: Any, text: bytes = b"") -> bytes:
    """A stream of events."""
    return http(b"".join(b"data: %s\n\n" % json.dumps(p).encode() for p in payloads) + text, "200 OK", STREAM)


def _dumped_in_hex(body: bytes) -> bytes:
    return b'{"error": {"message": "%s"}}' % body.hex().upper().encode()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """An LM whose endpoint sends these replies, one per connection."""
    made: list[Peer] = []

    def make(model: str, *replies: bytes, **options: Any) -> LM:
        made.append(Peer(*([reply] for reply in replies)))
        base = made[-1].url.removesuffix("/x")
        return LM(model, api_base=base, api_key=KEY, **{"retries": 0, **options})

    yield make
    for peer in made:
        peer.close()


@plainly
@shaped
@pytest.mark.parametrize("model", MODELS)
def test_error_in_a_success_is_its_class_and_is_not_kept(
    model: str, shape: Any, kind: type[LMError], way: Way, serve: Serve, client: LMClient
) -> None:
    """collaboration"""
    lm = serve(model, http(json.dumps(shape).encode()), good(model, stream=False))
    with pytest.raises(LMError) as caught:
        way(client, lm)
    assert type(caught.value) is kind
    assert "fine" in way(client, lm), "the error was kept"


@streaming
@shaped
@pytest.mark.parametrize("model", MODELS)
def test_error_in_a_stream_is_its_class_and_is_not_kept(
    model: str, shape: Any, kind: type[LMError], way: Way, serve: Serve, client: LMClient
) -> None:
    """collaboration: as the first event, where it is a refusal like any other."""
    lm = serve(model, sse(shape), good(model, stream=True))
    with pytest.raises(LMError) as caught:
        way(client, lm)
    assert type(caught.value) is kind
    assert "fine" in way(client, lm), "the error was kept"


@streaming
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "ending",
    [
        b'data: {"error": "CUDA out of memory"}\n\n',
        b'data: [{"error": {"code": 503, "message": "later"}}]\n\n',
        b"event: error\ndata: CUDA out of memory\n\n",
        b'event: error\ndata: {"whatever": 1}\n\n',
        b"event: error\ndata: 5\n\n",
        b"event:error\n\n",
        b"data: upstream connect error\n\n",
        b'data: "upstream connect error"\n\n',
        b'data: {"detail": "worker died"}\n\n',
        b'data: {"error": "no blank line behind it"}',
        b'error: {"code": 500, "message": "out of memory"}\n\n',
        b'event: Server-Error\ndata: {"whatever": 1}\n\n',
        b'event: exception\ndata: {"whatever": 1}\n\n',
        b'data: {"error": {}}\n\n',
        b'data: {"errors": [{"message": "x"}], "usage": {"prompt_tokens": 0}}\n\n',
        b'data: {"error_code": 336003, "error_msg": "bad"}\n\n',
        b'data: {"base_resp": {"status_code": 1004, "status_msg": "login fail"}}\n\n',
        b'data: {"success": false, "result": null}\n\n',
        b'data: {"status": 500}\n\n',
        b'data: {"choices": [{"delta": {"error": {"message": "x"}}}]}\n\n',
        b'data: {"choices": [{"delta": {}, "finish_reason": "network_error"}]}\n\n',
        b'data: {"choices": [{"delta": {}, "finish_reason": "insufficient_system_resource"}]}\n\n',
        b'data: {"type": "response.failed", "response": {"error": {"message": "x"}}}\n\n',
        b'data: {"message": "died", "usage": {"prompt_tokens": 1}}\n\n',
        b'data: {"error": "lines end with returns"}\r\r',
        b"Internal Server Error\n\n",
        b": note\n<html>502</html>\n\n",
    ],
)
def test_error_after_text_is_an_error_and_nothing_is_kept(
    ending: bytes, model: str, way: Way, serve: Serve, client: LMClient
) -> None:
    """collaboration: also when a finish or [DONE] follows; half an answer is none."""
    lm = serve(
        model, sse(begun(model), text=ending + b"data: [DONE]\n\n" * ending.endswith(b"\n")), good(model, stream=True)
    )
    with pytest.raises(LMServerError):
        way(client, lm)
    assert "fine" in way(client, lm), "half an answer was kept"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "member",
    [{"base_resp": {"status_code": 0, "status_msg": "success"}}, {"error": None}, {"success": True}, {"status": "ok"}],
)
def test_members_that_say_that_all_is_well_are_no_errors(
    member: dict[str, Any], model: str, serve: Serve, client: LMClient
) -> None:
    """collaboration: beside usage, and alone"""
    end = b"data: [DONE]\n\n" if model.startswith("openai") else b'data: {"type": "message_stop"}\n\n'
    lm = serve(model, sse(begun(model), {"choices": [], "usage": {}, **member}, member, text=end))
    assert _stream(client, lm) == "half "


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("change", [lambda body: b"\xef\xbb\xbf" + body, lambda body: body.replace(b"\n", b"\r")])
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_streams_are_read_whatever_their_line_ends(model: str, change: Callable[[bytes], bytes], step: int) -> None:
    """unit: a byte order mark hides no text, carriage returns end lines, however the bytes are cut."""
    lm = LM(model, api_base="http://127.0.0.1:1/v1", api_key=KEY)
    end = b"data: [DONE]\n\n" if model.startswith("openai") else b'data: {"type": "message_stop"}\n\n'
    body = change(b"data: %s\n\n" % json.dumps(begun(model)).encode() * 2 + end)
    reader = dialect_of(lm).reader(lm)
    for at in range(0, len(body), step):
        reader.feed(body[at : at + step])
    assert reader.finish().text == "half half "


def test_work_of_reading_a_stream_grows_with_its_length() -> None:
    """unit: an event that comes byte by byte is looked at once; it took 32 s for 200 KB."""
    lm = LM("openai/m", api_base="http://127.0.0.1:1/v1", api_key=KEY)

    def seconds(size: int) -> float:
        reader, event = dialect_of(lm).reader(lm), b"data: %s\n\n" % json.dumps({"x": "a" * size}).encode()
        began = time.thread_time()
        for at in range(len(event)):
            reader.feed(event[at : at + 1])
        return time.thread_time() - began

    assert seconds(160_000) < 20 * max(seconds(20_000), 0.01)


@streaming
@pytest.mark.parametrize("model", MODELS)
def test_numbers_that_are_none_are_malformed(model: str, way: Way, serve: Serve, client: LMClient) -> None:
    """collaboration: an index of 1e999 was an OverflowError."""
    delta = b'{"tool_calls": [{"index": 1e999, "function": {"name": "f", "arguments": ""}}]}'
    event = b'data: {"type": "content_block_delta", "index": 1e999, "choices": [{"delta": %s}]}\n\n' % delta
    with pytest.raises(LMProviderError, match="shape"):
        way(client, serve(model, http(event, "200 OK", STREAM)))


@plainly
@pytest.mark.parametrize("status", ["302 Found", "401 Unauthorized", "500 Oops", "600 Odd"])
@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, lambda body: body.hex().encode(), _dumped_in_hex])
def test_a_refusals_key_does_not_hide_in_what_is_no_text(
    pack: Callable[[bytes], bytes], status: str, way: Way, serve: Serve, client: LMClient
) -> None:
    """collaboration: compressed without a header that says so, and as hexadecimal digits."""
    body = pack(b'{"error": {"message": "bad key %s"}}' % KEY.encode())
    try:
        seen = way(client, serve("openai/m", http(body, status))).encode()
    except LMError as error:
        seen = f"{error} {error!r} {vars(error)}".encode()
    assert KEY.encode().hex() not in seen.decode().lower() and body not in seen


@streaming
@pytest.mark.parametrize("model", MODELS)
def test_stream_without_an_end_is_not_whole(model: str, way: Way, serve: Serve, client: LMClient) -> None:
    """collaboration: usage in each event is no end, nor is the end of the connection."""
    usage = {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "output_tokens": 1}}
    kind = {"type": "message_delta"} if model.startswith("anthropic") else {}
    lm = serve(model, sse({**begun(model), **usage}, {**kind, **usage}), good(model, stream=True))
    with pytest.raises(LMStreamAssemblyError):
        way(client, lm)
    assert "fine" in way(client, lm)


@streaming
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b": keep-alive\n\n",
        b"data: [DONE]\n\n",
        b'data: {"choices": [{"delta": {"role": "assistant"}}]}\n\ndata: [DONE]\n\n',
        b'data: {"type": "message_start", "message": {}}\n\ndata: {"type": "message_stop"}\n\n',
        b'{"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}]}',
        b"<html>gateway</html>",
    ],
)
def test_stream_without_an_answer_is_asked_for_again(
    body: bytes, model: str, way: Way, serve: Serve, client: LMClient
) -> None:
    """collaboration: DSPy's class and code, and nothing was shown, so it is a failure of the server like any other."""
    lm = serve(model, *[http(body, "200 OK", STREAM)] * 3, good(model, stream=True), retries=1)
    with pytest.raises(LMEmptyStreamError) as caught:
        way(client, lm)
    assert isinstance(caught.value, LMStreamAssemblyError) and isinstance(caught.value, LMServerError)
    assert (caught.value.retryable, caught.value.code) == ("now", "stream_assembly")
    assert "fine" in way(client, lm)


@plainly
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("body", [b"{}", b"null", b"[]", b"5", b'{"id": "x", "choices": null}', b'{"type": "x"}'])
def test_json_that_is_no_answer_is_an_error(body: bytes, model: str, way: Way, serve: Serve, client: LMClient) -> None:
    """collaboration: an empty answer is said in words, not by leaving it out."""
    lm = serve(model, http(body), good(model, stream=False))
    with pytest.raises(LMProviderError):
        way(client, lm)
    assert "fine" in way(client, lm)


@plainly
def test_rate_limit_in_a_success_is_waited_for_and_retried(way: Way, serve: Serve, client: LMClient) -> None:
    """collaboration: by its code, with the pause that the headers name."""
    busy = http(b'{"error": {"code": 429, "message": "Rate limited"}}', "200 OK", "retry-after: 0.01")
    told: list[dict[str, Any]] = []
    client.emit = lambda name, **facts: told.append({"name": str(name), **facts})  # type: ignore[method-assign]
    lm = serve("openai/m", busy, busy, good("openai/m", stream=False), retries=3)
    assert "fine" in way(client, lm)
    assert [(fact["name"], fact["reason"], fact["pause_s"]) for fact in told] == [
        ("dspex.lm.retried", "LMRateLimitError", 0.01)
    ] * 2


@pytest.mark.parametrize("code", [429, "503", "invalid_api_key", "model_not_found"])
@pytest.mark.parametrize("way", ["complete", "acomplete", "stream", "astream"])
def test_error_in_a_success_falls_over(code: Any, way: str, serve: Serve, client: LMClient) -> None:
    """collaboration: to the next LM, before anything was shown; in a body, and as a stream's first event."""
    failing = json.dumps({"error": {"code": code, "message": "no"}}).encode()
    is_stream = way in STREAMED
    backup = serve("openai/b", good("openai/b", stream=is_stream))
    reply = http(b"data: " + failing + b"\n\n", "200 OK", STREAM) if is_stream else http(failing)
    first = serve("openai/m", reply, fallbacks=[backup])
    assert (PLAIN | STREAMED)[way](client, first) == "fine"


def test_usage_is_counted_whatever_was_asked(serve: Serve, client: LMClient) -> None:
    """collaboration: a stream for a whole answer, a whole answer for a stream, and an error that cost something."""
    usage = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
    whole = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
    streamed = {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
    cases = [
        (_forward, sse(streamed)),
        (_forward_stream, http(json.dumps(whole).encode())),
        (_forward_stream, sse({"error": "broke", "usage": usage}, {"usage": usage})),
        (_complete, http(json.dumps({"error": "broke", "usage": usage}).encode())),
        (_stream, sse(streamed, {"error": "broke"})),
    ]
    for way, reply in cases:
        lm = serve("openai/m", reply, cache=False)
        with Account("case") as account, pytest.raises(LMError):
            way(client, lm)
        assert account.tokens == 42, way
