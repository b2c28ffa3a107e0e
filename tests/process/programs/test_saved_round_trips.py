"""Process and parity: programs saved and loaded again: by DSPex, by plain DSPy, and from one to the other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest

import dspex
from dspex.errors import InvalidInput
from dspex.programs.factories.loading import Optimized, load
from dspex.programs.files.program_state import saved_prefix
from dspex.signatures.signature import signature
from dspex.signatures.wire_form import signature_to_wire
from dspex.testing import FakeLM
from tests.support.paths import ROOT
from tests.support.programs.saved_documents import EVIL, QA, saved_part

EFFECTS = "tests.support.programs.effects"
VERSIONS = {"python": "3.11.4", "dspy": "3.4.1", "cloudpickle": "3.1.2", "pydantic": "2.12.0", "optuna": None}


def test_save_and_load_and_save_give_the_same_file(tmp_path: Path) -> None:
    """unit: byte for byte"""
    program = dspex.predictor("chain_of_thought", QA, temperature=0.5, lm="openai/none", adapter="json")
    sig = program.answered
    fields = [{"prefix": saved_prefix(name), "description": "${" + name + "}"} for name in sig.fields]
    state = {"predict": saved_part(signature={"instructions": "Be brief.", "fields": fields})}
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
    Optimized(program.with_state({"answering": saved_part()}), 1.0, 0.0).save(path)
    assert "evil" not in path.read_text()
    with pytest.raises(InvalidInput, match=r"without its option server.*program="):
        load(path)
    loaded = load(path, program=program)
    assert loaded.program.options == {"server": EVIL, "depth": 2} and loaded.program.state == {
        "answering": saved_part()
    }
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


class Person(pydantic.BaseModel):
    """Its alias is in no schema that could stand for it."""

    name: str = pydantic.Field(alias="called")


def test_a_program_over_a_type_that_only_an_import_describes_is_loaded_with_it(tmp_path: Path) -> None:
    """unit: the file names the class, and nothing is imported for it."""
    sig = signature("question -> answer: Person", custom_types={"Person": Person})
    program = dspex.predictor("predict", sig).with_state(saved_part())
    Optimized(program, 1.0, 0.0).save(tmp_path / "it.json")
    with pytest.raises(InvalidInput, match=r"Person.*program="):
        load(tmp_path / "it.json")
    assert load(tmp_path / "it.json", program=program).program.served.signature.instructions == "Be brief."


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    names = {"imports": [EFFECTS], "env": {"PYTHONPATH": str(ROOT)}}
    pools = [dspex.PoolConfig("dspy", size=1, **names), dspex.PoolConfig("mipro", size=1, **names)]
    with dspex.Supervisor(pools=pools) as supervisor:
        yield supervisor


def _in_plain_dspy(path: Path, module: str) -> dict[str, Any]:
    """What DSPy makes of a file: the state that it then has, and what it logged."""
    code = (
        "import json, logging, sys, io, dspy\n"
        "log = io.StringIO(); logging.getLogger('dspy').addHandler(logging.StreamHandler(log))\n"
        "sys.path.insert(0, sys.argv[3])\n"
        "from tests.support.programs import effects\n"
        "program = eval(sys.argv[2])('path -> answer')\n"
        "program.load(sys.argv[1])\n"
        "print(json.dumps({'state': program.dump_state(), 'log': log.getvalue()}))\n"
    )
    command = [sys.executable, "-c", code, str(path), module, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("kind", "module"),
    [
        ("predict", "dspy.Predict"),
        ("chain_of_thought", "dspy.ChainOfThought"),
        (f"{EFFECTS}:Mailing", "effects.Mailing"),
    ],
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


def test_a_state_with_more_than_a_program_is_refused_over_the_workers_command(
    sup: dspex.Supervisor,
) -> None:
    """collaboration: whoever sends a spec by himself, as a client of the control socket may."""
    from dspex.services.services import services_of

    with FakeLM(lambda messages: {"answer": "a"}) as lm:
        record = services_of(sup).lm_record(lm)
        spec = {"module": "dspy.Predict", "signature": signature_to_wire(QA), "options": {}}
        for more in (
            {"state": saved_part(config={"api_base": EVIL})},
            {"options": {"model": "openai/other"}, "state": None},
        ):
            with pytest.raises(InvalidInput):
                sup.call("dspy", "run", {"spec": spec | more, "inputs": {"question": "q"}, "lm": record})
        assert not lm.requests
