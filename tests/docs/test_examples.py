"""Process: each example runs as a user runs it, on a scripted model, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from dspex.testing import FakeLM
from dspex.testing.script import FakeReply
from tests.support.hosts.host import Host
from tests.support.paths import EXAMPLES
from tests.support.waiting import eventually, is_alive

SHORT = ("quickstart", "stream", "tools", "pipeline", "session", "optimize", "own_bridge", "fastapi_app")
pytestmark = pytest.mark.timeout(900)
WITHIN = 300.0  # seconds for one of them, on a machine that is busy
Messages = list[dict[str, Any]]
Run = Callable[..., Host]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A maker of running examples. After the test nothing of them may be left: no process, no file."""
    made: list[Host] = []

    def make(command: list[str], lm: FakeLM, **options: Any) -> Host:
        given = {"DSPEX_LM": lm.model, "OPENAI_BASE_URL": lm.api_base, "OPENAI_API_KEY": lm.api_key}
        made.append(Host([sys.executable, *command], tmp_path / f"example{len(made)}", env=given, **options))
        return made[-1]

    yield make
    files = [host.files() for host in made]
    try:
        for host in made:
            eventually(lambda host=host: not _alive_at(host.folder), what=f"nothing is left\n{host.log()}")
    finally:
        for host in made:
            host.close()
    assert not any(files), files


def _alive_at(home: Path) -> list[int]:
    """The processes of an example: it and its workers have this HOME."""
    wanted, found = f"HOME={home}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0") and is_alive(int(entry.name)):
                    found.append(int(entry.name))
    return found


def printed(run: Run, name: str, answer: Any) -> tuple[str, FakeLM]:
    """What the example prints where the model answers like that."""
    with FakeLM(answer) as lm:
        host = run([str(EXAMPLES / f"{name}.py")], lm)
        host.finish(within=WITHIN)
    return host.log(), lm


def asked(messages: Messages) -> str:
    return str(messages[-1]["content"])


# -- what all of them are ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHORT)
def test_an_example_is_short_and_says_how_to_run_it(name: str) -> None:
    """contract: under 60 lines, so that it can be read at once and pasted."""
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert f"python examples/{name}.py" in text.split('"""')[1]
    assert 'if __name__ == "__main__":' in text
    assert "DSPEX_LM" in text
    assert not re.findall(r"from dspex\.|import dspex\.", text), "only public names"


# -- what each of them prints --------------------------------------------------------------------------------------


def test_quickstart(run: Run) -> None:
    """process: natively and in a worker, with typed outputs."""

    def answer(messages: Messages) -> dict[str, Any]:
        return {"answer": "Tokyo" if "Japan" in asked(messages) else "Paris", "person": "Alan Turing", "born": 1912}

    out, lm = printed(run, "quickstart", answer)
    assert "answer: Paris (native)" in out
    assert "person: Alan Turing, 30 years old in 1942 (native)" in out
    assert re.search(r"answer: Tokyo \(python:dspy/\d\)", out)
    assert "used: 3 requests" in out
    assert len(lm.requests) == 3


def test_stream(run: Run) -> None:
    """process: the text as it comes, and a stream that is left early hangs up."""
    text = "The moon is a big round rock that goes around the earth once in a month, again and again."

    def answer(messages: Messages) -> FakeReply:
        return FakeReply({"explanation": text}, chunk_delay=0.0 if "moon" in asked(messages) else 0.05)

    out, lm = printed(run, "stream", answer)
    assert f"{text}\n(native: 19 words" in out
    assert re.search(r"only its beginning:\n.{40,60} \.\.\.", out)
    assert lm.hung_up == 1


def test_tools(run: Run) -> None:
    """process: the agent's tool runs in the host; and by hand."""

    def answer(messages: Messages) -> dict[str, Any]:
        is_told = "sunny" in asked(messages)
        step = {"next_tool_name": "finish", "next_tool_args": {}} if is_told else {"next_tool_name": "weather"}
        made = {"next_thought": "I look it up.", "next_tool_args": {"city": "Rome"}, **step}
        return {**made, "reasoning": "It is sunny.", "city": "Rome", "answer": "It is sunny."}

    out, _ = printed(run, "tools", answer)
    assert out.count("weather('Rome') is called") == 2
    assert re.search(r"It is sunny\. \(python:dspy/\d\)", out)
    assert "It is sunny. (native)" in out


def test_tools_with_a_model_that_cannot_follow(run: Run) -> None:
    """process: a small model fails as an agent, and the example says so and goes on."""

    def answer(messages: Messages) -> Any:
        fields = {"city": "Oslo", "answer": "Snow."}
        return "I do not know." if "next_tool_name" in asked(messages) else fields

    out, _ = printed(run, "tools", answer)
    assert "This model cannot follow an agent's format" in out
    assert "Snow. (native)" in out


def test_pipeline(run: Run) -> None:
    """process: the search finds the right document, and each step says where it ran."""
    out, lm = printed(run, "pipeline", lambda messages: {"answer": "Up to 270 degrees", "topic": "birds"})
    assert "Up to 270 degrees\n  source: Owls hunt at night." in out
    assert "topic: birds" in out
    assert re.search(r"^search +\d+\.\d+ s +native$", out, re.MULTILINE)
    assert re.search(r"^dspy.ChainOfThought +\d+\.\d+ s +python:dspy/\d$", out, re.MULTILINE)
    assert any("270 degrees" in request.last for request in lm.requests)


