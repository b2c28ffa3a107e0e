"""A file that is loaded holds a program, and never how, where or with whom it is called."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest

import dspex
from dspex import defaults, events
from dspex.errors import InvalidInput, SettingsError, UnknownName, UnsafeProgram
from dspex.inprocess.signatures import signature
from dspex.programs import files
from dspex.programs.saved import Optimized, load
from dspex.programs.states import saved_prefix
from dspex.testing import FakeLM

HERE = Path(__file__).parent
QA = signature("question -> answer")
EVIL = "http://127.0.0.1:9/evil"
VERSIONS = {"python": "3.11.4", "dspy": "3.4.1", "cloudpickle": "3.1.2", "pydantic": "2.12.0", "optuna": None}


def _part(**changes: Any) -> dict[str, Any]:
    fields = [{"prefix": saved_prefix(name), "description": "${" + name + "}"} for name in QA.fields]
    demos = [{"augmented": True, "question": "1+1", "answer": "2"}]
    part = {"traces": [], "train": [], "demos": demos, "lm": None}
    return part | {"signature": {"instructions": "Be brief.", "fields": fields}} | changes


def _document(**own: Any) -> dict[str, Any]:
    described = {"format": 1, "module": "dspy.Predict", "signature": QA.to_wire(), "options": {}} | own
    return {**_part(), "metadata": {"dependency_versions": {}, "dspex": described}}


def _written(tmp_path: Path, document: Any) -> Path:
    path = tmp_path / "program.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def _at(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The document with a value at a path of keys."""
    changed = copy.deepcopy(document)
    inner, (*way, last) = changed, path.split("/")
    for key in way:
        inner = inner[int(key)] if isinstance(inner, list) else inner.setdefault(key, {})
    inner[last] = value
    return changed


CALL_OPTIONS = {
    "lm": {"model": "openai/gpt", "api_base": EVIL},
    "api_base": EVIL,
    "api_key": "sk-stolen",
    "base_url": EVIL,
    "headers": {"x-tenant": "bob"},
    "engine": "mine:Engine",
    "model": "openai/other",
    "adapter": "mine:Adapter",
    "config": {"api_base": EVIL},
    "implementation": "python",
    "timeout": 1e9,
    "supervisor": {"path": "/tmp/evil.sock"},
    "demos": [{"question": "q"}],
    "rollout_id": 7,
    "idempotent": True,
    "use_native_function_calling": True,
    "allow_markers": True,
    "tools": [{"name": "t"}],
    "cache": False,
    "extra_body": {"model": "other"},
}
PLACES = ["metadata/dspex/options", "metadata/dspex", "metadata", ""]
OF_A_PREDICTOR = ("lm", "demos")  # a predictor's own state has them: see the tests below


@pytest.mark.parametrize(
    ("place", "name"),
    [(place, name) for place in PLACES for name in CALL_OPTIONS if place or name not in OF_A_PREDICTOR],
)
def test_call_options_of_a_file_are_refused_by_name(tmp_path: Path, place: str, name: str) -> None:
    """unit: among the options, the metadata and the state, with the program at hand and without; no value is told."""
    if place == "metadata/dspex" and name in ("adapter", "use_native_function_calling"):
        value: Any = "mine:Adapter" if name == "adapter" else "yes"  # of a program's own, but not like this
    else:
        value = CALL_OPTIONS[name]
    where = "/".join(filter(None, (place, name)))
    path = _written(tmp_path, _at(_document(), where, value))
    for program in (None, dspex.predictor("predict", QA)):
        with pytest.raises(InvalidInput) as refused:
            load(path, program=program)
        told = str(refused.value)
        assert where.replace("/", ".") in told and str(path) in told
        assert "evil" not in told and "stolen" not in told
        if isinstance(refused.value, UnsafeProgram):
            assert refused.value.keys == (where.replace("/", "."),) and refused.value.file == str(path)
            assert "dspex.load(path, lm=...)" in told


@pytest.mark.parametrize(
    "path",
    [
        "answering/config", "answering/forward", "answering/signature/api_base", "answering/stage", "forward",
        "answering/extended_signature", "fetch/url", "fetch/deep/er/x-api-key", "fetch/where", "headers",
        "metadata/dspex/options/endpoint", "metadata/dspex/options/retriever", "metadata/dspex/options/deep/baseUrl",
        "metadata/dspex/options/index",
    ],
)  # fmt: skip
def test_nested_keys_of_a_users_module_are_refused_by_path(tmp_path: Path, path: str) -> None:
    """unit: in a predictor's state, in other parts, and in options; a text that is a URL under any name."""
    document = _document(module="mine:Module")
    document = {"answering": _part(), "fetch": {"k": 3}, "metadata": document["metadata"]}
    load(_written(tmp_path, document))
    value = {"retriever": {"url": EVIL}, "where": EVIL, "index": f" {EVIL}", "headers": {"a": "b"}}
    name = path.rpartition("/")[2]
    with pytest.raises(UnsafeProgram) as refused:
        load(_written(tmp_path, _at(document, path, value.get(name, "x"))))
    (key,), dotted = refused.value.keys, path.replace("/", ".")
    assert key == dotted or dotted.startswith(f"{key}.")  # an option is named as a whole


