"""Unit: native predict: the exchange, its fallback, streaming, checked inputs and typed outputs."""

from __future__ import annotations

import asyncio
import datetime
import pickle
import random
import threading
from collections import defaultdict
from typing import Any

import pytest

from dspex.adapters import compile_signature
from dspex.adapters.streaming import ChatFields, JsonFields
from dspex.adapters.validation import checked_inputs, crossed_inputs, typed_outputs
from dspex.errors import (
    AdapterParseError,
    EncodeError,
    InvalidInput,
    LMStreamAssemblyError,
    UnknownName,
    UnsafeInput,
    UsageError,
)
from dspex.lm.record import LM
from dspex.programs.factories.program_factories import predictor
from dspex.services.code import carried
from dspex.signatures.field import InputField, OutputField
from dspex.signatures.signature import signature
from dspex.types.chunk import Chunk
from dspex.types.content import Audio, Code, File, History, Image, Reasoning
from dspex.types.prediction import Prediction
from tests.support.lm import scripted_client
from tests.support.lm.scripted_client import Answer, Client, Model
from tests.support.parity.shapes import NAMES, Color, Item

MARKER = "<<CUSTOM-TYPE-START-IDENTIFIER>>[]<<CUSTOM-TYPE-END-IDENTIFIER>>"
GOOD = "[[ ## answer ## ]]\nParis\n\n[[ ## n ## ]]\n3\n\n[[ ## completed ## ]]"
QN = "question -> answer, n: int"


def _predict(client: Client, sig: Any = QN, inputs: Any = None, **options: Any) -> Prediction:
    lm = options.pop("lm", Model())
    return scripted_client.predict(client, sig, {"question": "Where?"} if inputs is None else inputs, lm=lm, **options)


def test_prediction_holds_typed_outputs_usage_and_route() -> None:
    """unit: one request, one prediction."""
    client = Client(GOOD)
    out = _predict(client)
    assert out.answer == "Paris" and out["n"] == 3 and dict(out.items()) == {"answer": "Paris", "n": 3}
    assert out.usage == {"openai/m": {"prompt_tokens": 3, "completion_tokens": 1}}
    assert out.route == "native" and not out.cached and len(client.asked) == 1
    assert client.asked[0]["response_format"] is None
    assert client.asked[0]["messages"] == compile_signature(QN).messages({"question": "Where?"})


def test_unreadable_chat_answer_is_asked_again_in_json() -> None:
    """unit: DSPy's fallback: a second full call, with the json prompt; both calls count."""
    client = Client("Paris, 3", '{"answer": "Paris", "n": "3"}')
    out = _predict(client)
    assert out.to_dict() == {"answer": "Paris", "n": 3} and out.usage["openai/m"]["prompt_tokens"] == 6
    assert "JSON object" in client.asked[1]["messages"][-1]["content"]


@pytest.mark.parametrize("empty", ["", " \n"])
def test_empty_answer_falls_back_too(empty: str) -> None:
    """unit: also where every output is optional."""
    client = Client(empty, '{"answer": "x"}')
    assert _predict(client, "question -> answer: str | None" if empty == "" else "question -> answer").answer == "x"


def test_json_adapter_never_asks_again() -> None:
    """unit: the error names the fields and holds the answer as an attribute only."""
    client = Client("no object in sight")
    with pytest.raises(AdapterParseError) as caught:
        _predict(client, adapter="json")
    assert len(client.asked) == 1 and caught.value.lm_response == "no object in sight"
    assert caught.value.expected == ("answer", "n") and "sight" not in str(caught.value)


def test_parse_errors_do_not_quote_the_answer() -> None:
    """unit: pydantic's own message would."""
    with pytest.raises(AdapterParseError) as caught:
        compile_signature(QN).parse("[[ ## answer ## ]]\nx\n[[ ## n ## ]]\nsecret words")
    assert "secret" not in str(caught.value) and "'n'" in str(caught.value) and caught.value.parsed == {"answer": "x"}


@pytest.mark.parametrize(
    ("lm", "sig", "expected"),
    [
        (Model(supports_schema=True), "q -> a", "json_schema"),
        (Model(supports_schema=True), "q -> a: dict[str, int]", "json_object"),
        (Model(supports_tools=True), "q -> a", "json_object"),
        (Model(), "q -> a", None),
    ],
)
def test_response_format_follows_what_the_model_can_do(lm: Model, sig: str, expected: str | None) -> None:
    """unit: DSPy's rule; an unknown model gets none."""
    client = Client('{"a": {}}' if "dict" in sig else '{"a": "x"}')
    _predict(client, sig, {"q": "1"}, lm=lm, adapter="json")
    format_ = client.asked[0]["response_format"]
    assert (format_ and format_["type"]) == expected


