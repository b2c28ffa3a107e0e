"""Parity: the cases of DSPy's tests/adapters/test_chat_adapter.py and test_json_adapter.py.

docs/internals/upstream-cases.md lists them.

What is expected is what the installed DSPy gives for the same case, not what an older version of its tests says.
"""

from __future__ import annotations

from typing import Any

import pytest

from dspex.adapters import compile_signature
from dspex.errors import AdapterParseError
from dspex.signatures.signature import signature
from tests.support.parity import shapes
from tests.support.parity.one_case import CLAUDE, KNOWN, UNKNOWN, agreed, awaited, call, case, field, out, values
from tests.support.parity.oracle import Oracle, is_error

pytestmark = pytest.mark.parity

IMAGE = ("dspy", "Image", {"url": "https://pictures.example/cat.png"})
OTHER = ("dspy", "Image", {"url": "data:image/png;base64,AAAA"})
ITEM = shapes.Item(name="lamp", qty=2)
TALK = ("dspy", "History", {"messages": [{"q": "who?", "a": "me"}, {"q": "why?", "a": "because"}]})
GALLERY = ("dspy", "Gallery", {"images": [IMAGE, OTHER, IMAGE], "tags": ["x", "y"]})
NEXT_GALLERY = ("dspy", "Gallery", {"images": [OTHER], "tags": []})
GALLERY_FIELDS = [field("g", "Gallery"), out("a", "str")]
NOTES = [
    field("q", "str"),
    out("a", "str"),
    out("note", "str | None", default="nothing"),
    out("tags", "list[str]", default_factory=list),
    out("maybe", "Optional[str]"),
]

