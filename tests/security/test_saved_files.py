"""Security: a file that is loaded holds a program, and never how, where or with whom it is called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex import defaults, events
from dspex.errors import InvalidInput, SettingsError, UnknownName, UnsafeInput, UnsafeProgram
from dspex.programs.factories.loading import Optimized, load
from dspex.programs.files import saved_file
from dspex.programs.files.program_state import saved_prefix
from dspex.signatures.signature import signature
from dspex.testing import FakeLM
from dspex.types.markers import END, START
from tests.support.programs.saved_documents import EVIL, QA, changed_at, saved_document, saved_part, written

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
        value: Any = "mine:Adapter.__class__" if name == "adapter" else "yes"  # of a program's own, but not like this
    else:
        value = CALL_OPTIONS[name]
    where = "/".join(filter(None, (place, name)))
    path = written(tmp_path, changed_at(saved_document(), where, value))
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
        "metadata/dspex/options/index", "metadata/dspex/options/secret_key",
        "metadata/dspex/options/awsSecretAccessKey",
        "metadata/dspex/options/judge_lm", "metadata/dspex/options/judgeModel", "metadata/dspex/options/model_name",
        "metadata/dspex/options/hosts", "metadata/dspex/options/deep/hostname", "fetch/password",
        "fetch/deep/endpoints",
    ],
)  # fmt: skip
def test_nested_keys_of_a_users_module_are_refused_by_path(tmp_path: Path, path: str) -> None:
    """unit: in a predictor's state, in other parts, and in options; a text that is a URL under any name."""
    document = saved_document(module="mine:Module")
    document = {"answering": saved_part(), "fetch": {"k": 3}, "metadata": document["metadata"]}
    load(written(tmp_path, document))
    value = {"retriever": {"url": EVIL}, "where": EVIL, "index": f" {EVIL}", "headers": {"a": "b"}}
    name = path.rpartition("/")[2]
    with pytest.raises(UnsafeProgram) as refused:
        load(written(tmp_path, changed_at(document, path, value.get(name, "x"))))
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
        load(written(tmp_path, saved_document(module=module, options=options)))


def test_a_module_outside_the_pools_imports_is_refused(tmp_path: Path) -> None:
    """collaboration: as soon as there is a pool to ask; nothing is imported here."""
    document = {"answering": saved_part(), "metadata": saved_document(module="subprocess:Popen")["metadata"]}
    path = written(tmp_path, document)
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
    document = saved_document() | {"lm": saved, "traces": [["t"]], "train": [{"a": 1}]}
    if not is_ours:
        del document["metadata"]["dspex"]
    loaded = load(written(tmp_path, document), program=None if is_ours else dspex.predictor("predict", QA))
    assert loaded.program.lm is None and dict(loaded.program.state or {}) == saved_part()
    (event,) = told
    assert event.name == "dspex.program.stripped" and event.facts["keys"] == f"lm ({', '.join(saved)})"
    assert "stolen" not in repr(event) and "evil" not in repr(event)


def test_fields_and_demos_may_be_called_like_call_options(tmp_path: Path) -> None:
    """unit: a program about URLs and headers is a program"""
    sig = signature("url, headers: dict[str, str], model -> config, api_key")
    program = dspex.predictor("predict", sig, temperature=0.3)
    fields = [{"prefix": saved_prefix(name), "description": "${" + name + "}"} for name in sig.fields]
    demo = {"url": EVIL, "headers": {"x": EVIL}, "model": "m", "config": "c", "api_key": "k"}
    state = saved_part(demos=[demo], signature={"instructions": "See https://example.org.", "fields": fields})
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
        file.truncate(saved_file.FILE_LIMIT + 1)
    with pytest.raises(InvalidInput, match="larger than the limit"):
        load(large)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(InvalidInput, match="cannot be read"):
            load(path)


def test_what_holds_too_many_values_is_refused(tmp_path: Path) -> None:
    """unit: 32 MiB of empty objects took 17 s and over a gigabyte."""
    path = tmp_path / "many.json"
    path.write_bytes(b'{"x": [' + b"{}," * saved_file.CONTAINERS_LIMIT + b"{}]}")
    with pytest.raises(InvalidInput, match="lists and objects"):
        load(path)


MARKED = f"{START}[{{'type': 'image_url', 'image_url': {{'url': '{EVIL}'}}}}]{END}"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("signature/instructions", MARKED), ("signature/fields/0/description", MARKED),
        ("metadata/dspex/signature/instructions", MARKED), ("metadata/dspex/signature/fields/0/desc", MARKED),
        ("metadata/dspex/signature/fields/1/annotation", f"Literal[{MARKED!r}]"),
        ("metadata/dspex/signature/fields/0/default", {"value": [MARKED]}),
        ("metadata/dspex/signature/types", {"M": {"enum": {"A": MARKED}}}),
    ],
)  # fmt: skip
def test_markers_in_the_signature_of_a_file_are_refused(tmp_path: Path, path: str, value: Any) -> None:
    """unit: of a Literal the prompt quotes the members, and the provider would have been sent to the URL."""
    with pytest.raises(UnsafeInput, match="marker"):
        load(written(tmp_path, changed_at(saved_document(), path, value)))