def test_structured_outputs_make_json_the_default() -> None:
    """unit: and an explicit adapter wins."""
    lm = Model(structured_outputs=True, supports_schema=True)
    client = Client('{"answer": "x", "n": 1}', GOOD)
    _predict(client, lm=lm)
    _predict(client, lm=lm, adapter="chat")
    assert client.asked[0]["response_format"]["json_schema"]["name"] == "DSPyProgramOutputs"
    assert client.asked[1]["response_format"] is None


@pytest.mark.parametrize(("config", "sent"), [({"n": 2}, 0.7), ({"n": 2, "temperature": 0.9}, 0.9), ({}, None)])
def test_several_generations_are_heated(config: dict[str, Any], sent: float | None) -> None:
    """unit: temperature None or at most 0.15 becomes 0.7, as in dspy.Predict."""
    client = Client([GOOD, GOOD.replace("Paris", "Rome")])
    out = _predict(client, config=config, rollout_id=5, deadline=9.0)
    assert client.asked[0]["config"].get("temperature") == sent
    assert [each["answer"] for each in out.completions] == ["Paris", "Rome"] and out.answer == "Paris"
    assert client.asked[0]["rollout_id"] == 5 and client.asked[0]["deadline"] == 9.0


def test_cached_answer_uses_nothing() -> None:
    """unit: `cached` is True and usage is empty."""
    out = _predict(Client(Answer([GOOD], cached=True)))
    assert out.cached and out.usage == {}


def test_await_gives_the_same() -> None:
    """unit: apredict and apredict_stream."""

    async def both() -> tuple[Prediction, list[Any]]:
        client = Client("nothing", '{"answer": "Paris", "n": 3}', GOOD)
        made = await scripted_client.apredict(client, QN, {"question": "?"}, lm=Model())
        stream = scripted_client.apredict_stream(client, QN, {"question": "?"}, lm=Model())
        return made, [item async for item in stream]

    made, items = asyncio.run(both())
    assert made.answer == "Paris" and items[-1] == made
    assert "".join(chunk.text for chunk in items[:-1] if chunk.field == "answer") == "Paris"


# --- streams ---


@pytest.mark.parametrize("adapter", ["chat", "json"])
@pytest.mark.parametrize("piece", [1, 2, 5, 1000])
def test_streamed_pieces_join_to_the_value(adapter: str, piece: int) -> None:
    """unit: whatever the size of the deltas; the Prediction comes last."""
    chat = "Sure.\n\n[[ ## answer ## ]]\n  a [[ b\n\n [x\r\nend  \n\n[[ ## n ## ]]\n42\n\n[[ ## completed ## ]]\n"
    json_ = '```json\n{"answer": "a [[ b \\u00e9\\ud83d\\ude00 \\"q\\"\\n", "x": [1, {"}": 2}], "n": 42}\n```'
    client = Client(chat if adapter == "chat" else json_, piece=piece)
    lm = Model()
    *chunks, last = scripted_client.predict_stream(client, QN, {"question": "?"}, lm=lm, adapter=adapter)
    assert isinstance(last, Prediction) and last.n == 42
    texts = {
        name: "".join(c.text for c in chunks if isinstance(c, Chunk) and c.field == name) for name in ("answer", "n")
    }
    assert texts == {"answer": last.answer, "n": "42"}


def test_random_chat_answers_stream_as_they_parse() -> None:
    """unit: for text fields the joined pieces equal the parsed values, for any cut of any answer."""
    pieces = [
        "[[ ## a ## ]]",
        "[[ ## b ## ]]",
        "[[ ## c ## ]]",
        "\n",
        "\r\n",
        "\r",
        " ",
        "[[ ",
        "x",
        "]]",
        "\u2028",
        "\x0b",
        "## ",
    ]
    source = random.Random(7)
    compiled = compile_signature("q -> a: str | None, b: str | None")
    for _ in range(3000):
        text = "".join(source.choices(pieces, k=source.randint(1, 14)))
        stream, found = ChatFields(("a", "b")), {"a": "", "b": ""}
        at = 0
        while at < len(text):
            size = source.randint(1, 6)
            for name, piece in stream.feed(text[at : at + size]):
                found[name] += piece
            at += size
        for name, piece in stream.finish():
            found[name] += piece
        parsed = compiled.parse(text)
        assert found == {name: parsed[name] or "" for name in found}, repr(text)


