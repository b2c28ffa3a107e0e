"""Process: the example of a user's own program: in plain DSPy, with DSPex, on its scripted model and on another."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dspex.testing import FakeLM
from tests.support.hosts.host import Host
from tests.support.paths import EXAMPLES

pytestmark = pytest.mark.timeout(700)

HERE = EXAMPLES / "own_program"
QUESTION = "How old was the designer of the Eiffel Tower when it opened?"
IN_DSPY = f"""
import dspy, os, program
dspy.configure(lm=dspy.LM("openai/fake", api_base=os.environ["OPENAI_BASE_URL"], cache=False))
out = program.Ages()(question={QUESTION!r})
print(out.answer, out.notes)
"""
Ran = tuple[str, list[str]]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The example's own scripted model."""
    monkeypatch.syspath_prepend(str(HERE))
    import scripted

    yield scripted
    sys.modules.pop("scripted", None)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Any]:
    """A maker of running scripts of the example; nothing of them may be left."""
    made: list[Host] = []

    def make(script: str, **env: str) -> Host:
        made.append(Host([sys.executable, str(HERE / script)], tmp_path / f"run{len(made)}", env=env))
        return made[-1]

    yield make
    for host in made:
        host.close()
        assert not host.files()


def test_the_program_knows_only_dspy() -> None:
    """contract: neither the program nor its plain runner imports anything of DSPex; the runner is short."""
    for name in ("program.py", "plain.py"):
        tree = ast.parse((HERE / name).read_text(encoding="utf-8"))
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {each.partition(".")[0] for each in names} <= {"dspy", "program", "sys"}, names
    text = (HERE / "run.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert "python examples/own_program/run.py" in text and "DSPEX_LM" in text


def test_it_does_all_that_a_program_does(run: Any) -> None:
    """process: called, streamed, evaluated, optimized twice, saved, loaded, and read by plain DSPy."""
    host = run("run.py")
    host.finish(within=300.0)
    out = host.log()
    assert re.search(r"^57 years old\. \(python:dspy/\d; 2 notes\)$", out, re.MULTILINE), out
    assert "streamed: 67 years old." in out
    assert "evaluated: 0 %" in out
    assert "MIPROv2: 0 -> 100 %" in out
    assert "GEPA: 0 -> 100 %" in out
    assert re.search(r"^loaded: 57$", out, re.MULTILINE), out
    assert "plain DSPy: Answer with the number alone." in out


def test_it_sends_what_plain_dspy_sends(scripted: ModuleType, tmp_path: Path) -> None:
    """parity: the same answer by the same messages, in the same order."""
    found = [ran(IN_DSPY, scripted, tmp_path), ran(f"import dspex\n{in_dspex()}", scripted, tmp_path)]
    assert found[0] == found[1]
    assert found[0][0].startswith("57 years old. ['Eiffel Tower")
    assert len(found[0][1]) == 6


def in_dspex() -> str:
    """The same in two lines."""
    return f"""
if __name__ == "__main__":
    import os
    lm = dspex.LM("openai/fake", cache=False)
    out = dspex.module("program:Ages", lm=lm)(question={QUESTION!r})
    print(out.answer, out.notes)
"""


def ran(code: str, scripted: ModuleType, folder: Path) -> Ran:
    """What a script prints, and the messages that its model received."""
    (folder / "script.py").write_text(code, encoding="utf-8")
    with FakeLM(scripted.reply) as lm:
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {
            **os.environ,
            "PYTHONPATH": path,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # nothing is fetched from elsewhere
            "OPENAI_BASE_URL": lm.api_base or "",
            "OPENAI_API_KEY": lm.api_key or "",
        }
        done = subprocess.run(
            [sys.executable, str(folder / "script.py")],
            capture_output=True,
            text=True,
            timeout=300,
            env=env,
            cwd=folder,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip(), [str(request.messages) for request in lm.requests]


def test_a_model_that_cannot_be_an_agent_still_gets_an_answer(run: Any) -> None:
    """process: the module's own `except` is reached in a worker, by DSPy's own error."""

    def answer(messages: list[dict[str, Any]]) -> Any:
        if "You are an Agent." in str(messages[0]["content"]):
            return "I do not know."
        fields = {"query": "Eiffel Tower", "answer": "About 50.", "reasoning": "I guess."}
        return fields | {"proposed_instruction": "Guess.", "new_instruction": "Guess."}  # of optimizers

    with FakeLM(answer) as lm:
        env = {"DSPEX_LM": lm.model, "OPENAI_BASE_URL": lm.api_base, "OPENAI_API_KEY": lm.api_key}
        host = run("run.py", **env)
        host.finish(within=300.0)
    assert re.search(r"^About 50\. \(python:dspy/\d; 2 notes\)$", host.log(), re.MULTILINE), host.log()