def test_session(run: Run) -> None:
    """process: a durable session's state is there after its worker was killed."""
    out, lm = printed(run, "session", lambda messages: {"answer": "Rex"})
    before, after = re.findall(r"process (\d+) holds 3 notes", out)
    assert before != after
    assert "What is the name of the dog? Rex" in out
    assert "The dog is called Rex." in lm.requests[-1].last


def test_optimize(run: Run) -> None:
    """process: demonstrations help this model, so the score rises; the loaded program answers natively."""
    names = ("Maria", "Peter", "Susan", "Louis", "Ahmed", "Ingrid", "Carlos", "Yuki", "Olga")

    def answer(messages: Messages) -> dict[str, str]:
        has_demos = len(messages) > 2
        return {"person": next(name for name in names if name in asked(messages)) if has_demos else "someone"}

    out, _ = printed(run, "optimize", answer)
    assert "0 % right before, 100 % after" in out
    assert re.search(r"Olga \(native; \d+ bytes of JSON\)", out)


def test_own_bridge(run: Run) -> None:
    """process: a command, a stream, and a question to the host's model."""
    capitals = {"Japan": "Tokyo", "France": "Paris", "Germany": "Berlin"}

    def answer(messages: Messages) -> dict[str, str]:
        return {"answer": next(capital for country, capital in capitals.items() if country in asked(messages))}

    out, lm = printed(run, "own_bridge", answer)
    assert "countries: ['Japan', 'France', 'Germany']" in out
    assert "Japan: Tokyo\nFrance: Paris\nGermany: Berlin" in out
    assert len(lm.requests) == 3


# -- the service ---------------------------------------------------------------------------------------------------


@pytest.fixture
def served(run: Run) -> Iterator[tuple[Host, FakeLM]]:
    """The FastAPI service, with a model that never answers what is "hard"."""
    pytest.importorskip("fastapi")

    def answer(messages: Messages) -> Any:
        return FakeReply(hang=True) if "hard" in asked(messages) else {"answer": "It scatters light."}

    with FakeLM(answer) as lm:
        server = ["-m", "uvicorn", "--fd", "{fd}", "--app-dir", str(EXAMPLES), "fastapi_app:app"]
        host = run(server, lm, listen=True)
        eventually(lambda: status_of(host, "/ready") == 200, within=WITHIN, what="it is ready")
        yield host, lm
        host.signal(signal.SIGTERM)
        host.finish(code=None, within=WITHIN)
        assert "Traceback" not in host.log(), host.log()


def status_of(host: Host, path: str) -> int:
    connection = HTTPConnection("127.0.0.1", host.port, timeout=WITHIN)
    with contextlib.closing(connection), contextlib.suppress(OSError):
        connection.request("GET", path)
        return connection.getresponse().status
    return 0


def posted(host: Host, question: str) -> HTTPConnection:
    connection = HTTPConnection("127.0.0.1", host.port, timeout=WITHIN)
    connection.request("POST", "/answer", json.dumps({"question": question}), {"content-type": "application/json"})
    return connection


def test_fastapi_answers_and_streams(served: tuple[Host, FakeLM]) -> None:
    """process: an answer from a worker, and server-sent events that end with the whole prediction."""
    host, _ = served
    with contextlib.closing(posted(host, "Why is the sky blue?")) as connection:
        assert json.loads(connection.getresponse().read())["answer"] == "It scatters light."
    connection = HTTPConnection("127.0.0.1", host.port, timeout=WITHIN)
    with contextlib.closing(connection):
        connection.request("GET", "/stream?question=Why")
        reply = connection.getresponse()
        assert reply.getheader("content-type", "").startswith("text/event-stream")
        events = [json.loads(line.removeprefix("data: ")) for line in reply.read().decode().split("\n\n") if line]
    assert "".join(events[:-1]) == "It scatters light."
    assert events[-1] == {"answer": "It scatters light."}


def test_fastapi_clients_that_hang_up_free_what_runs_for_them(served: tuple[Host, FakeLM]) -> None:
    """process: the request of the model ends with its client, on both routes, and the service goes on."""
    host, lm = served
    connection = posted(host, "a hard question")
    lm.wait_for(lambda: len(lm.requests) == 1, WITHIN)
    connection.close()
    lm.wait_for(lambda: lm.hung_up == 1, WITHIN)
    streamed = host.ask("/stream?question=a+hard+one")
    lm.wait_for(lambda: len(lm.requests) == 2, WITHIN)
    streamed.close()
    lm.wait_for(lambda: lm.hung_up == 2, WITHIN)
    with contextlib.closing(posted(host, "Why is the sky blue?")) as connection:
        assert connection.getresponse().status == 200


def test_fastapi_says_what_is_wrong_with_the_model(served: tuple[Host, FakeLM]) -> None:
    """process: an error of ours is a 503 that says whether to try again, not a traceback."""
    host, lm = served
    lm.close()
    with contextlib.closing(posted(host, "Why?")) as connection:
        reply = connection.getresponse()
        assert reply.status == 503
        assert set(json.loads(reply.read())) == {"error", "retryable"}
