"""Process: types and values of the user's own cross to real workers as what they are; others are refused unpaid."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pydantic
import pytest

import dspex
from dspex.errors import AdapterParseError, EncodeError, InvalidInput, UnknownName, UnsafeInput
from dspex.programs.factories.loading import load
from dspex.programs.saving.optimized import Optimized
from dspex.services.services import services_of
from dspex.testing import FakeLM
from tests.support.parity import shapes
from tests.support.paths import ROOT
from tests.support.programs.saved_documents import saved_part

MARKER = "<<CUSTOM-TYPE-START-IDENTIFIER>>[]<<CUSTOM-TYPE-END-IDENTIFIER>>"
ROUTES = ("native", "python")


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    names = {"env": {"PYTHONPATH": str(ROOT)}}
    with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1, **names)]) as supervisor:  # type: ignore[arg-type]
        yield supervisor


def _chat(**fields: str) -> str:
    return "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in fields.items()) + "\n\n[[ ## completed ## ]]"


def _both(sup: dspex.Supervisor, sig: Any, answers: list[str], inputs: dict[str, Any], **how: Any) -> dict[str, Any]:
    """The outputs, once both routes gave them and sent the same bytes."""
    outputs, bodies = [], []
    for route in ROUTES:
        with FakeLM(list(answers)) as lm:
            program = dspex.predictor("predict", sig, lm=lm, supervisor=sup, implementation=route, **how)  # type: ignore[arg-type]
            outputs.append(program(**inputs).to_dict())
            bodies.append([request.raw for request in lm.requests])
    assert bodies[0] == bodies[1] and len(bodies[0]) == len(answers)
    assert outputs[0] == outputs[1]
    assert {name: type(value) for name, value in outputs[0].items()} == {n: type(v) for n, v in outputs[1].items()}
    return outputs[1]


def _local() -> Any:
    """A model that no worker can import, with a validator, a factory, a factory's default and a hidden member."""

    class Mail(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(populate_by_name=True)
        subject: str = pydantic.Field(alias="Subject")
        size: int
        made: list[str] = pydantic.Field(default_factory=lambda: ["made"])
        hidden: int = pydantic.Field(3, exclude=True)
        _private: int = pydantic.PrivateAttr(7)

        @pydantic.field_validator("size")
        @classmethod
        def _positive(cls, value: int) -> int:
            if value < 0:
                raise ValueError("a size is positive")
            return value * 10

        @pydantic.computed_field  # type: ignore[prop-decorator]
        @property
        def twice(self) -> int:
            return self.size * 2

        @pydantic.field_serializer("subject")
        def _shout(self, value: str) -> str:
            return value.upper()

    return Mail


Mail = _local()


def test_what_a_validator_refuses_is_asked_again_on_both_routes(sup: dspex.Supervisor) -> None:
    """parity: F8: a class that goes by value; its validator runs once, and its value keeps what no schema says."""
    sig = dspex.signature("q: Mail -> mail: Mail", custom_types={"Mail": Mail})
    answers = [_chat(mail='{"Subject": "a", "size": -1}'), json.dumps({"mail": {"Subject": "b", "size": 4}})]
    found = _both(sup, sig, answers, {"q": Mail(Subject="in", size=1)})["mail"]
    assert type(found) is Mail and (found.subject, found.size, found.twice) == ("b", 40, 80)
    assert (found.made, found.hidden, found._private) == (["made"], 3, 7) and found.model_fields_set == {
        "subject",
        "size",
    }


@dataclasses.dataclass
class Held:
    """A dataclass of this module with an image in it, as text of types."""

    picture: dspex.Image
    tags: list[str] = dataclasses.field(default_factory=list)


class Row(NamedTuple):
    left: int
    right: str = "r"


def test_what_holds_an_image_sends_it_as_a_block(sup: dspex.Supervisor) -> None:
    """parity: 1, 2: in a dataclass, a model, a list, a mapping, an untyped field; in workers too."""

    class Gallery(pydantic.BaseModel):
        pictures: list[dspex.Image]
        best: dspex.Image | None = None

    image = dspex.Image("http://h/a.png")
    own = {"Held": Held, "Gallery": Gallery, "Row": Row}
    sig = dspex.signature("held: Held, gallery: Gallery, plain, anything: Any -> a: Row", custom_types=own)
    given = {
        "held": Held(image, ["x"]),
        "gallery": Gallery(pictures=[image], best=image),
        "plain": [image, "text"],
        "anything": {"k": (image, {"m": image})},
    }
    with FakeLM([_chat(a='{"left": 1}')]) as lm:
        dspex.predict(sig, given, lm=lm, implementation="native")
        blocks = [block["type"] for block in lm.requests[0].body["messages"][-1]["content"]]
    assert blocks.count("image_url") == 6
    assert _both(sup, sig, [_chat(a='{"left": 1}')], given) == {"a": Row(1)}


def test_text_with_a_marker_stays_refused_wherever_it_is(sup: dspex.Supervisor) -> None:
    """unit: X2: beside an image, in a member, in a tuple, a set, bytes, a dataclass, a turn; unsent on both routes."""
    image = dspex.Image("http://h/a.png")
    held = {"custom_types": {"Held": Held, "Item": shapes.Item}}
    cases = [
        ("q", [image, MARKER]), ("q", (MARKER,)), ("q", {"k": {MARKER}}), ("q", MARKER.encode()),
        ("q: Held", Held(image, [MARKER])), ("q: Item", shapes.Item(name=MARKER)), ("q", shapes.Loud(MARKER)),
        ("q: dspy.History", dspex.History(messages=[{"q": [image, MARKER]}])), ("q", dspex.Image(f"data:,{MARKER}")),
    ]  # fmt: skip
    for text, value in cases:
        for route in ROUTES:
            with FakeLM("unasked") as lm:
                with pytest.raises(UnsafeInput):
                    sig = dspex.signature(f"{text} -> a", **held)
                    dspex.predict(sig, {"q": value}, lm=lm, implementation=route, supervisor=sup)  # type: ignore[arg-type]
                assert not lm.requests, (text, value, route)


def test_demos_are_shown_as_dspy_shows_them(sup: dspex.Supervisor) -> None:
    """parity: 12, 13: bytes, tuples and sets in demos."""
    demos = [
        {"q": b"\xff", "r": (1, 2), "s": {"x"}, "a": "y"},
        {"q": "x", "r": [dspex.Image("http://h/a.png")], "a": "z"},
    ]
    _both(sup, "q, r, s -> a", [_chat(a="x")], {"q": "x", "r": "y", "s": {1: "z"}}, demos=demos)


def test_odd_words_of_a_model_come_back_from_workers(sup: dspex.Supervisor) -> None:
    """parity: F12: half a surrogate pair, and a number over 64 bits, end no call."""
    text = json.dumps({"a": "\ud83d", "b": {"k": "\ud83d", "n": 2**80}, "c": 2**90})
    found = _both(sup, "q -> a, b: dict, c: int", [text], {"q": "x"}, adapter="json")
    assert found == {"a": "\ud83d", "b": {"k": "\ud83d", "n": 2**80}, "c": 2**90}


def test_a_reasoning_is_text(sup: dspex.Supervisor) -> None:
    """parity: 11: every method of str, `in`, length, addition."""
    with FakeLM([_chat(a=" because it is so ")]) as lm:
        said = dspex.predict("q -> a: dspy.Reasoning", {"q": "x"}, lm=lm, supervisor=sup).a
    assert "cause" in said and said.strip() == "because it is so" and said[:3] == "bec" and len(said) == 16
    assert said + "!" == "because it is so!" and "!" + said == "!because it is so" and said.upper().startswith("BEC")
    assert said == "because it is so" and next(iter(said)) == "b"
    with pytest.raises(AttributeError, match="read as text"):
        _ = said.nothing


def _add(a: int, b: int) -> int:
    return a + b


def test_an_agents_conversation_goes_on(sup: dspex.Supervisor) -> None:
    """parity: 10: the history that react_v2 returns is one, with its calls' ids, and is taken again."""

    def calls(name: str, **args: Any) -> dict[str, Any]:
        return {"next_thought": "t", "tool_calls": {"tool_calls": [{"name": name, "args": args}]}}

    with FakeLM([calls("_add", a=1, b=2), calls("submit", answer="3"), calls("submit", answer="4")]) as lm:
        agent = dspex.predictor("react_v2", "question -> answer", tools=[_add], lm=lm, supervisor=sup, adapter="chat")
        first = agent(question="1+2")
        assert type(first.history) is dspex.History and len(first.history.messages) == 2
        call = first.history.messages[0]["tool_calls"]
        assert call.tool_calls[0].id == call.tool_call_results.tool_call_results[0].call_id == "call_0_0"
        assert agent(question="again", history=first.history).answer == "4"
        shown = [message["content"] for message in lm.requests[-1].body["messages"]]
    assert sum("[[ ## question ## ]]" in text for text in shown) == 3  # in the system's text, and of both turns
    assert any('"value": 3' in text for text in shown)


class _Session:
    """A session of an MCP client's, in the shapes of its SDK."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.calls: list[Any] = []

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> Any:
        assert asyncio.get_running_loop() is self.loop, "a session is bound to its loop"
        self.calls.append((name, arguments))
        text = type("TextContent", (), {"type": "text", "text": str(sum(arguments.values()))})()
        return type("Result", (), {"content": [text], "isError": arguments["a"] < 0})()


def test_tools_of_an_mcp_server_are_called_by_agents(sup: dspex.Supervisor) -> None:
    """collaboration: `Tool.from_mcp_tool`, as DSPy has it, on its session's loop; an error is shown to the model."""
    integer = {"type": "integer"}
    offered = type("T", (), {
        "name": "add", "description": "Add them.",
        "inputSchema": {"properties": {"a": integer, "b": {"$ref": "#/$defs/B"}}, "$defs": {"B": integer}},
    })()  # fmt: skip
    steps = [
        *({"next_thought": "t", "next_tool_name": "add", "next_tool_args": {"a": a, "b": 4}} for a in (3, -1)),
        {"next_thought": "t", "next_tool_name": "finish", "next_tool_args": {}},
        {"reasoning": "r", "answer": "7"},
    ]

    async def asked() -> tuple[Any, list[Any]]:
        session = _Session()
        tool = dspex.Tool.from_mcp_tool(session, offered)
        assert tool.args == {"a": integer, "b": integer} and tool.arg_types == {"a": int, "b": int}
        with FakeLM(steps) as lm:
            agent = dspex.react("question -> answer", [tool], lm=lm, supervisor=sup)
            return await agent.acall(question="3+4"), session.calls

    out, calls = asyncio.run(asked())
    assert out.answer == "7" and calls == [("add", {"a": 3, "b": 4}), ("add", {"a": -1, "b": 4})]
    trajectory = out["trajectory"]
    assert trajectory["observation_0"] == "7" and "Failed to call a MCP tool: 3" in trajectory["observation_1"]
    with pytest.raises(ValueError, match="result mode"):
        dspex.Tool.from_mcp_tool(None, offered, result_mode="other")  # type: ignore[arg-type]


# --- trust --------------------------------------------------------------------------------------------------------


def test_what_a_client_may_not_send_is_refused(sup: dspex.Supervisor) -> None:
    """unit: X1: over the control socket no objects, no code and no module outside the imports, whatever names them."""
    program = dspex.predictor(
        "predict", dspex.signature("q -> mail: Mail", custom_types={"Mail": Mail}), supervisor=sup
    )
    objects = program.sent.carried({"q": (1, 2)})
    plain = {"module": "dspy.Predict", "options": {}, "state": None}

    def asked(**arguments: Any) -> Any:
        pool = sup.pool("dspy")
        with program.registered(services_of(sup)):
            return asyncio.run(_untrusted(pool, {"lm": None, "inputs": {"q": "x"}, **arguments}))

    signature = {"instructions": "", "fields": [], "types": {}}
    with pytest.raises(InvalidInput, match="sends no code"):
        asked(spec=program.to_wire())
    with pytest.raises(InvalidInput, match="never as Python objects"):
        asked(spec={**plain, "signature": {**signature, "instructions": "x"}}, carried=objects)
    with pytest.raises(UnknownName, match="os:PathLike"):
        asked(spec={**plain, "signature": {**signature, "types": {"P": {"import": "os:PathLike"}}}})
    field = {"name": "q", "kind": "input", "annotation": "str", "default": {"code": next(iter(program.sent.codes))}}
    with pytest.raises(InvalidInput, match="sends no code"):
        asked(spec={**plain, "signature": {**signature, "fields": [field]}})


async def _untrusted(pool: Any, arguments: dict[str, Any]) -> Any:
    return (await pool.ainvoke("run", arguments, is_trusted=False)).result()


def test_a_worker_makes_only_what_the_host_knows() -> None:
    """unit: forms of classes that no signature leads to are data; what does not fit its type is refused, not made."""
    from dspex.adapters.validation import typed_outputs

    sig = dspex.signature("q -> mail: Mail", custom_types={"Mail": Mail})
    name = f"{Mail.__module__}:{Mail.__qualname__}"
    members = {"subject": "s", "size": 3, "made": {"data": []}, "hidden": 1}
    made = typed_outputs(sig, {"mail": None}, {"mail": {"model": [name, members, ["size"], None, None]}})["mail"]
    assert made.size == 3 and made.model_fields_set == {"size"}
    unknown = {"model": ["subprocess:Popen", members, [], None, None]}
    assert typed_outputs(sig, {"mail": None}, {"mail": unknown})["mail"].size == 30  # data, which is validated
    for form in (
        {"model": [name, {"subject": "s"}, [], None, None]},
        {"model": [name, {**members, "subject": {"data": [1]}}, [], None, None]},
        {"model": [name, members]},
        {"enum": [name, "x", 1]},
        {"nothing": 1},
        {"scalar": ["eval", "1"]},
    ):
        with pytest.raises(AdapterParseError):
            typed_outputs(sig, {"mail": None}, {"mail": form})


def test_a_class_that_cannot_be_sent_is_refused_before_anything_is_paid(sup: dspex.Supervisor) -> None:
    """unit"""
    import threading

    class Locked(pydantic.BaseModel):
        n: int
        lock: pydantic.SkipValidation[Any] = threading.Lock()

    sig = dspex.signature("q -> a: Locked", custom_types={"Locked": Locked})
    with FakeLM("unasked") as lm:
        with pytest.raises(EncodeError, match="Locked"):
            dspex.predict(sig, {"q": "x"}, lm=lm, implementation="python", supervisor=sup)
        assert not lm.requests


def test_a_program_over_a_local_class_is_saved_and_loaded_with_it(tmp_path: Path) -> None:
    """unit: parity 6: the file says what it needs; a paid result is never lost for a type."""
    evens: Any = list[Annotated[int, pydantic.AfterValidator(lambda number: 2 * number)]]  # no text can say it
    sig = dspex.signature({
        "q": dspex.InputField(),
        "mail": (Mail, dspex.OutputField()),
        "even": (evens, dspex.OutputField()),
    })  # fmt: skip
    program = dspex.predictor("predict", sig)
    fields = [{"prefix": f"{name.title()}:", "description": "${" + name + "}"} for name in sig.fields]
    state = saved_part(signature={"instructions": "Be brief.", "fields": fields})
    Optimized(program.with_state(state), 1.0, 0.0).save(tmp_path / "it.json")
    with pytest.raises(InvalidInput, match=r"Mail.*program="):
        load(tmp_path / "it.json")
    loaded = load(tmp_path / "it.json", program=program)
    assert loaded.program.served.signature.instructions == "Be brief."


# --- a host that has imported DSPy, and one that has not ----------------------------------------------------------


def _run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT, env=_environment()
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'workers'}"}


