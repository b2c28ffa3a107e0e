"""Fields as they arrive."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError

from dspex_worker.bridge import Cancelled, Failure
from dspex_worker.programs.streaming.field_splitters import ChatSplitter, JSONSplitter, XMLSplitter
from dspex_worker.programs.streaming.field_streams import run_stream
from tests.support.worker_cases.parent import (
    RECORD,
    chat,
    fails_with,
    held_server,
    parent,
    programs,
    server,
    signature,
    spec,
    sse,
)


def _joined(pieces: list[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for field, text in pieces:
        found[field] = found.get(field, "") + text
    return found


def _fed(splitter: Any, text: str, size: int) -> list[tuple[str, str]]:
    pieces = [piece for at in range(0, len(text), size) for piece in splitter.feed(text[at : at + size])]
    return pieces + splitter.end()


TEXTS = [
    {"reasoning": "one\n\ntwo  three", "answer": "a [[ b ]] ## c"},
    {"reasoning": "", "answer": "  "},
    {"reasoning": "x\n[[ ## not a header", "answer": "[[ not\n\n[["},
    {"reasoning": "tail spaces   ", "answer": "é «q» 漢字\n- list\n- of"},
]


def test_headed_text_is_split_alike_for_every_chunk_size() -> None:
    """unit: joined pieces equal what DSPy parses, whatever the cut; headers never leak."""
    sig = dspy.Signature("q -> reasoning, answer")
    for fields in TEXTS:
        for lead in ("", "Sure!\n", "chatter [[ ## answer ## ]] in a line\n"):
            text = lead + chat(**fields)
            parsed = {name: value for name, value in dspy.ChatAdapter().parse(sig, text).items() if value}
            for size in (1, 2, 3, 7, 1000):
                pieces = _fed(ChatSplitter(["reasoning", "answer"]), text, size)
                assert _joined(pieces) == parsed, (size, text)


def _ragged(fields: dict[str, str]) -> dict[str, list[str]]:
    return {name: [line.rstrip() for line in text.split("\n")] for name, text in fields.items()}


def test_random_text_is_split_as_dspy_parses_it() -> None:
    """parity: fragments of headers, brackets and white space, in any order (seeds 0 to 799)."""
    sig = dspy.Signature("q -> a, b")
    parts = [f"[[ ## {name} ## ]]" for name in ("a", "b", "c", "completed")]
    parts += ["\n", "\n\n", " ", "  ", "[[", "[[ ##", " ## ]]", "x", "hello", "]", "#", "é\u3000", "- y", "[[ ## a"]
    compared = 0
    for seed in range(800):
        source = random.Random(seed)
        some = ["".join(source.choices(parts, k=source.randint(0, 6))) for _ in range(3)]
        text = f"{some[0]}\n[[ ## a ## ]]{some[1]}\n[[ ## b ## ]]{some[2]}"
        try:
            parsed = {name: value for name, value in dspy.ChatAdapter().parse(sig, text).items() if value}
        except AdapterParseError:
            continue
        compared += 1
        for size in (1, 3, 100):
            found = _joined(_fed(ChatSplitter(["a", "b"]), text, size))
            # DSPy also strips what stands on a header's own line, which nobody sees before the next line is there.
            assert _ragged(found) == _ragged(parsed), (seed, size, text)
    assert compared > 700


def test_json_text_is_split_alike_for_every_chunk_size() -> None:
    """unit: strings grow, other values come whole."""
    values = {"reasoning": 'a "quoted" \\ line\nnext é', "items": [1, {"x": "y"}], "answer": "z"}
    for text in (json.dumps(values), "```json\n" + json.dumps(values, indent=1, ensure_ascii=False) + "\n```"):
        for size in (1, 2, 3, 7, 1000):
            pieces = _fed(JSONSplitter(list(values)), text, size)
            assert _joined(pieces) == values | {"items": '[1, {"x": "y"}]'}, (size, text)
            assert len([piece for piece in pieces if piece[0] == "items"]) == 1


def test_tagged_text_is_split_alike_for_every_chunk_size() -> None:
    """unit: XMLAdapter's tags."""
    text = "Well: <reasoning>\na < b and c > d <i>x</i>\n</reasoning>\n<answer>z</answer> bye"
    for size in (1, 2, 3, 7, 1000):
        pieces = _fed(XMLSplitter(["reasoning", "answer"], ["answer"]), text, size)
        assert _joined(pieces) == {"reasoning": "a < b and c > d <i>x</i>", "answer": "z"}, size


def test_run_stream_yields_fields_then_runs_value() -> None:
    """unit: the request asks for a stream; the pieces join to the outputs; usage comes with the end."""
    call = parent(chat(reasoning="because\nof this", answer="Paris is it"))
    cot = spec("dspy.ChainOfThought")
    chunks, value = call.call(run_stream, programs(), call, cot, {"question": "q"}, RECORD)
    assert call.bodies[0]["stream"] is True and call.requests[0]["stream"] is True
    assert len(chunks) > 3 and {chunk["predictor"] for chunk in chunks} == {"predict"}
    assert _joined([(chunk["field"], chunk["text"]) for chunk in chunks]) == value["outputs"]
    assert value["usage"]["openai/gpt-test"]["total_tokens"] == 5 and value["cached"] is False
    plain = call.call(programs().run, call, cot, {"question": "q"}, RECORD)
    assert plain == value


