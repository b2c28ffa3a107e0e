"""Process: jobs over examples take a signature by its name, as `predict` does; a module's name stays a module."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.paths import ROOT

JOBS = """
import sys, dspex
from dspex.testing import FakeLM
NAME, rows = "named_job:Ask", [{"question": f"q{at}", "answer": "x"} for at in range(2)]
pools = [dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]
right = lambda row, out, trace=None: out.answer == row.answer
with FakeLM({"": {"answer": "x"}}) as lm, dspex.Supervisor(pools=pools) as sup:
    dspex.configure(lm=lm)
    print(dspex.evaluate(NAME, rows, metric=right, supervisor=sup).score)
    print(dspex.evaluate("named_job:QA", rows, metric=right, supervisor=sup).score)
    best = dspex.optimize(NAME, rows, metric=right, optimizer="labeled", supervisor=sup)
    print(best.using(supervisor=sup)(question="q").answer, best.program.signature.instructions)
    print(dspex.best_of_n(NAME, reward_fn=lambda i, o: 1.0, N=1, supervisor=sup)(question="q").answer)
    steps = [dspex.native(NAME), dspex.python("dspy.Predict", signature=NAME)]
    print([dspex.pipeline([step]).run({"question": "q"}, supervisor=sup).answer for step in steps])
    try:
        dspex.module(NAME, supervisor=sup)(question="q")
    except dspex.errors.InvalidInput as error:
        print(error)
print("named_job" in sys.modules)
"""
MODULE = """
import dspy

class Ask(dspy.Signature):
    '''Ask politely.'''

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()

class QA(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict(Ask)

    def forward(self, question):
        return self.ask(question=question)
"""


@pytest.mark.parametrize("is_loaded", [False, True])
def test_a_signatures_name_is_taken_by_jobs(tmp_path: Path, is_loaded: bool) -> None:
    """process: whether this process holds its module or not, which it then does not import."""
    (tmp_path / "named_job.py").write_text(textwrap.dedent(MODULE))
    first = "import named_job\n" if is_loaded else ""
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT / 'workers')!r}]\n{first}{JOBS}"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    scored, module, optimized, best, steps, refused, loaded = ended.stdout.splitlines()
    assert (scored, module, best) == ("100.0", "100.0", "x")
    assert optimized == "x Ask politely." and steps == "['x', 'x']"
    assert "It is a signature: dspex.predictor('predict', 'named_job:Ask')" in refused
    assert loaded == str(is_loaded)
