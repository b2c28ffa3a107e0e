"""Parity: the cases of DSPy's tests/predict/test_predict.py on format, parse and call.

docs/internals/upstream-cases.md lists them.
"""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import pytest

import dspex
from dspex.adapters import compile_signature
from dspex.errors import InvalidInput, NotConfigured, SettingsError
from dspex.programs.factories.program_factories import predictor
from dspex.testing import FakeLM, FakeReply
from tests.support.parity import shapes
from tests.support.parity.one_case import CLAUDE, KNOWN, agreed, awaited, call, case, field, out, values
from tests.support.parity.oracle import Oracle

pytestmark = pytest.mark.parity

IMAGE = ("dspy", "Image", {"url": "https://pictures.example/cat.png"})
WHEN = datetime.datetime(2026, 2, 3, 4, 5, 6)


def chat(**parts: Any) -> str:
    """A well-formed chat answer."""
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in parts.items()) + "\n\n[[ ## completed ## ]]"


def test_a_predictor_is_made_of_a_string_and_called_with_its_inputs() -> None:
    """unit: the answer as an attribute."""
    with FakeLM(lambda messages: {"answer": "yes"}) as lm:
        made = predictor("predict", "question -> answer", lm=lm)
        assert made.inputs == ("question",) and made(question="?").answer == "yes"
        assert made.served.signature.instructions == "Given the fields `question`, produce the fields `answer`."


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_several_answers_are_several_requests(oracle: Oracle, names: tuple[str, ...]) -> None:
    """parity: n=2, for one output and for two."""
    texts = [chat(**{name: f"{name}{at}" for name in names}) for at in range(2)]
    one = case(
        f"q -> {', '.join(names)}", inputs={"q": "?"}, calls=[call(*texts, config={"n": 2}), call(*texts, lm={"n": 2})]
    )
    for made in agreed(oracle, one)["calls"]:
        assert [values([found]) for found in made["outcome"]] == [{n: f"'{n}{at}'" for n in names} for at in range(2)]
        assert len(made["bodies"]) == 2


