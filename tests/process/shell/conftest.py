"""A folder with a user's programs, a scripted model, and the `dspex` command as a shell runs it there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dspex.testing import FakeLM
from tests.support.paths import ROOT

PROG = """
import time
import dspy


class MultiHop(dspy.Module):
    def __init__(self, hops=2):
        super().__init__()
        self.hops = hops
        self.query = dspy.Predict("question -> query")
        self.answer = dspy.Predict("question, notes -> answer, score: float")

    def forward(self, question: str, k: int = 3):
        print("a module prints")
        notes = [self.query(question=question).query for _ in range(self.hops)]
        said = self.answer(question=question, notes="; ".join(notes))
        return dspy.Prediction(answer=said.answer, score=said.score, k=k, hops=self.hops)


class Slow(dspy.Module):
    def forward(self, question: str):
        open("began", "w").close()
        time.sleep(60)


def shout(text):
    return {"text": text.upper(), "letters": len(text)}


def word(text):
    return text.split()[0]


def close(example, prediction, trace=None):
    return 0.5
"""


@dataclass(frozen=True)
class Ended:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@dataclass
class Shell:
    """Runs `dspex` in a folder, with a model that is scripted by field."""

    folder: Path
    lm: FakeLM

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DSPEX_", "OPENAI_"))}
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "workers")]),
            "DSPEX_RUNTIME_DIR": str(self.folder / "run"),
            "DSPEX_LM": "openai/gpt-4o-mini",
            "OPENAI_BASE_URL": str(self.lm.api_base),
            "OPENAI_API_KEY": str(self.lm.api_key),
        }

    def start(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "dspex.cli", *words],
            cwd=self.folder,
            env={**self.environment, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: str, stdin: str = "", **variables: str) -> Ended:
        """Run a command to its end."""
        process = self.start(*words, **variables)
        out, err = process.communicate(stdin, timeout=90)
        return Ended(process.returncode, out, err)


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """No check after each test here: the service that some share keeps connections to the model."""


@pytest.fixture(scope="session")
def answers() -> dict[str, object]:
    return {"query": "rivers", "answer": "The Loire", "score": 0.5, "reasoning": "It is long."}


@pytest.fixture(scope="session")
def shell_of_all(answers: dict[str, object]) -> Iterator[Shell]:
    """One folder for all tests: a socket's path must be short."""
    with FakeLM(by_field=answers) as lm, tempfile.TemporaryDirectory(prefix="dspex-") as folder:
        (Path(folder) / "prog.py").write_text(PROG)
        (Path(folder) / "run").mkdir(mode=0o700)
        yield Shell(Path(folder), lm)


@pytest.fixture
def dspex_(shell_of_all: Shell) -> Shell:
    """The command, with a model that was asked nothing yet."""
    shell_of_all.lm.requests.clear()
    return shell_of_all


@pytest.fixture(scope="session")
def service(shell_of_all: Shell) -> Iterator[str]:
    """The name of a running service whose pool imports the programs."""
    settings = f"""
[pools.dspy]
size = 1
imports = ["prog"]
path = ["{shell_of_all.folder}"]

[lms.cheap]
model = "openai/gpt-4.1-nano"
"""
    (shell_of_all.folder / "service.toml").write_text(settings)
    started = shell_of_all("start", "--daemon", "--config", "service.toml", "--name", "shell")
    assert started.code == 0, started.err
    yield "shell"
    assert shell_of_all("stop", "--name", "shell").code == 0