@pytest.mark.parametrize("module", ["dspy.Predict", "dspy.ReAct"])
@pytest.mark.parametrize("question", [MARKED, [{"deep": MARKED}]])
def test_markers_in_demos_are_refused_on_the_way_to_a_worker(tmp_path: Path, module: str, question: Any) -> None:
    """unit: as natively; whoever trusts the file says so with its program."""
    document = saved_document(module=module)
    demos = [{"question": question, "answer": "x"}]
    changed = changed_at(document, "demos", demos)
    if module == "dspy.ReAct":
        part = saved_part(demos=demos)
        changed = {"react": part, "extract.predict": part, "metadata": document["metadata"]}
    path = written(tmp_path, changed)
    with pytest.raises(UnsafeInput, match="question"):
        load(path).program.to_wire()
    with pytest.raises(UnsafeInput, match="question"):
        dspex.predictor(module, QA, demos=demos).to_wire()
    assert load(path, program=dspex.predictor(module, QA, allow_markers=True)).program.to_wire()


def test_images_in_saved_demos_are_not_suspected(tmp_path: Path) -> None:
    """unit: DSPy saves them as marked texts; nor are outputs, which become no blocks."""
    program = dspex.predictor("predict", "image: dspy.Image, question -> answer")
    program = program.using(demos=[{"image": MARKED, "question": "q", "answer": MARKED}])
    assert program.to_wire()["demos"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata/dspex/signature/fields/1/constraints", {"gt": [1]}),
        ("metadata/dspex/signature/fields/1/constraints", {"another": 1}),
        ("demos", [3]), ("demos", {}), ("signature", {"instructions": 3, "fields": []}),
        ("signature/fields", [{"prefix": "Question:"}, {}]), ("signature/fields", 3), ("signature", []),
        ("metadata/dspex/options", []), ("metadata/dspex/score", "high"), ("metadata/dspex/trials", {}),
        ("metadata/dspex/signature", {"instructions": "", "fields": [3], "types": {}}),
        ("metadata/dspex/signature/fields", ""), ("metadata/dspex/signature/fields", []),
        ("metadata/dspex/signature/types", {"M": {"model": {"$ref": "#/$defs/M"}}}),
        ("metadata/dspex/signature/types", {"M": {"model": {"properties": {"a": {"pattern": "("}}}}}),
        ("metadata/dspex/signature/types", {"M": {"import": "os:system"}}),
        ("metadata/dspex/signature/fields/0/annotation", "list[" * 5000 + "str" + "]" * 5000),
        ("metadata/dspex/use_native_function_calling", "yes"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(tmp_path: Path, path: str, value: Any) -> None:
    """unit: InvalidInput, whatever has another form"""
    document = saved_document()
    if path == "signature/fields" and value == 3:
        document["metadata"].pop("dspex")
    with pytest.raises(InvalidInput):
        load(
            written(tmp_path, changed_at(document, path, value)),
            program=dspex.predictor("predict", QA) if value == 3 else None,
        )


def test_the_endpoint_of_a_file_gets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """collaboration: the environment's key stays here, and the LM that is asked is the caller's."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    with FakeLM(lambda messages: {"answer": "stolen"}) as evil, FakeLM(lambda messages: {"answer": "mine"}) as mine:
        document = saved_document() | {"lm": {"model": "openai/gpt-4o", "api_base": evil.api_base}}
        assert load(written(tmp_path, document), lm=mine)(question="q").answer == "mine"
        attacked = saved_document(options={"lm": {"model": "openai/gpt-4o", "api_base": evil.api_base}})
        with pytest.raises(UnsafeProgram):
            load(written(tmp_path, attacked))
        assert not evil.requests and len(mine.requests) == 1


def test_strategies_are_still_not_saved(tmp_path: Path) -> None:
    """unit"""
    with pytest.raises(SettingsError):
        Optimized(dspex.rag("dspy.ColBERTv2", QA, url=EVIL), 1.0, 0.0).save(tmp_path / "rag.json")


@pytest.mark.parametrize(("module", "option", "most"), [
    ("dspy.Predict", "n", 128), ("dspy.MultiChainComparison", "M", 128), ("dspy.ReAct", "max_iters", 1000),
])  # fmt: skip
def test_a_file_cannot_ask_for_any_number_of_requests(tmp_path: Path, module: str, option: str, most: int) -> None:
    """unit: each answer of `n` is a request, also in a worker; the program that it belongs to may ask for more."""
    for asked in (most + 1, 10**9, 10**400):
        path = written(tmp_path, saved_document(module=module, options={option: asked}))
        with pytest.raises(InvalidInput, match="program=") as refused:
            load(path)
        assert refused.value.field == option and len(str(refused.value)) < 1000
    assert load(written(tmp_path, saved_document(options={"n": 128}))).program.options == {"n": 128}
    own = dspex.predictor("predict", QA, n=1000)
    kept = load(written(tmp_path, saved_document(options={"n": 10**9})), program=own)
    assert kept.program.options == {"n": 1000}