@pytest.mark.parametrize(
    "module",
    ["dspex.RAG", "rag", "dspy.BestOfN", "best_of_n", "dspex.Assertions", "dspy.majority", "dspy.ProgramOfThought",
     "os", "dspy.load", ""],
)  # fmt: skip
def test_a_file_cannot_name_what_no_file_holds(tmp_path: Path, module: str) -> None:
    """unit: strategies, whose options are a retriever's address or a reward's path, and names of no module."""
    options = {"retriever": "dspy.ColBERTv2", "url": EVIL} if "rag" in module.lower() else {}
    with pytest.raises(InvalidInput, match=r"is damaged|holds"):
        load(_written(tmp_path, _document(module=module, options=options)))


def test_a_module_outside_the_pools_imports_is_refused(tmp_path: Path) -> None:
    """collaboration: as soon as there is a pool to ask; nothing is imported here."""
    document = {"answering": _part(), "metadata": _document(module="subprocess:Popen")["metadata"]}
    path = _written(tmp_path, document)
    sup = dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=1, imports=["effects"])])
    with pytest.raises(UnknownName, match="imports"):
        load(path, supervisor=sup)


@pytest.mark.parametrize("is_ours", [True, False])
@pytest.mark.parametrize(
    "saved", [{"model": "openai/gpt-4o", "cache": True}, {"model": "x", "api_base": EVIL, "api_key": "sk-stolen"}]
)
def test_an_lm_that_dspy_saved_is_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_ours: bool, saved: dict[str, Any]
) -> None:
    """unit: files of DSPy's and ours load, nothing of the LM is used, and an event names its keys, not their values."""
    told: list[events.Event] = []
    client = defaults.client()
    monkeypatch.setattr(client, "emit", lambda name, **facts: told.append(events.Event(name, facts)))
    document = _document() | {"lm": saved, "traces": [["t"]], "train": [{"a": 1}]}
    if not is_ours:
        del document["metadata"]["dspex"]
    loaded = load(_written(tmp_path, document), program=None if is_ours else dspex.predictor("predict", QA))
    assert loaded.program.lm is None and dict(loaded.program.state or {}) == _part()
    (event,) = told
    assert event.name == "dspex.program.stripped" and event.facts["keys"] == f"lm ({', '.join(saved)})"
    assert "stolen" not in repr(event) and "evil" not in repr(event)


def test_fields_and_demos_may_be_called_like_call_options(tmp_path: Path) -> None:
    """unit: a program about URLs and headers is a program"""
    sig = signature("url, headers: dict[str, str], model -> config, api_key")
    program = dspex.predictor("predict", sig, temperature=0.3)
    fields = [{"prefix": saved_prefix(name), "description": "${" + name + "}"} for name in sig.fields]
    demo = {"url": EVIL, "headers": {"x": EVIL}, "model": "m", "config": "c", "api_key": "k"}
    state = _part(demos=[demo], signature={"instructions": "See https://example.org.", "fields": fields})
    Optimized(program.with_state(state), 1.0, 0.0).save(tmp_path / "it.json")
    loaded = load(tmp_path / "it.json").program
    assert loaded.state == state and loaded.options == {"temperature": 0.3}


# --- forms and bounds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"metadata": ' + "[" * 150 + "]" * 150 + "}",
        '{"a": ' + "9" * 5000 + "}",
        "\x80",
    ],
)
def test_deep_and_odd_documents_are_refused(tmp_path: Path, text: str) -> None:
    """unit: InvalidInput instead of RecursionError"""
    path = tmp_path / "deep.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidInput):
        load(path, program=dspex.predictor("predict", QA))