def test_json_stream_survives_what_is_not_json() -> None:
    """unit: pieces may be missing, nothing raises and nothing loops."""
    source = random.Random(3)
    for _ in range(2000):
        text = "".join(
            source.choices(['{"', "a", '": "', '"', ",", "}", "\\u12", "\\", "[", "1", ":", " ", "\n"], k=12)
        )
        stream = JsonFields(("a",))
        assert all(name == "a" for mark in text for name, _ in stream.feed(mark))
        assert list(stream.finish()) == []


def test_unreadable_stream_falls_back_only_when_nothing_was_shown() -> None:
    """unit: DSPy's rule."""
    shown = Client("[[ ## answer ## ]]\nx\n[[ ## n ## ]]\nmany", "{}")
    with pytest.raises(AdapterParseError):
        list(scripted_client.predict_stream(shown, QN, {"question": "?"}, lm=Model()))
    hidden = Client("no header", '{"answer": "x", "n": 1}')
    *_, last = scripted_client.predict_stream(hidden, QN, {"question": "?"}, lm=Model())
    assert last == Prediction({"answer": "x", "n": 1}) and len(hidden.asked) == 2


def test_closing_a_stream_closes_the_models() -> None:
    """unit: at once, blocking and awaited."""

    class Watched(Client):
        is_open = True

        def stream(self, *args: Any, **options: Any) -> Any:
            try:
                yield from super().stream(*args, **options)
            finally:
                self.is_open = False

    client = Watched(GOOD, GOOD)
    stream = scripted_client.predict_stream(client, QN, {"question": "?"}, lm=Model())
    next(stream)
    assert client.is_open
    stream.close()
    assert not client.is_open

    async def leave() -> bool:
        client.is_open = True
        items = scripted_client.apredict_stream(client, QN, {"question": "?"}, lm=Model())
        await anext(items)
        await items.aclose()
        return client.is_open

    assert not asyncio.run(leave())


def test_usage_of_both_calls_is_added_with_its_details() -> None:
    """unit: numbers add up at any depth; what only one call knows is kept."""
    one = Answer(["no header"], usage={"prompt_tokens": 3, "details": {"cached": 1, "audio": None}, "other": None})
    two = Answer(['{"answer": "x", "n": 1}'], usage={"prompt_tokens": 4, "details": {"cached": 2}, "other": 5})
    usage = _predict(Client(one, two)).usage["openai/m"]
    assert usage == {"prompt_tokens": 7, "details": {"cached": 3, "audio": None}, "other": 5}


def test_stream_without_its_completion_is_an_error() -> None:
    """unit: and several generations cannot be streamed."""

    class Cut(Client):
        def stream(self, *args: Any, **options: Any) -> Any:
            yield "[[ ## answer"

    with pytest.raises(LMStreamAssemblyError):
        list(scripted_client.predict_stream(Cut(GOOD), QN, {"question": "?"}, lm=Model()))
    with pytest.raises(InvalidInput, match="cannot be streamed"):
        list(scripted_client.predict_stream(Client(GOOD), QN, {"question": "?"}, lm=Model(n=2)))


# --- inputs and outputs ---


def test_missing_and_extra_inputs_are_named() -> None:
    """unit: nothing is sent; DSPy only warns."""
    client = Client(GOOD)
    with pytest.raises(InvalidInput, match="lack 'question'"):
        _predict(client, inputs={})
    with pytest.raises(InvalidInput, match="Did you mean 'question'"):
        _predict(client, inputs={"question": "x", "questions": "y"})
    assert not client.asked


def test_defaults_are_filled_and_optional_inputs_left_out() -> None:
    """unit: in the signature's order."""
    sig = signature(
        {"a": InputField(), "b": (int, InputField(default=3)), "c": (str | None, InputField()), "d": OutputField()}
    )
    assert list(checked_inputs(sig, {"a": "x"}).items()) == [("a", "x"), ("b", 3)]


@pytest.mark.parametrize("value", [MARKER, ["x", MARKER], {MARKER: 1}, {"k": [MARKER]}, {"s": MARKER}.values()])
def test_marker_in_an_input_is_refused(value: Any) -> None:
    """unit: RULES X2, at any depth, on the way to either route."""
    given = list(value) if not isinstance(value, str | list | dict) else value
    with pytest.raises(UnsafeInput) as caught:
        crossed_inputs(signature("q: Any -> a"), {"q": given})
    assert caught.value.field == "q"
    with pytest.raises(UnsafeInput):
        compile_signature("q: Any -> a").messages({"q": given})
    crossed_inputs(signature("q: Any -> a"), {"q": given}, allow_markers=True)