def test_dspys_own_objects_are_taken_as_they_are() -> None:
    """process: Signature, LM, Example, Tool, Image and History of DSPy's, natively and in a worker."""
    code = """
import dspy, dspex
from dspex.testing import FakeLM

class QA(dspy.Signature):
    '''Answer.'''
    question: str = dspy.InputField(desc="what")
    picture: dspy.Image = dspy.InputField()
    answer: str = dspy.OutputField()

def double(n: int) -> int:
    return 2 * n

row = dspy.Example(question="q", picture=dspy.Image("http://h/a.png"), answer="x").with_inputs("question", "picture")
seen = []
def metric(example, prediction, trace=None):
    seen.append((sorted(example.inputs().toDict()), example.labels().answer))
    return example.answer == prediction.answer

with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as sup:
    with FakeLM("[[ ## answer ## ]]\\nx") as fake:
        lm = dspy.LM(fake.model, api_base=fake.api_base, api_key=fake.api_key, cache=False, temperature=0.5)
        for route in ("native", "python"):
            program = dspex.predictor("predict", QA, lm=lm, supervisor=sup, implementation=route)
            assert program(**row.inputs()).answer == "x"
            assert dspex.evaluate(program, [row], metric).score == 100.0
        bodies = {request.raw for request in fake.requests}
        assert len(bodies) == 1 and fake.requests[0].body["temperature"] == 0.5, fake.requests
        assert fake.requests[0].body["messages"][-1]["content"][1]["type"] == "image_url"
    steps = [{"next_thought": "t", "next_tool_name": "double", "next_tool_args": {"n": 3}},
             {"next_thought": "t", "next_tool_name": "finish", "next_tool_args": {}}, {"reasoning": "r", "answer": "6"}]
    with FakeLM(steps) as fake:
        out = dspex.react("question -> answer", [dspy.Tool(double)], lm=fake, supervisor=sup)(question="q")
        assert out["trajectory"]["observation_0"] == 6
    with FakeLM(lambda m: "[[ ## a ## ]]\\nx") as fake:
        past = dspy.History(messages=[{"q": "before", "a": "then"}])
        chat = dspex.predictor("predict", "q, past: dspy.History -> a", lm=fake, supervisor=sup)
        class Event(dspy.Type):  # of the user's own: rendered by workers, to which it goes by value
            name: str
            def format(self):
                return [{"type": "text", "text": f"EVENT {self.name}"}]
        events = dspex.signature({"e": (Event, dspex.InputField()), "a": dspex.OutputField()})
        dspex.predict(events, {"e": Event(name="n")}, lm=fake, supervisor=sup)
        assert fake.requests.pop().body["messages"][-1]["content"][1]["text"] == "EVENT n"
        for route in ("native", "python"):
            chat.using(implementation=route)(q="now", past=past)
        assert fake.requests[0].raw == fake.requests[1].raw and b"before" in fake.requests[0].raw
assert seen[0] == (["picture", "question"], "x")
print("done")
"""
    assert _run(code) == "done"


