"""Process: `dspex serve` of the example of a user's own program: under load, with a worker killed, drained, refused."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dspex.testing import FakeLM, FakeReply
from dspex_worker.memory.procfs import descendants
from tests.process.hosts.conftest import hosts
from tests.support.hosts.host import Host
from tests.support.paths import EXAMPLES
from tests.support.service import folder
from tests.support.waiting import eventually

__all__ = ["folder", "hosts"]

HERE = EXAMPLES / "own_program"
QUESTION = "How old was the designer of the {} when it opened?"
TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="module")
def scripted() -> Iterator[Any]:
    """The example's own scripted model."""
    sys.path.insert(0, str(HERE))
    import scripted

    yield scripted
    sys.path.remove(str(HERE))
    sys.modules.pop("scripted", None)


@pytest.fixture(scope="module")
def model(scripted: Any) -> Iterator[FakeLM]:
    def said(messages: list[dict[str, Any]]) -> Any:
        return FakeReply(hang=True) if "hang" in str(messages[-1]["content"]) else scripted.reply(messages)

    with FakeLM(said) as lm:
        yield lm


def environment(model: FakeLM, **more: str) -> dict[str, str | None]:
    return {
        "DSPEX_LM": "openai/fake", "OPENAI_BASE_URL": model.api_base, "OPENAI_API_KEY": model.api_key,
        "DSPEX_SERVE_TOKEN": TOKEN, **more,
    }  # fmt: skip


def serving(hosts: Any, model: FakeLM, *words: str, **more: str) -> tuple[Host, str]:
    """A server that is ready, and its URL."""
    command = [sys.executable, "-m", "dspex.cli", "serve", "--port", "0", *words]
    host: Host = hosts(command, env=environment(model, **more))

    def found() -> Any:
        assert host.process.poll() is None, host.log()
        return re.search(r"^serving .* at (http://\S+), pid", host.log(), re.MULTILINE)

    return host, eventually(found, within=60.0, what="it serves")[1]


def headers(**more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKEN}", **more}