def test_marker_beside_an_image_is_refused_and_the_image_is_not() -> None:
    """unit: an image's own marker is expected; one more is not, nor one inside its URL."""
    compiled = compile_signature("q, img: dspy.Image, more: list[dspy.Image] -> a")
    image = Image("http://h/a.png")
    content = compiled.messages({"q": "x", "img": image, "more": [image, image]})[-1]["content"]
    assert [block["type"] for block in content].count("image_url") == 3
    for inputs in (
        {"q": MARKER, "img": image},
        {"q": "x", "img": image, "more": [image, MARKER]},
        {"q": "x", "img": Image(f"data:,{MARKER}")},
    ):
        with pytest.raises(UnsafeInput):
            compiled.messages(inputs)


def test_marker_in_a_demo_is_an_image_only_where_images_belong() -> None:
    """unit: saved programs hold images as marked text; a text field that holds the marker is refused in demos too."""
    compiled = compile_signature("q, img: dspy.Image -> a")
    image = Image("http://h/a.png")
    saved = {"q": "x", "img": image.serialize_model(), "a": "y"}
    typed = {"q": "x", "img": image, "a": "y"}
    inputs = {"q": "x", "img": image}
    assert compiled.messages(inputs, [saved]) == compiled.messages(inputs, [typed])
    with pytest.raises(UnsafeInput):
        compiled.messages(inputs, [{**typed, "q": MARKER}])


def test_field_header_in_a_value_passes() -> None:
    """unit: as in DSPy; `suspected_fields` says which inputs hold one."""
    from dspex.adapters.injection import suspected_fields

    inputs = {"question": "see [[ ## answer ## ]]"}
    assert suspected_fields(inputs) == ["question"] and suspected_fields({"question": "[[ x"}) == []
    assert _predict(Client(GOOD), inputs=inputs).n == 3


def test_rich_inputs_become_plain_for_the_wire_and_typed_here() -> None:
    """unit: models, enums, tuples and dates; what does not fit its type is InvalidInput."""
    sig = signature("o: Item, c: Color, t: tuple[int, str], d: datetime.date, q -> a", custom_types=NAMES)
    given = {"o": {"name": "x"}, "c": "red", "t": [1, "y"], "d": "2026-01-02", "q": ["free"]}
    typed = checked_inputs(sig, given)
    assert typed["o"] == Item(name="x") and typed["c"] is Color.RED and typed["t"] == (1, "y")
    assert typed["d"] == datetime.date(2026, 1, 2)
    plain = {"o": {"name": "x", "qty": 1, "price": None}, "c": "red", "t": [1, "y"], "d": "2026-01-02", "q": ["free"]}
    crossed = crossed_inputs(sig, given)
    assert crossed.plain == plain and not crossed.carried
    with pytest.raises(InvalidInput) as caught:
        checked_inputs(sig, {**given, "o": {"name": "secret", "qty": "many"}})
    assert "qty" in str(caught.value) and "many" not in str(caught.value)


def test_media_cross_as_data() -> None:
    """unit: their fields, not their prompt text; code and reasoning as text; a list is a history."""
    text = "i: dspy.Image, a: dspy.Audio, f: dspy.File, c: dspy.Code, r: dspy.Reasoning, h: dspy.History -> o"
    given = {
        "i": "http://h/a.png", "a": Audio(b"\0"), "f": File(file_id="f1"), "c": "x = 1", "r": Reasoning(content="so"),
        "h": [{"i": "x", "o": "y"}],
    }  # fmt: skip
    wire = crossed_inputs(signature(text), given).plain
    assert wire["i"] == {"url": "http://h/a.png"} and wire["a"] == {"data": "AA==", "audio_format": "wav"}
    assert wire["f"]["file_id"] == "f1" and wire["c"] == "x = 1" and wire["r"] == "so"
    assert wire["h"] == {"messages": [{"i": "x", "o": "y"}]}
    assert isinstance(checked_inputs(signature(text), given)["h"], History)
    with pytest.raises(InvalidInput):
        checked_inputs(signature("i: dspy.Image -> o"), {"i": "not a url"})


@pytest.mark.parametrize("value", [2**70, (1, "a"), [1, {"k": {2}}], {(1, 2): 3}, defaultdict(list), Item(name="x")])
def test_what_is_more_than_plain_data_crosses_as_what_it_is(value: Any) -> None:
    """unit: DSPy in a worker is to show it as here."""
    crossed = crossed_inputs(signature("q: Any, p -> a"), {"q": value, "p": "plain"})
    assert crossed.carried == {"q": value} and type(crossed.carried["q"]) is type(value)
    assert crossed.plain == {"p": "plain"}


