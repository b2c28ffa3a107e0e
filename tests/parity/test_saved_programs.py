"""Parity: programs that DSPy saved are served natively with DSPy's own bytes, or by a worker, or refused."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest

import dspex
from dspex.errors import InvalidInput, SignatureError
from dspex.programs.factories.loading import Optimized, load
from dspex.programs.factories.program_factories import predictor
from dspex.programs.files.program_state import saved_prefix
from dspex.programs.options.routing import Reason
from dspex.signatures.signature import signature
from dspex.testing import FakeLM
from tests.support.parity.cases import Cases
from tests.support.parity.comparison import Report
from tests.support.parity.native_side import Side
from tests.support.parity.one_case import call, case
from tests.support.parity.oracle import Oracle, is_error

pytestmark = pytest.mark.parity

QA = signature("question, context: list[str] -> answer", "Answer at once.")


class Part(pydantic.BaseModel):
    size: int


class Thing(pydantic.BaseModel):
    name: str
    url: pydantic.HttpUrl
    at: datetime.datetime
    parts: list[Part]


def _cases(seed: str, count: int) -> list[dict[str, Any]]:
    supply, made = Cases(seed), []
    for at in range(count):
        case = supply.case()
        demos = case["whole_demos"] + case["demos"]
        made.append({**case, "kind": "saved", "module": ("predict", "chain_of_thought")[at % 2], "demos": demos})
    return made


def test_what_dspy_saved_is_sent_as_dspy_sends_it(oracle: Oracle, tmp_path: Path) -> None:
    """parity: Predict and ChainOfThought, Chat and JSON, with demos of every type, after DSPy's save and load."""
    report, served, adapters = Report(), 0, set()
    cases = _cases("saved", 160)
    for saved, theirs in zip(cases, oracle.ask(cases), strict=True):
        if is_error(theirs):
            continue  # DSPy cannot make the signature, or cannot write the demos (a set, for one)
        path = tmp_path / "program.json"
        path.write_text(theirs["document"], encoding="utf-8")
        sig = Side().make(saved)
        if saved["module"] == "chain_of_thought" and "reasoning" in sig.input_fields:
            with pytest.raises(SignatureError, match="adds the output"):  # DSPy makes an output of the input
                predictor("chain_of_thought", sig)
            continue
        loaded = load(path, program=predictor(saved["module"], sig)).program
        served += 1
        adapters.add((saved["module"], saved["adapter"]))
        ours = [Side().call(sig, saved, each, loaded.served) for each in saved["calls"]]
        parts = {"signature": (), "messages": (), "format": (), "parsed": []}
        report.add({**saved, "answers": []}, {**parts, "calls": ours}, {**parts, "calls": theirs["calls"]})
    assert not report.differences, report.differences[:2]
    assert served > 50 and len(adapters) == 4 and report.comparisons["request bodies"] > 40


def test_an_output_called_reasoning_comes_first_in_a_chain_of_thought(oracle: Oracle, tmp_path: Path) -> None:
    """parity: with its own type and description, where DSPy's would be put in front."""
    answer = '[[ ## reasoning ## ]]\n["x"]\n\n[[ ## a ## ]]\ny\n\n[[ ## b ## ]]\n3\n\n[[ ## completed ## ]]'
    one = case("q -> a, reasoning: list[str], b: int", inputs={"q": "?"}, calls=[call(answer)])
    one |= {"kind": "saved", "module": "chain_of_thought", "demos": [{"q": "1", "a": "x", "reasoning": ["r"], "b": 2}]}
    theirs = oracle.ask([one])[0]
    (tmp_path / "program.json").write_text(theirs["document"], encoding="utf-8")
    sig = Side().make(one)
    served = load(tmp_path / "program.json", program=predictor("chain_of_thought", sig)).program.served
    assert list(served.signature.output_fields) == ["reasoning", "a", "b"]
    assert [Side().call(sig, one, each, served) for each in one["calls"]] == theirs["calls"]


def test_prefixes_of_fields_are_dspys(oracle: Oracle) -> None:
    """parity: camel case, acronyms, digits, underscores: by these a state is known for its signature's."""
    names = ["question", "snakeCase", "HTMLPage", "x1", "isHTTPSecure2go", "a_b", "über", "n", "T45b"]
    case = _cases("names", 1)[0]
    fields = [{"name": name, "kind": "input", "annotation": None, "options": {}} for name in names]
    fields += [{"name": "z", "kind": "output", "annotation": None, "options": {}}]
    case |= {"form": "fields", "fields": fields, "text": None, "instructions": None, "demos": [], "calls": []}
    document = json.loads(oracle.ask([{**case, "module": "predict"}])[0]["document"])
    assert [field["prefix"] for field in document["signature"]["fields"][:-1]] == list(map(saved_prefix, names))


