"""Parity: DSPy's habits and bugs that the native side copies, shown by DSPy; docs/internals/parity.md lists them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.parity.one_case import CLAUDE, agreed, call, case, field, out, values
from tests.support.parity.oracle import Oracle, is_error

pytestmark = pytest.mark.parity

IMAGE = ("dspy", "Image", {"url": "data:image/png;base64,AAAA"})


def parsed(oracle: Oracle, outputs: str, *texts: str, adapter: str = "chat") -> list[Any]:
    """What both sides read from each text: {name: repr}, or the error's class."""
    native = agreed(oracle, case(f"q -> {outputs}", adapter=adapter, inputs={"q": "?"}, answers=list(texts)))
    return [found[1] if is_error(found) else values(found) for found in native["parsed"]]


def test_an_indented_header_keeps_the_end_of_its_mark(oracle: Oracle) -> None:
    """parity: the header is found in the stripped line and cut off the whole one."""
    assert parsed(oracle, "a", "  [[ ## a ## ]]x") == [{"a": "']]x'"}]


def test_of_two_values_the_first_counts_in_chat_and_the_last_in_json(oracle: Oracle) -> None:
    """parity: and sections or members that nobody asked for are dropped."""
    twice = "[[ ## a ## ]]\none\n[[ ## b ## ]]\nx\n[[ ## a ## ]]\ntwo"
    assert parsed(oracle, "a", twice) == [{"a": "'one'"}]
    assert parsed(oracle, "a", '{"a": "one", "b": 1, "a": "two"}', adapter="json") == [{"a": "'two'"}]


def test_text_outputs_of_json_are_str_of_whatever_came(oracle: Oracle) -> None:
    """parity: null is 'None', an object its repr."""
    assert parsed(oracle, "a", '{"a": null}', '{"a": {"k": true}}', adapter="json") == [
        {"a": "'None'"},
        {"a": "\"{'k': True}\""},
    ]


def test_optional_text_keeps_the_word_none(oracle: Oracle) -> None:
    """parity: `None` in a chat answer for `str | None` is a text of four letters."""
    assert parsed(oracle, "a: str | None", "[[ ## a ## ]]\nNone") == [{"a": "'None'"}]


def test_every_line_break_of_unicode_ends_a_line(oracle: Oracle) -> None:
    """parity: a header may follow a vertical tab, and the breaks inside a value become newlines."""
    assert parsed(oracle, "a, b", "[[ ## a ## ]]\x0bone\u2028two\x85[[ ## b ## ]] x") == [
        {"a": "'one\\ntwo'", "b": "'x'"}
    ]


def test_constraints_are_shown_and_not_enforced(oracle: Oracle) -> None:
    """parity: an answer out of bounds is an answer."""
    one = case([field("q", "str"), out("n", "int", ge=1, le=3)], inputs={"q": "?"}, answers=["[[ ## n ## ]]\n7"])
    assert values(agreed(oracle, one)["parsed"][0]) == {"n": "7"}


def test_numbers_are_read_loosely_and_some_not_at_all(oracle: Oracle) -> None:
    """parity: pydantic's lax mode after a repair of the JSON."""
    texts = [f"[[ ## n ## ]]\n{text}" for text in ("3.0", "True", "1_000", "1,000", "three", "50%")]
    assert parsed(oracle, "n: int", *texts) == [
        {"n": "3"}, {"n": "1"}, {"n": "1000"}, "AdapterParseError", "AdapterParseError", "AdapterParseError",
    ]  # fmt: skip


def test_enums_are_found_by_value_before_name_and_numbers_not_in_text(oracle: Oracle) -> None:
    """parity: the text 2 is no member of an int enum."""
    texts = [f"[[ ## m ## ]]\n{text}" for text in ("two", "TWO", "ONE", "1")]
    assert parsed(oracle, "m: Mixed", *texts) == [
        {"m": "<Mixed.TWO: 'two'>"}, {"m": "<Mixed.two: 'TWO'>"}, {"m": "<Mixed.ONE: 1>"}, "AdapterParseError",
    ]  # fmt: skip
    assert parsed(oracle, "l: Level", "[[ ## l ## ]]\n2") == ["AdapterParseError"]


def test_a_list_for_an_enum_is_an_accident_of_dspys(oracle: Oracle) -> None:
    """parity: DSPy lets out Python's TypeError; here it is an answer that cannot be read, at the same point."""
    assert parsed(oracle, "m: Mood", '{"m": ["GOOD"]}', adapter="json") == ["AdapterParseError"]


def test_an_answer_that_json_repair_fails_over_is_unreadable(oracle: Oracle) -> None:
    """parity: DSPy lets out the library's AssertionError; here the answer cannot be read, at the same point."""
    assert parsed(oracle, "a: int", '{\n  "```json\n[1]\n```a": []\n}', adapter="json") == ["AdapterParseError"]