@pytest.mark.parametrize("value", [threading.Lock(), (1, threading.Lock()), LM("openai/m", api_key="secret-key")])
def test_what_cannot_be_pickled_or_holds_a_key_does_not_cross(value: Any) -> None:
    """unit: RULES I2, X3: refused before anything is sent, with the input's name."""
    with pytest.raises(EncodeError) as caught:
        carried({"q": value}, lambda kind: None)
    assert caught.value.path in ("q", "q[1]") and "secret-key" not in str(caught.value)


def test_outputs_of_a_worker_get_their_types() -> None:
    """unit: what the worker added stays as it is."""
    sig = signature("q -> c: Color, o: list[Item], t: tuple[int, ...], s, z: int | None", custom_types=NAMES)
    wire = {"reasoning": "so", "c": "red", "o": [{"name": "x"}], "t": [1, 2], "s": "5", "z": None}
    typed = typed_outputs(sig, wire)
    assert typed == {"c": Color.RED, "o": [Item(name="x")], "t": (1, 2), "s": "5", "z": None, "reasoning": "so"}
    assert list(typed) == list(wire)  # the adapter's order, which is DSPy's
    with pytest.raises(AdapterParseError):
        typed_outputs(sig, {**wire, "c": "green"})


# --- what needs a worker ---


def test_unsupported_signatures_say_why() -> None:
    """unit: the router asks before anything is sent; `messages` would refuse."""
    cited = compile_signature("q -> a: dspy.experimental.Citations")
    assert cited.unsupported is not None and "Citations" in cited.unsupported
    with pytest.raises(UsageError, match="worker"):
        cited.messages({"q": "x"})
    for adapter in ("baml", "two_step"):
        assert "worker" in (compile_signature("q -> a: dspy.Code", adapter).unsupported or "")
    assert "second step" in (compile_signature("q -> text", "two_step").unsupported or "")
    assert "dspy.Image" in str(compile_signature("q -> a: list[dspy.Image]").unsupported)
    with pytest.raises(UnknownName, match="Did you mean 'json'"):
        compile_signature("q -> a", "jsn")


def test_unsupported_depends_on_the_model() -> None:
    """unit: code outputs with a model that takes schemas."""
    code = compile_signature("q -> a: dspy.Code")
    assert code.unsupported_with(Model()) is None and code.unsupported_with(Model(supports_schema=True))
    assert isinstance(code.parse("[[ ## a ## ]]\n```py\nx\n```")["a"], Code)


# --- predictions ---


def test_prediction_is_a_readable_immutable_record() -> None:
    """unit: near names in errors, fields that are called like attributes, a short repr."""
    out = Prediction({"answer": "x" * 5000, "usage": 3}, usage={"m": {"t": 1}}, route="python:dspy/0")
    assert out["usage"] == 3 and out.usage == {"m": {"t": 1}} and len(repr(out)) < 600
    assert "answer" in out and out.get("no", 7) == 7 and len(out) == 2 and list(out) == ["answer", "usage"]
    with pytest.raises(AttributeError, match="Did you mean 'answer'"):
        _ = out.anwser
    with pytest.raises(KeyError, match="answer"):
        _ = out["anwser"]
    with pytest.raises(AttributeError, match="immutable"):
        out.answer = "y"
    assert pickle.loads(pickle.dumps(out)) == out and out != Prediction({"answer": "x"})


def test_output_defaults_fill_what_the_model_left_out() -> None:
    """unit: a default, a factory, or None where the type allows it; else the answer is unreadable."""
    sig = signature({
        "q": InputField(),
        "a": OutputField(),
        "b": (list[int], OutputField(default_factory=list)),
        "c": (int | None, OutputField()),
        "d": OutputField(default="none"),
    })  # fmt: skip
    assert compile_signature(sig).parse("[[ ## a ## ]]\nx") == {"a": "x", "b": [], "c": None, "d": "none"}
    with pytest.raises(AdapterParseError, match="lacks 'a'"):
        compile_signature(sig).parse("[[ ## b ## ]]\n[1]")


def test_route_and_calls_use_one_native_side() -> None:
    """unit: made once for an LM, and again for another; no id for tools that a program has not."""
    program = predictor("predict", QN, lm=LM("openai/m", api_key="k"))
    assert program.is_native and program.tool_set == ""
    made = program._native
    assert program._native is made and made.compiled is made.compiled
    assert program.using(lm=LM("openai/n", api_key="k"))._native.lm.model == "openai/n"
    assert program._native_for(LM("openai/n", api_key="k")) is not made
    assert predictor("react", QN, tools=[_search], lm=program.lm).tool_set != ""


def _search(query: str) -> str:
    """Find it."""
    return query
