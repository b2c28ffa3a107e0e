"""Process: a notebook's kernel whose user writes the program into a cell, edits the cell, and runs it again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dspex.testing import FakeLM
from tests.support.hosts.kernel import Kernel, kernel

pytest.importorskip("jupyter_client", reason="a kernel needs ipykernel: pip install ipykernel")
pytest.importorskip("ipykernel", reason="a kernel needs ipykernel: pip install ipykernel")

QA = """
import dspy

SUFFIX = "!"

def dressed(text):
    return text + SUFFIX

class QA(dspy.Module):
    def __init__(self, version=1):
        super().__init__()
        self.version = version
        self.draft = dspy.Predict("question -> draft")
        self.check = dspy.ChainOfThought("question, draft -> answer")

    def forward(self, question):
        draft = self.draft(question=question).draft
        answer = self.check(question=question, draft=draft).answer
        return dspy.Prediction(answer=dressed(answer), cell="first", version=self.version)
"""


def answer(messages: list[dict[str, Any]]) -> dict[str, str]:
    return {"draft": "perhaps", "answer": "yes"}


@pytest.fixture
def leaves_nothing() -> None:
    """No check of this process: the kernel's client keeps threads and sockets; what the kernel leaves is looked for."""


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Kernel]:
    with FakeLM(answer) as lm:
        env = {"DSPEX_LM": lm.model, "OPENAI_BASE_URL": lm.api_base, "OPENAI_API_KEY": lm.api_key}
        with kernel(tmp_path, env) as running:
            running.run("import dspex")
            yield running


def test_a_class_in_a_cell_runs_in_a_worker_and_an_edited_cell_is_the_new_version(notebook: Kernel) -> None:
    """process: by value, with what the cell's functions and names say then."""
    notebook.run(QA)
    notebook.run("qa = dspex.module(QA, version=7)")
    assert notebook.run("out = qa(question='?'); print(out.answer, out.cell, out.version, out.route)").startswith(
        "yes! first 7 python:dspy/"
    )
    notebook.run(QA.replace('cell="first"', 'cell="second"').replace('SUFFIX = "!"', 'SUFFIX = "?"'))
    assert notebook.run("qa(question='?').cell") == "'first'", "a handle keeps what it was made of"
    assert notebook.run("out = dspex.module(QA)(question='?'); print(out.answer, out.cell)") == "yes? second"


def test_a_live_module_and_a_function_of_a_cell(notebook: Kernel) -> None:
    """process: an object with its demonstrations, and any function that uses DSPy."""
    notebook.run(QA)
    notebook.run("live = QA(); live.draft.demos = [dspy.Example(question='a', draft='b')]")
    assert notebook.run("dspex.module(live)(question='?').answer") == "'yes!'"
    notebook.run("def ask(question, times=2):\n    return [QA()(question=question).answer for _ in range(times)]")
    assert notebook.run("dspex.function(ask)(question='?')") == "['yes!', 'yes!']"


def test_a_cell_awaits_streams_evaluates_optimizes_saves_and_loads(notebook: Kernel) -> None:
    """process: everything that a program does, inside the kernel's running loop."""
    notebook.run(QA)
    notebook.run("qa = dspex.module(QA)")
    assert notebook.run("(await qa.acall(question='?')).answer") == "'yes!'"
    assert (
        notebook.run(
            "'perhaps' in ''.join(str(part.text) for part in qa.stream(question='?') if hasattr(part, 'text'))"
        )
        == "True"
    )
    notebook.run("rows = [{'question': str(n), 'answer': 'yes!'} for n in range(4)]")
    notebook.run("def right(example, prediction, trace=None):\n    return example['answer'] == prediction['answer']")
    assert notebook.run("dspex.evaluate(qa, rows, right).score") == "100.0"
    notebook.run("best = dspex.optimize(qa, rows, metric=right, optimizer='bootstrap'); best.save('best.json')")
    assert notebook.run("dspex.load('best.json', program=qa)(question='?').answer") == "'yes!'"
    assert notebook.run("twin = QA(); twin.load('best.json'); len(twin.draft.demos)") == "4"


def test_an_error_in_a_cells_class_names_the_class_and_the_line(notebook: Kernel) -> None:
    """process: a mistake in a cell is told as the user's own, with the module's name."""
    notebook.run(QA.replace("return dspy.Prediction(", "return dspy.Predicton("))
    with pytest.raises(AssertionError, match=r"Predicton") as error:
        notebook.run("dspex.module(QA)(question='?')")
    assert "QA" in str(error.value)
