"""Process: the classes of a script and of notebook cells run unchanged; an edited cell is the new version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = '''
import enum, sys
import dspy, dspex
from pydantic import BaseModel
from dspex.testing import FakeLM
import beside

FACTOR = 3

class Kind(enum.Enum):
    A = "a"

class Note(BaseModel):
    text: str

class QA(dspy.Module):
    """A user's."""

    def __init__(self, times=1):
        super().__init__()
        self.answer = dspy.Predict("question -> answer")
        self.times = times * FACTOR

    def forward(self, question):
        note = Note(text=self.answer(question=question).answer)
        return dspy.Prediction(answer=note.text * self.times, kind=Kind.A.value, beside=beside.WORD)


def helper(number):
    return number + FACTOR


if __name__ == "__main__":
    with FakeLM(lambda messages: {"answer": "x"}) as lm:
        dspex.configure(lm=lm)
        for qa in (dspex.module(QA, times=2), dspex.module("__main__:QA", times=2), dspex.module(QA(times=2))):
            out = qa(question="q")
            print(out.answer, out.kind, out.beside)
        print(dspex.function(helper)(number=1), dspex.function(lambda number: helper(number) * 2)(number=1))
        print(dspex.module(lambda: QA(times=1))(question="q").answer)
'''
CELLS = """
import dspy, dspex
from dspex.testing import FakeLM

def cell(source):
    exec(compile(source, "<cell>", "exec"), globals())

lm = FakeLM(lambda messages: {"answer": "x"})
dspex.configure(lm=lm)
cell("class QA(dspy.Module):\\n    def forward(self):\\n        return 'first'")
cell("qa = dspex.module(QA)\\nprint(qa())")
cell("class QA(dspy.Module):\\n    def forward(self):\\n        return 'second'")
cell("again = dspex.module(QA)\\nprint(again(), qa())")
cell("WORD = 'third'\\ndef say():\\n    return WORD")
cell("print(dspex.function(say)())")
lm.close()
"""


def _output(tmp_path: Path, name: str, source: str) -> list[str]:
    (tmp_path / name).write_text(source)
    (tmp_path / "beside.py").write_text("WORD = 'beside'\n")
    ended = subprocess.run([sys.executable, name], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_a_script_runs_its_own_classes_and_functions(tmp_path: Path) -> None:
    """process: with what lies beside it, its globals, enums and models."""
    assert _output(tmp_path, "script.py", SCRIPT) == ["xxxxxx a beside"] * 3 + ["4 8", "xxx"]


def test_an_edited_cell_is_the_new_version(tmp_path: Path) -> None:
    """process: programs that were made before keep theirs."""
    assert _output(tmp_path, "cells.py", CELLS) == ["first", "second first", "third"]