def test_what_is_too_large_or_no_file_is_refused(tmp_path: Path) -> None:
    """unit: a pipe would block, a device never end"""
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(files.FILE_LIMIT + 1)
    with pytest.raises(InvalidInput, match="larger than the limit"):
        load(large)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(InvalidInput, match="cannot be read"):
            load(path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("demos", [3]), ("demos", {}), ("signature", {"instructions": 3, "fields": []}),
        ("signature/fields", [{"prefix": "Question:"}, {}]), ("signature/fields", 3), ("signature", []),
        ("metadata/dspex/options", []), ("metadata/dspex/score", "high"), ("metadata/dspex/trials", {}),
        ("metadata/dspex/signature", {"instructions": "", "fields": [3], "types": {}}),
        ("metadata/dspex/signature/types", {"M": {"model": {"$ref": "#/$defs/M"}}}),
        ("metadata/dspex/signature/types", {"M": {"model": {"properties": {"a": {"pattern": "("}}}}}),
        ("metadata/dspex/signature/types", {"M": {"import": "os:system"}}),
        ("metadata/dspex/signature/fields/0/annotation", "list[" * 5000 + "str" + "]" * 5000),
        ("metadata/dspex/use_native_function_calling", "yes"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(tmp_path: Path, path: str, value: Any) -> None:
    """unit: InvalidInput, whatever has another form"""
    document = _document()
    if path == "signature/fields" and value == 3:
        document["metadata"].pop("dspex")
    with pytest.raises(InvalidInput):
        load(
            _written(tmp_path, _at(document, path, value)),
            program=dspex.predictor("predict", QA) if value == 3 else None,
        )


# --- there and back ---------------------------------------------------------------------------------------------------


def test_save_and_load_and_save_give_the_same_file(tmp_path: Path) -> None:
    """unit: byte for byte"""
    program = dspex.predictor("chain_of_thought", QA, temperature=0.5, lm="openai/none", adapter="json")
    sig = program.answered
    fields = [{"prefix": saved_prefix(name), "description": "${" + name + "}"} for name in sig.fields]
    state = {"predict": _part(signature={"instructions": "Be brief.", "fields": fields})}
    trials = [{"trial": 1, "kind": "full", "score": 50.0, "examples": 4}]
    Optimized(program.with_state(state), 75.0, 50.0, trials, "copro", VERSIONS).save(tmp_path / "1.json")
    load(tmp_path / "1.json").save(tmp_path / "2.json")
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    loaded = load(tmp_path / "2.json", lm="openai/other")
    assert (loaded.score, loaded.baseline_score, loaded.trials, loaded.optimizer) == (75.0, 50.0, trials, "copro")
    assert loaded.versions["pydantic"] == "2.12.0" and "optuna" not in loaded.versions
    assert loaded.program.options == {"temperature": 0.5} and loaded.program.lm.model == "openai/other"
    assert "openai/none" not in (tmp_path / "1.json").read_text()


def test_an_option_that_no_file_may_hold_is_withheld_and_asked_for(tmp_path: Path) -> None:
    """unit: a paid result is saved all the same, and is loaded with the program it belongs to"""
    program = dspex.predictor("mine:Module", QA, server=EVIL, depth=2)
    path = tmp_path / "it.json"
    Optimized(program.with_state({"answering": _part()}), 1.0, 0.0).save(path)
    assert "evil" not in path.read_text()
    with pytest.raises(InvalidInput, match=r"without its option server.*program="):
        load(path)
    loaded = load(path, program=program)
    assert loaded.program.options == {"server": EVIL, "depth": 2} and loaded.program.state == {"answering": _part()}
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


class Person(pydantic.BaseModel):
    """Its alias is in no schema that could stand for it."""

    name: str = pydantic.Field(alias="called")


def test_a_program_over_a_type_that_only_an_import_describes_is_loaded_with_it(tmp_path: Path) -> None:
    """unit: the file names the class, and nothing is imported for it."""
    sig = signature("question -> answer: Person", custom_types={"Person": Person})
    program = dspex.predictor("predict", sig).with_state(_part())
    Optimized(program, 1.0, 0.0).save(tmp_path / "it.json")
    with pytest.raises(InvalidInput, match=r"Person.*program="):
        load(tmp_path / "it.json")
    assert load(tmp_path / "it.json", program=program).program.served.signature.instructions == "Be brief."


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    names = {"imports": ["effects"], "env": {"PYTHONPATH": str(HERE)}}
    pools = [dspex.PoolConfig("dspy", size=1, **names), dspex.PoolConfig("mipro", size=1, **names)]
    with dspex.Supervisor(pools=pools) as supervisor:
        yield supervisor


def _in_plain_dspy(path: Path, module: str) -> dict[str, Any]:
    """What DSPy makes of a file: the state that it then has, and what it logged."""
    code = (
        "import json, logging, sys, io, dspy\n"
        "log = io.StringIO(); logging.getLogger('dspy').addHandler(logging.StreamHandler(log))\n"
        "sys.path.insert(0, sys.argv[3])\n"
        "import effects\n"
        "program = eval(sys.argv[2])('path -> answer')\n"
        "program.load(sys.argv[1])\n"
        "print(json.dumps({'state': program.dump_state(), 'log': log.getvalue()}))\n"
    )
    command = [sys.executable, "-c", code, str(path), module, str(HERE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("kind", "module"),
    [("predict", "dspy.Predict"), ("chain_of_thought", "dspy.ChainOfThought"), ("effects:Mailing", "effects.Mailing")],
)
def test_what_optimize_saved_loads_in_plain_dspy(sup: dspex.Supervisor, tmp_path: Path, kind: str, module: str) -> None:
    """parity: without a warning about versions, and with the same state; and in dspex without the program."""
    sent = tmp_path / "sent"
    sent.write_text("mail sent\n")  # so that Mailing lets its worker live
    rows = [{"path": str(sent), "answer": "a"}, {"path": str(sent), "answer": "b"}]
    with FakeLM(lambda messages: {"reasoning": "r", "answer": "a"}) as lm:
        program = dspex.predictor(kind, "path -> answer", lm=lm, supervisor=sup)
        best = dspex.optimize(program, rows, optimizer="labeled", metric="exact_match", k=1)
        best.save(tmp_path / "best.json")
        loaded = dspex.load(tmp_path / "best.json", lm=lm, supervisor=sup)
        assert loaded.program.state == best.program.state and loaded(path=str(sent)).answer == "a"
    theirs = _in_plain_dspy(tmp_path / "best.json", module)
    assert theirs["state"] == best.program.state and not theirs["log"]
    versions = json.loads((tmp_path / "best.json").read_text())["metadata"]["dependency_versions"]
    assert versions.keys() == {"python", "dspy", "cloudpickle"}
    assert versions["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_what_dspy_saved_with_an_lm_of_its_own_loads(tmp_path: Path) -> None:
    """parity: a file that DSPy's `save` wrote after `set_lm`, with an endpoint and headers, gives the program alone."""
    path = tmp_path / "theirs.json"
    code = (
        "import sys, dspy\n"
        "program = dspy.ChainOfThought('question -> answer')\n"
        "program.set_lm(dspy.LM('openai/m', api_base=sys.argv[2], api_key='sk-1', extra_headers={'a': 'b'}))\n"
        "program.predictors()[0].demos = [dspy.Example(question='q', reasoning='r', answer='a', augmented=True)]\n"
        "program.save(sys.argv[1])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path), EVIL], check=True, capture_output=True, timeout=120)
    assert EVIL in path.read_text()
    loaded = load(path, program=dspex.chain_of_thought(QA))
    assert loaded.program.lm is None and "evil" not in repr(loaded.program.state)
    assert loaded.program.served.demos == ({"question": "q", "reasoning": "r", "answer": "a", "augmented": True},)
    loaded.save(tmp_path / "ours.json")
    assert EVIL not in (tmp_path / "ours.json").read_text()
    assert load(tmp_path / "ours.json").program.state == loaded.program.state


def test_the_endpoint_of_a_file_gets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """collaboration: the environment's key stays here, and the LM that is asked is the caller's."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    with FakeLM(lambda messages: {"answer": "stolen"}) as evil, FakeLM(lambda messages: {"answer": "mine"}) as mine:
        document = _document() | {"lm": {"model": "openai/gpt-4o", "api_base": evil.api_base}}
        assert load(_written(tmp_path, document), lm=mine)(question="q").answer == "mine"
        attacked = _document(options={"lm": {"model": "openai/gpt-4o", "api_base": evil.api_base}})
        with pytest.raises(UnsafeProgram):
            load(_written(tmp_path, attacked))
        assert not evil.requests and len(mine.requests) == 1


def test_a_state_with_more_than_a_program_is_refused_over_the_workers_command(
    sup: dspex.Supervisor,
) -> None:
    """collaboration: whoever sends a spec by himself, as a client of the control socket may."""
    from dspex.services import services_of

    with FakeLM(lambda messages: {"answer": "a"}) as lm:
        record = services_of(sup).lm_record(lm)
        spec = {"module": "dspy.Predict", "signature": QA.to_wire(), "options": {}}
        for more in (
            {"state": _part(config={"api_base": EVIL})},
            {"options": {"model": "openai/other"}, "state": None},
        ):
            with pytest.raises(InvalidInput):
                sup.call("dspy", "run", {"spec": spec | more, "inputs": {"question": "q"}, "lm": record})
        assert not lm.requests


def test_strategies_are_still_not_saved(tmp_path: Path) -> None:
    """unit"""
    with pytest.raises(SettingsError):
        Optimized(dspex.rag("dspy.ColBERTv2", QA, url=EVIL), 1.0, 0.0).save(tmp_path / "rag.json")