def _state(**changes: Any) -> dict[str, Any]:
    fields = [{"prefix": saved_prefix(name), "description": "${" + name + "}"} for name in QA.fields]
    state = {"traces": [], "train": [], "demos": [], "lm": None}
    return state | {"signature": {"instructions": "Shorter.", "fields": fields}} | changes


def _saved(tmp_path: Path, document: dict[str, Any]) -> Path:
    path = tmp_path / "program.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "other",
    ["question -> answer", "context: list[str], question -> answer", "query, context: list[str] -> answer",
     "question, context: list[str] -> verdict", "question, context: list[str], more -> answer"],
)  # fmt: skip
def test_a_state_of_another_signature_is_refused(tmp_path: Path, other: str) -> None:
    """unit: fewer fields, another order, another name of an input or of the output; DSPy would take each of them."""
    path = _saved(tmp_path, _state())
    assert load(path, program=predictor("predict", QA)).program.served.signature.instructions == "Shorter."
    with pytest.raises(InvalidInput, match="another program"):
        load(path, program=predictor("predict", other))
    with pytest.raises(InvalidInput, match="The state is not of"):
        load(path, program=predictor("chain_of_thought", QA))


def test_a_file_of_ours_is_not_taken_for_another_program(tmp_path: Path) -> None:
    """unit: it says which module and which fields it is of."""
    path = tmp_path / "ours.json"
    Optimized(predictor("predict", QA).with_state(_state()), 1.0, 0.0).save(path)
    assert load(path, program=predictor("predict", QA)).program.state is not None
    for other in (predictor("predict", "question, context: list[str] -> verdict"), predictor("chain_of_thought", QA)):
        with pytest.raises(InvalidInput, match="it is not one of"):
            load(path, program=other)


def test_what_dspy_would_overwrite_is_overwritten(tmp_path: Path) -> None:
    """unit: instructions and descriptions of the file go over the program's, also where they are empty."""
    described = QA.with_updated_fields("question", desc="mine")
    document = _state()
    document["signature"]["fields"][2]["description"] = "of the file"
    loaded = load(_saved(tmp_path, document), program=predictor("predict", described, adapter="json")).program
    shown = {name: field.shown_desc for name, field in loaded.served.signature.fields.items()}
    assert shown == {"question": "", "context": "", "answer": "of the file"} and loaded.adapter == "json"


@pytest.mark.parametrize("member", ["api_base", "base_url", "model_list"])
def test_a_saved_lm_is_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str) -> None:
    """unit: neither its endpoint nor its key (X4); the LM that is given has its key from the environment."""
    with FakeLM("x") as evil, FakeLM({"now": {"answer": "yes"}}) as good:
        elsewhere: Any = evil.api_base
        if member == "model_list":
            elsewhere = [{"model_name": "openai/fake", "litellm_params": {"api_base": evil.api_base}}]
        saved = {"model": "openai/fake", member: elsewhere, "api_key": evil.api_key}
        loaded = load(_saved(tmp_path, _state(lm=saved)), program=predictor("predict", QA))
        assert loaded.program.lm is None and evil.api_base not in repr(loaded.program.served)
        monkeypatch.setenv("OPENAI_API_KEY", str(good.api_key))
        monkeypatch.setenv("OPENAI_BASE_URL", good.api_base)
        own = loaded.program.using(lm=dspex.LM("openai/fake"))
        assert own(question="now", context=["c"]).answer == "yes"
        assert (len(good.requests), len(evil.requests)) == (1, 0)


def test_typed_demos_are_saved_as_plain_data(tmp_path: Path, supervisor: dspex.Supervisor) -> None:
    """process: models, addresses and dates as DSPy's `dump_state` writes them; loaded, they send the same."""
    sig = signature("thing: Thing -> summary", custom_types={"Thing": Thing})
    thing = Thing(name="x", url="https://example.com", at=datetime.datetime(2021, 1, 1, 12), parts=[Part(size=5)])
    with FakeLM(lambda messages: {"summary": "fine"}) as lm:
        made = predictor("predict", sig, demos=[{"thing": thing, "summary": "so"}], lm=lm, supervisor=supervisor)
        Optimized(made, 1.0, 0.0).save(tmp_path / "typed.json")
        (saved,) = json.loads((tmp_path / "typed.json").read_text())["demos"]
        plain = {"name": "x", "url": "https://example.com/", "at": "2021-01-01T12:00:00", "parts": [{"size": 5}]}
        assert saved == {"thing": plain, "summary": "so"}
        again = load(tmp_path / "typed.json", program=predictor("predict", sig), lm=lm, supervisor=supervisor)
        assert again.program.decision.reason is Reason.NATIVE, again.program.decision
        assert made(thing=thing).summary == again(thing=thing).summary == "fine"
        assert lm.requests[0].raw == lm.requests[-1].raw