def test_a_named_signature_needs_no_dspy_in_the_host() -> None:
    """process: the worker imports the class, and its validators run there; this process imports neither."""
    code = """
import sys, dspex
from dspex.errors import UnknownName
from dspex.testing import FakeLM
name = "tests.support.programs.signatures:Describe"
answers = ['[[ ## mood ## ]]\\ngood\\n\\n[[ ## other ## ]]\\n{"name": "B", "age": -1}',
           '{"mood": "good", "other": {"name": "B", "age": 2}}']
with dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1)]) as sup, FakeLM(answers) as lm:
    program = dspex.predictor("predict", name, lm=lm, supervisor=sup)
    assert "only workers import" in str(program.decision)
    out = program(person={"name": "A", "age": 3}, hints=["h"])
    assert out.other.age == 2 and out.mood.value == "good" and len(lm.requests) == 2
    assert b"Describe them." in lm.requests[0].raw and b'{\\\\"name\\\\": \\\\"A\\\\"' in lm.requests[0].raw
    try:
        dspex.predictor("predict", "tests.support.programs.signatures:Other", supervisor=sup)
    except UnknownName as error:
        assert "Person" in str(error)
    else:
        raise AssertionError("an unknown class was taken")
assert not {"dspy", "tests.support.programs.signatures"} & sys.modules.keys()
print("done")
"""
    assert _run(code) == "done"