FORMATS: dict[str, dict[str, Any]] = {
    "simple": case("q -> a", inputs={"q": "why?"}, instructions="Say it."),
    "demo and typed outputs": case(
        "q -> words: list[str], scores: list[float]",
        inputs={"q": "now"},
        demos=[{"q": "then", "words": ["a", "é"], "scores": [0.5, 1.0]}],
    ),
    "nested models": case(
        [field("order", "Order"), out("items", "list[Item]"), out("best", "Item")],
        inputs={"order": shapes.Order(items=[ITEM], notes={"k": "ü"})},
    ),
    "incomplete demo": case(
        "q, context -> a, sure: float", inputs={"q": "2", "context": "c"}, demos=[{"q": "1", "a": "one"}]
    ),
    "history": case("h: dspy.History, q -> a", inputs={"h": TALK, "q": "when?"}),
    "list in a text field": case("context: str -> a", inputs={"context": ["one", "two\nlines"]}),
    "literal": case("q -> verdict: Literal['sure', 'never']", inputs={"q": "?"}),
    "literal and enum": case("q -> verdict: Literal['a', 2], mood: Mood, level: Level", inputs={"q": "?"}),
    "quotes in literals": case(
        [field("q", "Literal[\"it's\", 'say \"x\"', 'plain']"), out("a", "Literal['both \\' and \"', True, 3]")],
        inputs={"q": "it's"},
    ),
    "media": case(
        "i: dspy.Image, s: dspy.Audio, f: dspy.File -> a",
        inputs={
            "i": IMAGE,
            "s": ("dspy", "Audio", {"data": "AAAA", "audio_format": "wav"}),
            "f": ("dspy", "File", {"file_data": "data:a/b;base64,AA", "filename": "x.txt"}),
        },
    ),
    "image": case("i: dspy.Image -> a", inputs={"i": IMAGE}),
    "image in demos": case(
        "i: dspy.Image -> a", inputs={"i": IMAGE}, demos=[{"i": OTHER, "a": "a dot"}, {"i": IMAGE, "a": "a cat"}]
    ),
    "nested images": case(GALLERY_FIELDS, inputs={"g": GALLERY}),
    "nested images in demos": case(GALLERY_FIELDS, inputs={"g": NEXT_GALLERY}, demos=[{"g": GALLERY, "a": "three"}]),
    "code in": case("c: dspy.Code -> a", inputs={"c": ("dspy", "Code", {"code": "print(1)"})}),
    "described, bool, int and mapping": case(
        [field("q", "str", desc="asked"), out("ok", "bool", desc="or"), out("n", "int"), out("m", "dict[str, int]")],
        inputs={"q": "?"},
    ),
    "everything": case(
        [
            field("h", "dspy.History"), field("i", "dspy.Image", desc="seen"), field("order", "Order"),
            field("q", "str"), out("a", "str", desc="said"), out("items", "list[Item]"), out("mood", "Mood"),
            out("n", "int", ge=0),
        ],
        instructions="  Look.\n    Then say.",
        inputs={"h": ("dspy", "History", {"messages": [{"q": "1", "i": OTHER, "a": "x", "n": 3}]}), "i": IMAGE,
                "order": shapes.Order(items=[]), "q": "last"},
        demos=[
            {"q": "d", "i": OTHER, "order": shapes.Order(items=[ITEM]), "h": ("dspy", "History", {"messages": []}),
             "a": "s", "items": [ITEM], "mood": shapes.Mood.GOOD, "n": 1},
            {"q": "half", "mood": shapes.Mood.BAD},
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("adapter", ["chat", "json"])
@pytest.mark.parametrize("name", FORMATS)
def test_messages_and_formats_are_dspys(oracle: Oracle, name: str, adapter: str) -> None:
    """parity: every message and the response format, in both adapters."""
    native = agreed(oracle, {**FORMATS[name], "adapter": adapter})
    assert native["messages"][0]["role"] == "system" and native["messages"][-1]["role"] == "user"


def test_images_become_blocks_wherever_they_are(oracle: Oracle) -> None:
    """parity: alone, in a model's list, and in demos."""
    block = {"type": "image_url", "image_url": {"url": IMAGE[2]["url"]}}
    alone = agreed(oracle, FORMATS["image"])["messages"][-1]["content"]
    assert [part["type"] for part in alone] == ["text", "image_url", "text"] and alone[1] == block
    shown = agreed(oracle, FORMATS["nested images in demos"])["messages"]
    assert shown[1]["content"].count(block) == 2 and block not in shown[-1]["content"]


def test_past_turns_come_between_demos_and_the_question(oracle: Oracle) -> None:
    """parity: two turns are four messages."""
    messages = agreed(oracle, FORMATS["history"])["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert messages[2]["content"] == "[[ ## a ## ]]\nme\n\n[[ ## completed ## ]]\n"
    assert "[[ ## h ## ]]" not in messages[-1]["content"]


def test_code_outputs_are_described_and_have_no_schema(oracle: Oracle) -> None:
    """parity: the chat adapter, and a model without schemas; the fence is taken off the answer."""
    answer = "[[ ## c ## ]]\n```python\nprint(1)\n```\n\n[[ ## completed ## ]]"
    one = case("q -> c: dspy.Code", inputs={"q": "?"}, answers=[answer], calls=[call(answer, model=UNKNOWN)])
    one["answers"] = [answer]
    native = agreed_without_format(oracle, one)
    assert "must adhere to the JSON schema" not in native["messages"][0]["content"]
    assert values(native["calls"][0]["outcome"])["c"] == [("code", ("str", "'print(1)'"))]


def agreed_without_format(oracle: Oracle, one: dict[str, Any]) -> dict[str, Any]:
    """As `agreed`, for outputs whose schema only workers make."""
    from tests.support.parity.comparison import Report
    from tests.support.parity.native_side import native_results

    native, report = native_results(one), Report()
    report.add(one, native, oracle.ask([one])[0])
    assert not report.differences, report.differences
    assert set(report.routed) == {"the schema of the output '...' (dspy.Code) is made by workers"}
    return native


# --- calls --------------------------------------------------------------------------------------------------------

CHAT, JSON = "[[ ## a ## ]]\nParis\n\n[[ ## completed ## ]]", '{"a": "Paris"}'


@pytest.mark.parametrize(("adapter", "answer"), [("chat", CHAT), ("json", JSON), ("json", "{'a': 'Paris'}")])
@pytest.mark.parametrize("model", [KNOWN, UNKNOWN, CLAUDE])
def test_a_call_gives_the_answer(oracle: Oracle, adapter: str, answer: str, model: str) -> None:
    """parity: one request, whose body is DSPy's."""
    one = case("q -> a", adapter=adapter, inputs={"q": "where?"}, calls=[call(answer, model=model)])
    for made in (agreed(oracle, one)["calls"][0], awaited(oracle, one)[0]):
        assert values(made["outcome"]) == {"a": "'Paris'"} and len(made["bodies"]) == 1


def test_options_pass_through(oracle: Oracle) -> None:
    """parity: temperature, limits, stops and whatever else a provider takes."""
    config = {"temperature": 0.7, "max_tokens": 42, "stop": ["x"], "top_p": 0.5, "logit_bias": {"1": 2}}
    one = case("q -> a", inputs={"q": "?"}, calls=[call(CHAT, config=config), call(CHAT, lm=config)])
    first, second = agreed(oracle, one)["calls"]
    assert b'"temperature":0.7' in first["bodies"][0] and b'"stop":["x"]' in second["bodies"][0]


def test_tool_options_of_the_call_are_dropped_by_chat_and_kept_by_json(oracle: Oracle) -> None:
    """parity: also in the second question that follows an unreadable chat answer."""
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    config = {"tools": [tool], "tool_choice": "auto", "parallel_tool_calls": True}
    for adapter, kept in (("chat", False), ("json", True)):
        one = case("q -> a", adapter=adapter, inputs={"q": "?"}, calls=[call("nonsense", JSON, config=config)])
        for made in (agreed(oracle, one)["calls"][0], awaited(oracle, one)[0]):
            assert all((b'"tools"' in body) is kept for body in made["bodies"]) and made["bodies"]


def test_an_unreadable_chat_answer_is_asked_for_again_in_json(oracle: Oracle) -> None:
    """parity: two requests; the json adapter itself never asks twice."""
    one = case("q -> a", inputs={"q": "?"}, calls=[call("{'a': 'Paris'}"), call("nonsense", JSON), call("nonsense")])
    for *good, bad in (agreed(oracle, one)["calls"], awaited(oracle, one)):
        assert [values(made["outcome"]) for made in good] == [{"a": "'Paris'"}] * 2
        assert [len(made["bodies"]) for made in (*good, bad)] == [2, 2, 2]
        assert bad["outcome"][1] == "AdapterParseError"
    alone = agreed(oracle, {**one, "adapter": "json", "calls": [call("nonsense", JSON)]})["calls"][0]
    assert alone["outcome"][1] == "AdapterParseError" and len(alone["bodies"]) == 1


@pytest.mark.parametrize("adapter", ["chat", "json"])
@pytest.mark.parametrize("empty", [None, ""])
def test_an_empty_answer_is_unreadable(oracle: Oracle, empty: str | None, adapter: str) -> None:
    """parity: an AdapterParseError, never fields of None."""
    one = case("q -> reasoning, a", adapter=adapter, inputs={"q": "?"}, calls=[call(empty)])
    assert agreed(oracle, one)["calls"][0]["outcome"][1] == "AdapterParseError"


@pytest.mark.parametrize(
    ("model", "annotation", "expected"),
    [
        (KNOWN, "int", b'"json_schema"'), (KNOWN, "dict[str, int]", b'{"type":"json_object"}'), (UNKNOWN, "int", None),
        ("openai/gpt-3.5-turbo", "int", b'{"type":"json_object"}'),
    ],
)  # fmt: skip
def test_the_response_format_follows_the_model(
    oracle: Oracle, model: str, annotation: str, expected: bytes | None
) -> None:
    """parity: a strict schema, any object, or nothing at all."""
    one = case(f"q -> x: {annotation}, ok: bool", adapter="json", inputs={"q": "?"})
    one["calls"] = [call('{"x": 1, "ok": true}', model=model)]
    for made in (agreed(oracle, one)["calls"][0], awaited(oracle, one)[0]):
        body = made["bodies"][0]
        assert (expected in body) if expected else (b"response_format" not in body)


@pytest.mark.parametrize(
    ("status", "kind"), [(500, "LMServerError"), (400, "LMInvalidRequestError"), (401, "LMAuthError")]
)
def test_a_failing_schema_request_is_not_repeated_without_the_schema(oracle: Oracle, status: int, kind: str) -> None:
    """parity: the LM's error comes out with the server's words, after one request, called and awaited."""
    one = case("q -> a", adapter="json", inputs={"q": "?"}, calls=[call(JSON)])
    one["calls"][0]["replies"] = [{"status": status, "error": {"message": "Output schema failed"}}, {"text": JSON}]
    for made in (agreed(oracle, one)["calls"][0], awaited(oracle, one)[0]):
        assert made["outcome"][1] == kind and "Output schema failed" in made["outcome"][2]
        assert len(made["bodies"]) == 1 and b"json_schema" in made["bodies"][0]


def test_structured_outputs_leave_the_signature_as_it_is() -> None:
    """parity: making the response format changes nothing."""
    sig = signature("q -> a: list[int], b: bool")
    before = dict(sig.output_fields)
    assert compile_signature(sig, "json").response_format() and dict(sig.output_fields) == before


def test_models_come_back_typed(oracle: Oracle) -> None:
    """parity: from json in both adapters, with numbers that json alone does not have."""
    answer = '{"item": {"name": "desk", "qty": 1_000}, "score": {"x": 7}}'
    one = case([field("q", "str"), out("item", "Item"), out("score", "Point")], adapter="json", inputs={"q": "?"})
    one |= {"answers": [answer], "calls": [call(answer)]}
    for made in (agreed(oracle, one)["calls"][0], awaited(oracle, one)[0]):
        found = values(made["outcome"])
        assert dict(found["item"])["name"] == ("str", "'desk'") and found["score"] == "Point(x=7, y=0.0)"
    chat = case("q -> p: float, n: int", inputs={"q": "?"})
    chat["answers"] = ["[[ ## p ## ]]\n123_456.789\n\n[[ ## n ## ]]\n1_000"]
    assert values(agreed(oracle, chat)["parsed"][0]) == {"p": "123456.789", "n": "1000"}


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_answers_that_lack_or_mistake_a_field_are_unreadable(oracle: Oracle, adapter: str) -> None:
    """parity: another name, a value that does not fit, text without any structure."""
    texts = ["{'b': 'Paris'}", "[[ ## b ## ]]\nParis", "Paris", '{"a": "many"}', "[[ ## a ## ]]\nmany"]
    native = agreed(oracle, case("q -> a: int", adapter=adapter, inputs={"q": "?"}, answers=texts))
    assert all(is_error(parsed) and parsed[1] == "AdapterParseError" for parsed in native["parsed"])


def test_a_parse_error_says_what_was_wanted_and_what_was_there() -> None:
    """parity: adapter, wanted fields, what could be read, and the answer, as attributes; the message is our own."""
    with pytest.raises(AdapterParseError) as caught:
        compile_signature("q -> a", "json").parse("{'b': 'Paris'}")
    error = caught.value
    assert (error.adapter, error.expected, error.parsed) == ("JSONAdapter", ("a",), {})
    assert error.lm_response == "{'b': 'Paris'}" and "Paris" not in str(error)


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_optional_outputs_may_be_left_out(oracle: Oracle, adapter: str) -> None:
    """parity: a default, a factory, None by type; the answer goes over them; what is required stays required."""
    as_chat = {"a": "[[ ## a ## ]]\n42", "all": '[[ ## a ## ]]\n42\n[[ ## note ## ]]\nn\n[[ ## tags ## ]]\n["t"]'}
    as_json = {"a": '{"a": "42"}', "all": '{"a": "42", "note": "n", "tags": ["t"]}'}
    texts = as_chat if adapter == "chat" else as_json
    given = [texts["a"], texts["all"], texts["all"].replace("a ##", "z ##").replace('"a"', '"z"')]
    native = agreed(oracle, case(NOTES, adapter=adapter, inputs={"q": "?"}, answers=given, calls=[call(texts["a"])]))
    assert values(native["parsed"][0]) == {"a": "'42'", "note": "'nothing'", "tags": [], "maybe": "None"}
    assert values(native["parsed"][1])["note"] == "'n'" and is_error(native["parsed"][2])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("q -> cites: dspy.experimental.Citations", "Citations"), ("d: dspy.experimental.Document -> a", "Document"),
        ("q -> thought: dspy.Reasoning, a", "Reasoning"), ("q -> codes: list[dspy.Code]", "Code"),
    ],
)  # fmt: skip
def test_what_a_worker_renders_says_so(text: str, named: str) -> None:
    """unit: citations, documents, reasoning by the model's own feature, and schemas that quote DSPy."""
    reason = compile_signature(text).unsupported
    assert reason is not None and named in reason
