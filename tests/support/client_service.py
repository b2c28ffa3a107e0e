"""A service of programs in a process of its own, for tests of its clients; its language model is scripted.

    with served() as service, Client(service.socket) as client: ...

What the model is asked comes back in its answer (`token_of`), so whoever got another's answer is found out.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dspex
from dspex.control import Client
from dspex.testing import FakeLM
from tests.support.paths import ROOT
from tests.support.waiting import eventually

KEY = "sk-of-the-service-alone"
MODULES = """
import os
import dspy


class Own(dspy.Module):
    def __init__(self):
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    def forward(self, question):
        return self.answer(question=question)


class Slow(dspy.Module):
    def forward(self, question):
        import time
        time.sleep(float(question))
        return dspy.Prediction(answer=str(os.getpid()))
"""
TOKEN = re.compile(r"<([\w.-]+)>")


def token_of(text: str) -> str:
    """Return the last token (`<web-3>`) in a text."""
    found = TOKEN.findall(text)
    return found[-1] if found else ""


def answer(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Answer as the model: the token of what was asked; an agent looks it up with its tool first."""
    text = "\n".join(str(message["content"]) for message in messages if message["role"] == "user")
    token = token_of(text)
    if "proposed_instruction" in str(messages):
        return {"proposed_instruction": f"Answer <{token}>.", "proposed_prefix_for_output_field": "Answer:"}
    if "next_tool_name" not in str(messages) or "reasoning" in str(messages[0]["content"]):
        return {"answer": token, "reasoning": "as asked", "other": token}
    if "observation_0" in text:
        return {"next_thought": "done", "next_tool_name": "finish", "next_tool_args": "{}"}
    return {"next_thought": "look", "next_tool_name": "lookup", "next_tool_args": json.dumps({"key": token})}


@dataclass
class ServiceOfPrograms:
    """The service: `dspex start`, in a folder of its own."""

    folder: Path
    lm: FakeLM
    cheap: FakeLM
    settings: str
    process: subprocess.Popen[bytes] | None = None
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def socket(self) -> Path:
        return self.folder / "default.sock"

    def start(self) -> None:
        """Start it, and wait until its pools have workers."""
        log = (self.folder / "log").open("ab")
        with log:
            command = [sys.executable, "-m", "dspex.cli", "start", "--config", str(self.folder / "dspex.toml")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **self.env})
        eventually(self._is_ready, within=60.0, what="the service is ready")

    def kill(self) -> None:
        """End it at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=30)

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        with contextlib.suppress(dspex.NotRunning), Client(self.socket, operator=True, reconnects=False) as client:
            return all(row["is_ready"] for row in client.health().values())
        return False


@contextlib.contextmanager
def served(
    *, size: int = 2, concurrency: int = 4, more: str = "", pools: tuple[str, ...] = ("dspy", "mipro", "faults")
) -> Iterator[ServiceOfPrograms]:
    """Yield a running service; `more` is added to its settings."""
    folder = Path(tempfile.mkdtemp(prefix="dspex-"))
    with (
        FakeLM(answer, model="openai/fake", api_key=KEY) as lm,
        FakeLM(by_field={"answer": "cheap"}, model="openai/cheap", api_key=KEY) as cheap,
    ):
        (folder / "client_modules.py").write_text(MODULES)
        settings = _settings(folder, lm, cheap, size, concurrency, pools) + more
        (folder / "dspex.toml").write_text(settings)
        (folder / "dspex.toml").chmod(0o600)
        env = {"DSPEX_RUNTIME_DIR": str(folder), "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "workers")))}
        made = ServiceOfPrograms(folder, lm, cheap, settings, env=env)
        try:
            made.start()
            yield made
        finally:
            if made.process is not None and made.process.poll() is None:
                made.process.terminate()
                try:
                    made.process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    made.kill()
            shutil.rmtree(folder)


def _settings(folder: Path, lm: FakeLM, cheap: FakeLM, size: int, concurrency: int, pools: tuple[str, ...]) -> str:
    tables = {
        "dspy": f'size = {size}\nconcurrency = {concurrency}\nimports = ["client_modules"]\npath = ["{folder}"]',
        "mipro": f'size = 1\nimports = ["client_modules"]\npath = ["{folder}"]',
        "faults": f'bridge = "faults"\nsize = {size}\nconcurrency = {concurrency}',
    }
    text = "".join(f"[pools.{name}]\nstop_grace = 1\n{tables[name]}\n" for name in pools)
    for table, each in (("lm", lm), ("lms.cheap", cheap)):
        text += f'[{table}]\nmodel = "{each.model}"\napi_base = "{each.api_base}"\napi_key = "{KEY}"\n'
        text += "price = [1e-3, 1e-3]\n"
    return text