@pytest.mark.timeout(240)
def test_two_hundred_clients_and_a_worker_killed_among_them(hosts: Any, model: FakeLM) -> None:
    """process: each request ends once, with its answer or the error of a cut call; then it stops, drained."""
    program = f"{HERE}/program.py:Ages"
    host, url = serving(hosts, model, program, DSPEX_DSPY_SIZE="2", DSPEX_DSPY_CONCURRENCY="16")
    names = {"Eiffel Tower": "57", "Golden Gate Bridge": "67", "Opera House": "55", "Menai Bridge": "69"}

    async def all_of_them() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, headers=headers(), timeout=200.0, limits=httpx.Limits()) as client:

            async def ask(number: int) -> httpx.Response:
                name = list(names)[number % len(names)]
                return await client.post("/Ages", json={"question": QUESTION.format(name)})

            tasks = [asyncio.ensure_future(ask(number)) for number in range(200)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            os.kill(busy_worker(host), signal.SIGKILL)
            return await asyncio.gather(*tasks)

    answers = asyncio.run(all_of_them())
    assert len(answers) == 200
    for number, answer in enumerate(answers):
        if answer.status_code == 200:
            assert answer.json()["answer"].startswith(names[list(names)[number % len(names)]])
        else:
            assert (answer.status_code, answer.json()["error"]) == (502, "WorkerDied"), answer.text
            assert answer.json()["retryable"] == "if_idempotent"
    cut = sum(answer.status_code != 200 for answer in answers)
    assert cut <= 16  # what one worker runs at a time
    assert "dspex.worker.died" in host.log()
    host.signal(signal.SIGTERM)
    host.finish(within=60.0)


def busy_worker(host: Host) -> int:
    """The pid of one of its workers, of those that a log names."""
    return int(re.findall(r"event=dspex\.worker\.ready .*?pid=(\d+)", host.log())[0])


def test_a_stop_lets_running_requests_end(hosts: Any, model: FakeLM) -> None:
    """process: while it waits, it is alive and not ready, and takes no new ones; the second signal ends the wait."""
    host, url = serving(hosts, model, "qa=question -> answer", "--grace", "600")
    assert httpx.get(f"{url}/readyz").status_code == 200
    count = len(model.requests)
    task = subprocess.Popen([sys.executable, "-c", ASKING, url, TOKEN, "hang"], stdout=subprocess.PIPE, text=True)
    try:
        model.wait_for(lambda: len(model.requests) > count)
        host.signal(signal.SIGTERM)
        eventually(lambda: httpx.get(f"{url}/readyz").status_code == 503, what="it is not ready")
        assert httpx.get(f"{url}/readyz").json() == {"status": "stopping"}
        assert httpx.get(f"{url}/livez").status_code == 200
        refused = httpx.post(f"{url}/qa", json={"question": "?"}, headers=headers())
        assert (refused.status_code, refused.json()["retryable"]) == (503, "now")
        assert task.poll() is None and host.process.poll() is None
        host.signal(signal.SIGTERM)
        out, _ = task.communicate(timeout=60.0)
        assert json.loads(out)["status"] == 503
    finally:
        task.kill()
        task.wait()
    host.finish(code=1, within=60.0)  # one was cut


ASKING = """
import sys, httpx
url, token, question = sys.argv[1:]
answer = httpx.post(url + "/qa", json={"question": question}, headers={"authorization": "Bearer " + token}, timeout=120)
print(answer.text)
"""


def test_a_request_that_ends_within_the_grace_is_answered(hosts: Any, model: FakeLM, fake: Any) -> None:
    """process: and then the server ends by itself, with success."""
    slow = fake({"": {"answer": "late"}}, cycle=True, latency=1.5)
    host, url = serving(hosts, slow, "qa=question -> answer")
    task = subprocess.Popen([sys.executable, "-c", ASKING, url, TOKEN, "?"], stdout=subprocess.PIPE, text=True)
    slow.wait_for(lambda: len(slow.requests) == 1)
    host.signal(signal.SIGTERM)
    assert json.loads(task.communicate(timeout=60.0)[0]) == {"answer": "late"}
    host.finish(within=60.0)


def test_an_mcp_client_over_standard_input(model: FakeLM, tmp_path: Path) -> None:
    """process: the official client starts it, calls a tool, and ends it; what the program prints is no part of that."""
    mcp = pytest.importorskip("mcp")
    (tmp_path / "loud.py").write_text(LOUD)
    env = {name: value for name, value in environment(model).items() if value is not None}
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    command = ["-m", "dspex.cli", "serve", "--mcp-stdio", "--log-level", "error", "qa=question -> answer", "loud:Loud"]
    server = mcp.StdioServerParameters(
        command=sys.executable, args=command, env={**kept, **env, "DSPEX_DSPY_SIZE": "1"}, cwd=tmp_path
    )
    seen: dict[str, list[int]] = {}
    others = set(descendants(os.getpid()))  # of tests that ran before

    async def ask() -> tuple[Any, Any, Any]:
        async with mcp.Client(server) as client:
            tools = (await client.list_tools()).tools
            seen["pids"] = descendants(os.getpid())
            return (
                tools,
                await client.call_tool("Loud", {"text": "hi"}),
                await client.call_tool("qa", {"question": "?"}),
            )

    tools, loud, qa = asyncio.run(ask())
    assert [tool.name for tool in tools] == ["qa", "Loud"]
    assert json.loads(loud.content[0].text) == {"said": "HI"}
    assert set(qa.structured_content) == {"answer"}
    begun = set(seen["pids"]) - others
    assert begun
    eventually(lambda: not set(descendants(os.getpid())) & begun, what="its processes have ended")


LOUD = """
import dspy


class Loud(dspy.Module):
    def forward(self, text: str):
        print("not for the wire")
        return dspy.Prediction(said=text.upper())
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "--open"), (["--port", "70000"], "65535"),
        (["--token-file", "/dev/null"], "token"), (["--timeout", "0"], "timeout"),
        (["livez=question -> answer"], "livez"),
        (["--kind", "predict"], "--kind"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused_before_workers_start(words: list[str], said: str, model: FakeLM) -> None:
    """process: in one line, with the exit code of a wrong command line."""
    env = {name: value for name, value in environment(model).items() if value and name != "DSPEX_SERVE_TOKEN"}
    more = ["b=question -> answer"] if "--kind" in words else []
    done = subprocess.run(
        [sys.executable, "-m", "dspex.cli", "serve", "a=question -> answer", *more, *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and len(done.stderr.splitlines()) <= 2  # the second says how the command is used
    assert done.stdout == ""


def test_a_port_that_is_taken_is_refused(hosts: Any, model: FakeLM) -> None:
    """process: before its workers start, and the server that has it goes on."""
    host, url = serving(hosts, model, "qa=question -> answer")
    port = url.rpartition(":")[2]
    other = hosts(
        [sys.executable, "-m", "dspex.cli", "serve", "--port", port, "qa=question -> answer"], env=environment(model)
    )
    other.finish(code=2, within=60.0)
    assert f"Port {port} of 127.0.0.1 cannot be had" in other.log()
    assert httpx.post(f"{url}/qa", json={"question": "?"}, headers=headers()).status_code == 200
    host.signal(signal.SIGINT)
    host.finish(within=60.0)


def test_programs_run_by_a_running_service(hosts: Any, model: FakeLM, folder: Path) -> None:
    """process: by its workers and its language models, with no key here; it goes on when the server ends."""
    settings = folder / "dspex.toml"
    settings.write_text('[pools.dspy]\nsize = 1\nimports = ["program"]\n')
    of_all = {"DSPEX_RUNTIME_DIR": str(folder), "PYTHONPATH": f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "dspex.cli", "start", "--config", str(settings)]
    service: Host = hosts(command, env=environment(model, **of_all))
    eventually(lambda: "ready:" in service.log(), within=60.0, what="the service is ready")
    without = {"OPENAI_API_KEY": "", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "DSPEX_LM": ""}
    host, url = serving(
        hosts, model, "--connect", "default", "program:Ages", "qa=question -> answer", **{**of_all, **without}
    )
    with httpx.Client(base_url=url, headers=headers(), timeout=60.0) as client:
        assert client.get("/readyz").status_code == 200
        found = client.post("/Ages", json={"question": QUESTION.format("Eiffel Tower")})
        assert found.json()["answer"] == "57 years old.", found.text
        assert (
            "event: prediction" in client.post("/Ages/stream", json={"question": QUESTION.format("Opera House")}).text
        )
        assert client.post("/qa", json={"question": "?"}).status_code == 200
    host.signal(signal.SIGTERM)
    host.finish(within=60.0)
    assert service.process.poll() is None
    service.signal(signal.SIGTERM)
    service.finish(within=60.0)