# --- the prefix hash ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def supervisor() -> Iterator[dspex.Supervisor]:
    with dspex.Supervisor(pools=[dspex.PoolConfig(name="dspy", size=1)]) as running:
        yield running


@pytest.mark.parametrize("kind", ["predict", "chain_of_thought"])
@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_a_verified_program_is_native_and_a_differing_one_is_not(
    supervisor: dspex.Supervisor, tmp_path: Path, kind: str, adapter: str
) -> None:
    """process: a worker renders the prefix, the parent compares; on a difference the worker answers, and it is said."""
    demos = [{"question": "q", "context": ["c"], "reasoning": "r", "answer": "a"}, {"question": "half", "answer": "b"}]
    sig = QA if kind == "predict" else QA.prepend("reasoning", dspex.OutputField())
    fields = [{"prefix": saved_prefix(name), "description": "${" + name + "}"} for name in sig.fields]
    part = _state(demos=demos, signature={"instructions": "Shorter.", "fields": fields})
    path = _saved(tmp_path, part if kind == "predict" else {"predict": part})
    with FakeLM(lambda messages: {"reasoning": "so", "answer": "yes"}) as lm:
        asked = {"lm": lm, "adapter": adapter, "supervisor": supervisor}
        good = load(path, program=predictor(kind, QA), verify=True, **asked)
        assert good.program.prefix_sha256 and good.program.decision.reason is Reason.NATIVE
        Optimized(dataclasses.replace(good.program, prefix_sha256="0" * 64), 1.0, 0.0).save(tmp_path / "changed.json")
        changed = load(tmp_path / "changed.json", **{**asked, "adapter": adapter})
        events: list[dspex.Event] = []
        supervisor.on_event(events.append)
        assert changed.program.decision.reason is Reason.PREFIX and changed.program.decision.pool == "dspy"
        supervisor.flush_events()
        (told,) = [event.facts for event in events if event.name == "dspex.route.changed"]
        assert told == {"module": changed.program.module, "pool": "dspy", "reason": "prefix"}
        answers = [one(question="now", context=["x", "y"]) for one in (good, changed)]
        assert [answer.answer for answer in answers] == ["yes", "yes"]
        assert answers[0].route == "native" and answers[1].route.startswith("python:dspy/")
        bodies = [request.raw for request in lm.requests]
        assert len(bodies) in (1, 2) and len(set(bodies)) == 1  # the same bytes, so the cache may answer the second


@pytest.mark.parametrize(
    ("packages", "said"),
    [
        (None, "cannot be seen"), ({"pydantic": "2.0.1"}, "pydantic is 2.0.1 in the workers"),
        ({"regex": None}, "regex is missing in the workers"), ({}, ""),
    ],
)  # fmt: skip
def test_workers_with_other_packages_take_the_calls(tmp_path: Path, packages: Any, said: str) -> None:
    """unit: prompts quote pydantic's schemas, and answers are repaired by json_repair and regex (I1)."""
    site = tmp_path / "lib" / "python3.12" / "site-packages"
    if packages is not None:
        same = {name: importlib.metadata.version(name) for name in ("dspy", "pydantic", "json_repair", "regex")}
        for name, version in {**same, **packages}.items():
            if version is not None:
                (site / f"{name}-{version}.dist-info").mkdir(parents=True)
    pool = dspex.PoolConfig(name="dspy", python=str(tmp_path / "bin" / "python"), start_method="exec")
    workers = dspex.Supervisor(pools=[pool])
    with FakeLM("x") as lm:
        decision = predictor("predict", QA, lm=lm, supervisor=workers).decision
    assert decision.reason is (Reason.VERSIONS if said else Reason.NATIVE) and said in decision.detail


def test_a_history_is_no_part_of_the_prefix(supervisor: dspex.Supervisor, tmp_path: Path) -> None:
    """process: past turns and tools belong to the call; a program that takes them can be verified too."""
    talk = signature("talk: dspy.History, question -> answer")
    fields = [{"prefix": saved_prefix(name), "description": "${" + name + "}"} for name in talk.fields]
    path = _saved(tmp_path, _state(signature={"instructions": "Go on.", "fields": fields}))
    with FakeLM("x") as lm:
        loaded = load(path, program=predictor("predict", talk), verify=True, lm=lm, supervisor=supervisor)
        assert loaded.program.decision.reason is Reason.NATIVE and not lm.requests