@pytest.mark.parametrize(
    ("annotation", "value", "answer", "expected"),
    [
        ("datetime.datetime", WHEN, "2027-01-02T03:04:05", "datetime.datetime(2027, 1, 2, 3, 4, 5)"),
        ("list[Order]", [shapes.Order(items=[], when=WHEN)], "[]", []),
        ("Mood", shapes.Mood.GOOD, "BAD", "<Mood.BAD: 'BAD'>"),
        ("Mixed", shapes.Mixed.TWO, "two", "<Mixed.TWO: 'two'>"),  # by value, though a member has that name too
        ("Mixed", shapes.Mixed.ONE, "HALF", "<Mixed.HALF: 0.5>"),  # by name
        ("Tone", shapes.Tone.SOFT, "soft", "<Tone.SOFT: 'soft'>"),  # made by auto()
        ("Level", shapes.Level.LOW, "HIGH", "<Level.HIGH: 2>"),  # of numbers, by name
        ("int", 3, "4", "4"),
        ("dict[str, list[int]]", {"k": [1]}, '{"k": [2]}', None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("model", [KNOWN, CLAUDE])
def test_typed_values_go_in_and_come_out(
    oracle: Oracle, annotation: str, value: Any, answer: str, expected: Any, model: str
) -> None:
    """parity: datetimes, models, enums by value and by name, plain types."""
    one = case(
        [field("x", annotation), out("y", annotation)], inputs={"x": value}, calls=[call(chat(y=answer), model=model)]
    )
    found = values(agreed(oracle, one)["calls"][0]["outcome"])["y"]
    assert expected is None or found == expected


def test_outputs_need_no_inputs(oracle: Oracle) -> None:
    """parity: a signature with outputs only."""
    one = case("-> said", calls=[call(chat(said="x"))])
    assert values(agreed(oracle, one)["calls"][0]["outcome"]) == {"said": "'x'"}


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_a_conversation_is_sent_turn_by_turn(oracle: Oracle, adapter: str) -> None:
    """parity: in both adapters, the fallback included."""
    talk = ("dspy", "History", {"messages": [{"q": "1?", "a": "one"}, {"q": "2?", "a": "two"}]})
    one = case("q, talk: dspy.History -> a", adapter=adapter, inputs={"q": "3?", "talk": talk})
    one["calls"] = [call(chat(a="three"), '{"a": "three"}'), call('{"a": "three"}')]
    for made in agreed(oracle, one)["calls"]:
        assert all(b"one" in body and b"two" in body for body in made["bodies"])


def test_usage_is_counted_for_each_call() -> None:
    """unit: of blocking, mapped and gathered calls at once: each knows its own, as the server counted it."""
    reply = FakeReply("[[ ## answer ## ]]\nParis", usage={"total_tokens": 10}, latency=0.05)
    with FakeLM(lambda messages: reply) as lm:
        made = predictor("predict", "question -> answer", lm=lm.replace(cache=False))

        async def gathered() -> list[Any]:
            return await asyncio.gather(*(made.acall(question="the same") for _ in range(4)))

        rows = list(dspex.map(made, [{"question": "the same"}] * 4))
        for one in (made(question="a"), *(row.value for row in rows), *asyncio.run(gathered())):
            assert (one.answer, one.route) == ("Paris", "native")
            assert one.usage[lm.model]["total_tokens"] == 10


def test_an_awaited_predictor_gives_the_answer(oracle: Oracle) -> None:
    """parity: on an event loop, natively."""
    one = case("question -> answer", inputs={"question": "where?"}, calls=[call(chat(answer="Paris"))])
    assert values(awaited(oracle, one)[0]["outcome"]) == {"answer": "'Paris'"}


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_an_image_field_takes_images_and_refuses_texts(oracle: Oracle, adapter: str) -> None:
    """parity: an image is a block; a text, of which DSPy only warns, is refused before anything is sent."""
    answer = chat(a="ok") if adapter == "chat" else '{"a": "ok"}'
    shown = case("x: dspy.Image -> a", adapter=adapter, inputs={"x": IMAGE}, calls=[call(answer)])
    assert b'"image_url"' in agreed(oracle, shown)["calls"][0]["bodies"][0]
    text = case("x: dspy.Image -> a", adapter=adapter, inputs={"x": "dog_image"}, calls=[call(answer)])
    made = agreed(oracle, text)["calls"][0]
    assert made["outcome"][1] == "InvalidInput" and not made["bodies"]


def test_inputs_are_named() -> None:
    """unit: DSPy raises ValueError for positional inputs; here they are no Python call of a program."""
    with pytest.raises(TypeError):
        predictor("predict", "question -> answer")("what?")


def test_a_missing_or_wrong_lm_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: before anything is sent."""
    for wrong, kind in ((3, "int"), (_nothing, "function")):
        with pytest.raises(SettingsError, match=f"not {kind}"):
            predictor("predict", "question -> answer", lm=wrong)
    monkeypatch.delenv("DSPEX_LM", raising=False)
    monkeypatch.setattr(dspex.defaults, "configured_lm", _nothing)
    with pytest.raises(NotConfigured):
        predictor("predict", "question -> answer")(question="?")


def _nothing(supervisor: Any = None) -> Any:
    raise NotConfigured("no LM")


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_constraints_are_shown(oracle: Oracle, adapter: str) -> None:
    """parity: in the system message of both adapters."""
    fields = [
        field("q", "str", min_length=5),
        out("a", "str", max_length=9),
        out("n", "float", gt=0, lt=1),
        out("m", "int", multiple_of=2),
    ]
    system = agreed(oracle, case(fields, adapter=adapter, inputs={"q": "x"}))["messages"][0]["content"]
    for words in ("minimum length: 5", "maximum length: 9", "greater than: 0, less than: 1", "a multiple of the given"):
        assert words in system


def test_a_predicted_output_travels_with_the_options(oracle: Oracle) -> None:
    """parity: `prediction` among the options; an input of that name is an input."""
    guess = {"type": "content", "content": "a guess"}
    one = case("q -> a", inputs={"q": "?"}, calls=[call(chat(a="x"), config={"prediction": guess})])
    assert b'"prediction":{"type":"content"' in agreed(oracle, one)["calls"][0]["bodies"][0]
    named = case("q, prediction -> a", inputs={"q": "?", "prediction": "mine"}, calls=[call(chat(a="x"))])
    assert b'"prediction":{' not in agreed(oracle, named)["calls"][0]["bodies"][0]


def test_defaults_fill_missing_inputs(oracle: Oracle) -> None:
    """parity: of a class signature."""
    one = case(
        [field("q", "str"), field("lang", "str", default="Latin"), out("a")],
        inputs={"q": "?"},
        calls=[call(chat(a="x"))],
    )
    assert b"Latin" in agreed(oracle, one)["calls"][0]["bodies"][0]


def test_optional_inputs_may_be_left_out(oracle: Oracle) -> None:
    """parity: without a word in the prompt."""
    one = case("q, hint: str | None -> a", inputs={"q": "?"}, calls=[call(chat(a="x"))])
    assert "[[ ## hint ## ]]" not in agreed(oracle, one)["messages"][-1]["content"]


@pytest.mark.parametrize("inputs", [{}, {"q": "?", "more": 1}])
def test_inputs_that_are_missing_or_too_many_are_refused(inputs: dict[str, Any]) -> None:
    """unit: DSPy warns and goes on; here it is an error, on both routes."""
    with FakeLM("x") as lm:
        with pytest.raises(InvalidInput):
            predictor("predict", "q -> a", lm=lm)(**inputs)
        assert not lm.requests


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("int", "not an int"), ("str", 7), ("str", ["one", "two"]), ("list[str]", "text"), ("list[int]", ["x"]),
        ("Literal['a', 'b']", "c"), ("Union[Literal['a'], int]", "z"), ("list[list[int]]", [["x"]]),
        ("dict[str, int]", {"k": "v"}), ("dict[str, dict[str, int]]", {"k": 1}), ("int | str", 1.5), ("bool", "yes"),
        (None, 123), ("int", 42), ("str", "text"), ("list[str]", ["a", "b"]), ("list[int]", []), (None, "abc"),
        ("list[str]", [1, 2, None]), ("Literal['a', 'b']", "b"), ("Literal[1, 2, 3]", 5), ("dict[str, int]", {"k": 1}),
        ("dict[str, int]", {1: 1}), ("Literal['a', 'b'] | None", None), ("Literal['a', 'b'] | None", "c"),
        ("tuple[str, int, bool]", ("x", 42, True)), ("tuple[int, ...]", (1, 2, 3)),
    ],
)  # fmt: skip
def test_values_of_other_plain_types_are_sent_as_dspy_sends_them(oracle: Oracle, annotation: Any, value: Any) -> None:
    """parity: DSPy only warns of them; the prompt is the same."""
    one = case([field("x", annotation), out("a")], inputs={"x": value}, calls=[call(chat(a="ok"))])
    assert values(agreed(oracle, one)["calls"][0]["outcome"]) == {"a": "'ok'"}


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("Item", "no such thing"), ("tuple[int, str]", "no such thing"), ("Mood", "no such thing"),
        ("tuple[str, int, bool]", ("x", 42)), ("tuple[str, int, bool]", ({}, 42, True)), ("tuple[int, ...]", ("a",)),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_a_rich_type_are_refused(oracle: Oracle, annotation: str, value: Any) -> None:
    """parity with this project's rule: models, enums and tuples are validated before any route is taken."""
    one = case([field("x", annotation), out("a")], inputs={"x": value}, calls=[call(chat(a="ok"))])
    made = agreed(oracle, one)["calls"][0]
    assert made["outcome"][1] == "InvalidInput" and not made["bodies"]


def test_typed_dicts_work_where_dspys_own_check_of_inputs_raises(oracle: Oracle) -> None:
    """parity: DSPy's check, which only warns otherwise, raises TypeError for a TypedDict; workers have it off."""
    one = case([field("x", "Row"), out("a")], inputs={"x": {"key": "k", "value": 1}}, calls=[call(chat(a="ok"))])
    assert values(agreed(oracle, one)["calls"][0]["outcome"]) == {"a": "'ok'"}


def test_classes_inside_classes_are_named_by_custom_types() -> None:
    """unit: DSPy finds them by walking the callers' frames."""
    sig = dspex.signature("x: Shop.Item -> a", custom_types={"Shop.Item": shapes.Item})
    assert "`x` (Item)" in compile_signature(sig).prefix()[0]["content"]
    with FakeLM({"lamp": {"a": "bright"}}) as lm:
        assert predictor("predict", sig, lm=lm)(x=shapes.Item(name="lamp")).a == "bright"