def test_literals_are_unwrapped(oracle: Oracle) -> None:
    """parity: quotes and `Literal[...]` around the value."""
    texts = [f"[[ ## x ## ]]\n{text}" for text in ("Literal['a']", '"a"', "str[a]", "an a")]
    assert parsed(oracle, "x: Literal['a', 'b']", *texts) == [{"x": "'a'"}] * 3 + ["AdapterParseError"]


def test_an_empty_answer_is_none_at_all(oracle: Oracle) -> None:
    """parity: an error, also where every output may be left out."""
    one = case("q -> a: str | None", adapter="json", inputs={"q": "?"}, calls=[call("")])
    assert agreed(oracle, one)["calls"][0]["outcome"][1] == "AdapterParseError"


def test_lists_in_text_fields_are_numbered(oracle: Oracle) -> None:
    """parity: one item without its number, none as N/A, several lines in brackets of their own."""
    for value, shown in ((["x"], "«x»"), ([], "N/A"), (["x", "y\nz"], "[1] «x»\n[2] «««\n    y\n    z\n»»»")):
        native = agreed(oracle, case("q -> a", inputs={"q": value}))
        assert native["messages"][-1]["content"].startswith(f"[[ ## q ## ]]\n{shown}\n")


def test_incomplete_demos_come_first_and_a_none_is_incomplete(oracle: Oracle) -> None:
    """parity: and a demo without any output, or any input, is left out."""
    demos = [{"q": "whole", "a": "1"}, {"q": "half", "a": None}, {"q": "only"}, {"a": "only"}]
    native = agreed(oracle, case("q -> a", inputs={"q": "?"}, demos=demos))
    assert [m["content"].split("\n")[-1] for m in native["messages"][1::2]][:2] == ["half", "whole"]
    assert len(native["messages"]) == 6


def test_what_has_no_json_form_is_shown_by_str(oracle: Oracle) -> None:
    """parity: a lone surrogate in a key makes the whole value a Python repr, images included."""
    native = agreed(oracle, case([field("d", "dict[str, dspy.Image]"), out("a")], inputs={"d": {"\ud83d": IMAGE}}))
    assert "Image(url=data:image/png;base64,<IMAGE_BASE_64_ENCODED(4)>)" in native["messages"][-1]["content"]


def test_a_marker_in_a_text_becomes_a_block(oracle: Oracle) -> None:
    """parity: with `allow_markers`, without which such text is refused (`UnsafeInput`)."""
    text = '<<CUSTOM-TYPE-START-IDENTIFIER>>[{"type": "text", "text": "x"}]<<CUSTOM-TYPE-END-IDENTIFIER>>'
    native = agreed(oracle, case("q -> a", inputs={"q": text}))
    assert {"type": "text", "text": "x"} in native["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("lm", "config", "sent"),
    [
        ({}, {"n": 2}, [b'"temperature":0.7'] * 2),
        ({"temperature": 0.1, "n": 2}, {}, [b'"temperature":0.7'] * 2),
        ({"temperature": 1.0, "n": 2}, {"temperature": 0.0}, [b'"temperature":0.0'] * 2),  # 0.0 or 1.0 is 1.0
        ({"n": 2}, {"n": None}, [b'"temperature":0.7']),  # one request, and yet heated
    ],
)  # fmt: skip
def test_several_answers_are_heated_by_dspys_logic(oracle: Oracle, lm: Any, config: Any, sent: list[bytes]) -> None:
    """parity: n requests one after the other, at 0.7 unless a temperature above 0.15 was found first."""
    answer = "[[ ## a ## ]]\nx"
    bodies = agreed(oracle, case("q -> a", inputs={"q": "?"}, calls=[call(answer, lm=lm, config=config)]))["calls"][0][
        "bodies"
    ]
    assert len(bodies) == len(sent) and all(part in body for part, body in zip(sent, bodies, strict=True))


def test_a_reasoning_models_limit_goes_by_its_own_name(oracle: Oracle) -> None:
    """parity: so a call's `max_tokens` disagrees with it, and is refused."""
    limits = {"lm": {"max_tokens": 20_000}, "model": "openai/o3-mini"}
    one = case(
        "q -> a", inputs={"q": "?"}, calls=[call("x", config=config, **limits) for config in ({}, {"max_tokens": 5})]
    )
    alone, both = agreed(oracle, one)["calls"]
    assert b'"max_completion_tokens":20000' in alone["bodies"][0]
    assert both["outcome"][1] == "LMUnsupportedFeatureError" and not both["bodies"]


def test_sound_for_anthropic_is_refused(oracle: Oracle) -> None:
    """parity: DSPy's client makes an empty text of it, which the endpoint then refuses; here nothing is sent."""
    sound = ("dspy", "Audio", {"data": "AAAA", "audio_format": "wav"})
    one = case("s: dspy.Audio -> a", inputs={"s": sound}, calls=[call("[[ ## a ## ]]\nx", model=CLAUDE)])
    both = agreed(oracle, one)["calls"][0]
    assert both["outcome"][1] == "LMUnsupportedFeatureError" and not both["bodies"]