def test_pieces_come_before_the_answer_is_complete() -> None:
    """unit: the first piece is yielded while the LM is still held back."""
    release = threading.Event()

    def slow(request: dict[str, Any]) -> Iterator[Any]:
        yield {"status": 200, "headers": [["content-type", "text/event-stream"]]}
        for number, event in enumerate(sse(chat(answer="first second third"), size=6)):
            if number == 6:
                assert release.wait(20)
            yield event

    call = parent("")
    call.handlers["lm_request"] = slow

    def work() -> None:
        stream = run_stream(programs(), call, spec(), {"question": "q"}, RECORD)
        assert next(stream)["text"].startswith("f")
        release.set()
        assert "".join(chunk["text"] for chunk in stream).endswith("third")

    call.call(work)


def test_structured_streams_split_json() -> None:
    """unit: the json adapter, typed outputs included."""
    call = parent('{"answer": "Paris", "sure": 0.5}')
    sig = signature("question", "answer; sure: float")
    chunks, value = call.call(run_stream, programs(), call, spec(sig=sig), {"question": "q"}, RECORD, "json")
    assert _joined([(chunk["field"], chunk["text"]) for chunk in chunks]) == {"answer": "Paris", "sure": "0.5"}
    assert value["outputs"] == {"answer": "Paris", "sure": 0.5}


def test_what_was_shown_is_not_asked_for_again() -> None:
    """unit: after visible output ChatAdapter does not fall back to JSON, as in DSPy's own streams."""
    call = parent("[[ ## other ## ]]\nx\n\n[[ ## answer ## ]]\nvisible")
    sig = signature("question", "answer; missing: int")
    with fails_with("AdapterParseError"):
        call.call(run_stream, programs(), call, spec(sig=sig), {"question": "q"}, RECORD, "chat")
    assert len(call.requests) == 1


def test_errors_of_the_program_reach_the_stream() -> None:
    """unit: the same failure as run's."""
    call = parent(lambda body: (401, {"error": {"message": "no"}}, []))
    with fails_with("LMAuthError"):
        call.call(run_stream, programs(), call, spec(), {"question": "q"}, RECORD)


def test_cancelled_stream_ends_while_the_lm_is_silent() -> None:
    """unit: neither the stream nor its thread waits for an LM that never answers."""
    call = parent("")

    def silent(request: dict[str, Any]) -> Iterator[Any]:
        yield {"status": 200, "headers": [["content-type", "text/event-stream"]]}
        call.cancelled.set()  # the real context wakes the wait with Cancelled, as the double does now
        yield b""

    call.handlers["lm_request"] = silent
    try:
        call.call(run_stream, programs(), call, spec(), {"question": "q"}, RECORD)
    except Cancelled:
        pass
    else:
        raise AssertionError("the stream was not cancelled")
    for thread in threading.enumerate():
        if thread.name == "dspex-stream":
            thread.join(10)
            assert not thread.is_alive()


def test_direct_lm_streams_over_its_own_connection() -> None:
    """unit: pieces as they come, then run's value; nothing passes by the parent."""
    with server(lambda body: chat(answer="straight from here")) as (url, bodies):
        call = parent(chat(answer="not asked"))
        lm = {"ref": "d", "model": "openai/x", "direct": True, "api_key": "sk-secret", "api_base": url}
        chunks, value = call.call(run_stream, programs(), call, spec(), {"question": "q"}, lm)
        assert len(chunks) > 2 and "".join(chunk["text"] for chunk in chunks) == "straight from here"
        assert value["outputs"] == {"answer": "straight from here"} and value["usage"]["openai/x"]["total_tokens"] == 5
        assert json.loads(bodies[0])["stream"] is True and not call.requests
        programs().lms.get(lm).close()


def test_direct_lm_shows_pieces_before_the_answer_is_complete_and_ends_when_cancelled() -> None:
    """unit: the endpoint holds the rest back; a cancel closes the connection with the next piece."""
    held, gone = threading.Event(), threading.Event()
    with held_server(held, gone) as url:
        call = parent("")
        lm = {"ref": "h", "model": "openai/x", "direct": True, "api_key": "k", "api_base": url, "retries": 1}

        def work() -> None:
            stream = run_stream(programs(), call, spec(), {"question": "q"}, lm)
            assert next(stream)["text"].startswith("first")
            call.cancelled.set()
            held.set()
            try:
                for _ in stream:
                    pass
            except Cancelled:
                return
            raise AssertionError("the stream was not cancelled")

        call.call(work)
        assert gone.wait(10)
        programs().lms.get(lm).close()


def test_fallback_streams_only_if_nothing_was_shown() -> None:
    """unit: a refusal is passed on to the next LM; half an answer is not."""
    pair = {**RECORD, "ref": "first", "fallbacks": [{**RECORD, "ref": "second", "model": "openai/other"}]}
    call = parent(lambda body: (503, {}, []) if body["model"] == "gpt-test" else chat(answer="from the other"))
    chunks, value = call.call(run_stream, programs(), call, spec(), {"question": "q"}, pair)
    assert "".join(chunk["text"] for chunk in chunks) == value["outputs"]["answer"] == "from the other"

    def breaks(request: dict[str, Any]) -> Iterator[Any]:
        yield {"status": 200, "headers": [["content-type", "text/event-stream"]]}
        for number, event in enumerate(sse(chat(answer="half of it is here"), size=6)):
            if number == 6:
                raise Failure("LMTransportError", "the connection was reset")
            yield event

    call = parent("")
    call.handlers["lm_request"] = breaks
    with fails_with("LMTransportError"):
        call.call(run_stream, programs(), call, spec(), {"question": "q"}, pair)
    assert [request["lm"] for request in call.requests] == ["first"]
