"""Collaboration: what the commands print, and their exit codes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspex import Account, PoolConfig, Supervisor, errors
from dspex.cli import main
from dspex.cli.call_command import read_arguments
from dspex.cli.doctor_checks import checks
from dspex.cli.status_command import exit_code, size, span, spent
from dspex.control import Client, Service
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    with Supervisor(pools=[PoolConfig("faults", bridge="faults", size=2, concurrency=2)]) as running:
        yield running.wait_ready()


def phases(supervisor: Supervisor) -> list[str]:
    return [row["phase"] for row in supervisor.stats()["faults"]["workers"]]


@pytest.fixture
def service(supervisor: Supervisor, folder: Path) -> Iterator[Service]:
    with Service(supervisor) as running:
        eventually(lambda: phases(supervisor) == ["ready", "ready"], what="calm")
        yield running


Out = pytest.CaptureFixture[str]


def test_status_shows_every_worker(service: Service, capsys: Out) -> None:
    """collaboration"""
    assert main(["status"]) == 0
    text = capsys.readouterr().out
    for word in ("faults/0", "faults/1", "ready", "lifeline", "memory cap", "submitted", "queued"):
        assert word in text


def test_status_says_what_was_used_of_language_models() -> None:
    """unit: of the process and of each pool; nothing where nothing was asked."""
    account = Account()
    assert spent(account.stats()) == ""
    account.add("openai/m", {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}, 0.0125)
    account.add("openai/m", {"total_tokens": 1}, None)
    account.add_cached()
    assert spent(account.stats()) == "2 requests (1 without a price), 1 from the cache, 1,501 tokens, 0.0125 USD"


def test_status_json_is_the_supervisors_own(service: Service, supervisor: Supervisor, capsys: Out) -> None:
    """collaboration"""
    assert main(["status", "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert seen["pools"]["faults"]["size"] == supervisor.stats()["faults"]["size"]
    assert seen["health"]["faults"]["is_ready"] is True


def test_health_prints_a_line_a_pool(service: Service, capsys: Out) -> None:
    """collaboration"""
    assert main(["health"]) == 0
    assert capsys.readouterr().out == "faults: ready\n"


def test_health_of_a_pool_that_does_not_serve_is_1_and_says_why(
    service: Service, supervisor: Supervisor, capsys: Out
) -> None:
    """collaboration"""
    row = supervisor.health()["faults"]
    assert exit_code({"a": {**row, "is_ready": False, "state": "degraded"}}) == 1
    assert exit_code({"a": {**row, "is_ready": False, "state": "starting"}}) == 4
    assert exit_code({"a": row, "b": {**row, "is_ready": False, "state": "closed"}}) == 1
    assert exit_code({"a": row}) == 0


def test_call_prints_json(service: Service, capsys: Out) -> None:
    """collaboration"""
    assert main(["call", "faults", "echo", "n=1", "text=two words", 'list=["a"]', "none=null"]) == 0
    assert json.loads(capsys.readouterr().out) == {"n": 1, "text": "two words", "list": ["a"], "none": None}


def test_call_prints_bytes_as_base64(service: Service, capsys: Out) -> None:
    """collaboration"""
    assert main(["call", "faults", "payload", "bytes=3"]) == 0
    assert json.loads(capsys.readouterr().out) == {"base64": "cHBw"}


def test_call_streams_a_line_a_chunk(service: Service, capsys: Out) -> None:
    """collaboration"""
    assert main(["call", "faults", "count", '{"n": 3}', "--stream"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"chunk": 0}, {"chunk": 1}, {"chunk": 2}, {"value": 3}]


def test_call_session_outlives_the_command(service: Service, supervisor: Supervisor, capsys: Out) -> None:
    """collaboration"""
    assert main(["call", "faults", "remember", "key=k", "value=7", "--session", "s"]) == 0
    capsys.readouterr()
    assert main(["call", "faults", "recall", "key=k", "--session", "s"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == 7
    with Client(service.path) as client:
        client.session("faults", "s", shared=True).close()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["call", "faults", "raise_error", "message=boom"], 1, "ValueError was raised"),
        (["call", "nowhere", "echo"], 1, "no pool 'nowhere'"),
        (["call", "faults", "ehco"], 1, "Did you mean 'echo'"),
        (["call", "faults", "sleep", "seconds=5", "--timeout", "0.1"], 1, "passed its deadline"),
        (["call", "faults", "echo", "nonsense"], 2, "neither key=value"),
        (["call", "faults", "echo", "{"], 2, "not valid JSON"),
        (["call", "faults", "echo", "[1]"], 2, "neither key=value"),
        (["resize", "faults", "0"], 1, "1 or more"),
        (["forgive", "faults", "abc"], 1, ""),
        (["status", "--name", "nobody"], 3, "dspex start --name nobody"),
        (["status", "--name", "../x"], 2, "name"),
        (["stop", "--name", "nobody"], 3, "there is no socket"),
        (["start", "--config", "/nonexistent.toml"], 2, "/nonexistent.toml"),
    ],
)
def test_failure_is_one_line_and_an_exit_code(
    service: Service, capsys: Out, words: list[str], code: int, text: str
) -> None:
    """collaboration"""
    assert main(words) == code
    err = capsys.readouterr().err
    assert text in err
    assert len(err.splitlines()) <= 1
    assert "Traceback" not in err


def test_an_output_that_cannot_encode_a_result_gets_it_escaped(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """collaboration: the call has run, and is perhaps paid for"""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert main(["call", "faults", "echo", "x=é\ud800"]) == 1  # a surrogate cannot be sent at all
    assert main(["call", "faults", "echo", "x=é😀"]) == 0
    assert json.loads(raw.getvalue()) == {"x": "é😀"}


def test_closed_standard_input_is_a_wrong_command_line(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    """collaboration"""
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["call", "faults", "echo", "-"]) == 2
    assert "standard input, which is closed" in capsys.readouterr().err


def test_debug_raises_the_error_itself(service: Service) -> None:
    """collaboration"""
    with pytest.raises(errors.UnknownName):
        main(["--debug", "call", "nowhere", "echo"])
    with pytest.raises(errors.UnknownName):
        main(["call", "--debug", "nowhere", "echo"])


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["call"], ["resize", "faults", "many"], ["stop", "--grace", "soon"]]
)
def test_wrong_usage_is_2(words: list[str], capsys: Out) -> None:
    """unit"""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: dspex" in capsys.readouterr().err


def test_pool_is_resized_and_recycled(service: Service, supervisor: Supervisor, capsys: Out) -> None:
    """collaboration"""
    before = {row["generation"] for row in supervisor.stats()["faults"]["workers"]}
    assert main(["recycle", "faults", "--timeout", "20"]) == 0
    assert not before & {row["generation"] for row in supervisor.stats()["faults"]["workers"]}
    assert main(["resize", "faults", "3"]) == 0
    eventually(lambda: len(supervisor.stats()["faults"]["workers"]) == 3, what="three workers")
    assert main(["resize", "faults", "2"]) == 0
    eventually(lambda: len(supervisor.stats()["faults"]["workers"]) == 2, what="two workers")


def test_events_are_printed_as_lines_or_json(service: Service, supervisor: Supervisor, capsys: Out) -> None:
    """collaboration"""
    supervisor.pool("faults").resize(2)
    supervisor.flush_events()
    assert main(["events", "--recent", "1"]) == 0
    assert "dspex.pool.resized" in capsys.readouterr().out
    assert main(["events", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[-1]["facts"]["size"] == 2


def test_drain_closes_the_pool(folder: Path, capsys: Out) -> None:
    """collaboration"""
    with Supervisor(pools=[PoolConfig("faults", bridge="faults", size=1)]) as own, Service(own, name="d") as service:
        own.wait_ready()
        assert main(["drain", "faults", "--name", "d", "--timeout", "10"]) == 0
        with Client(service.path) as client, pytest.raises(errors.PoolClosed):
            client.call("faults", "echo")
        assert main(["status", "--name", "d"]) == 1
        assert "closed" in capsys.readouterr().out


def test_arguments_come_from_stdin_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """unit"""
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"a": 1}'))
    assert read_arguments(["-"]) == {"a": 1}
    assert read_arguments([]) == {}
    assert read_arguments(["a=b=c", "n=1.5", "t=true"]) == {"a": "b=c", "n": 1.5, "t": True}
    with pytest.raises(errors.InvalidInput):
        read_arguments(["[1]"])


def test_spans_and_sizes_are_readable() -> None:
    """unit"""
    assert [span(s) for s in (0.25, 59.0, 61.0, 3600.0 * 3 + 720, 90000.0)] == [
        "0.2s",
        "59.0s",
        "1m01s",
        "3h12m",
        "1d01h",
    ]
    assert [size(b) for b in (0, 64 * 2**20, 3 * 2**30)] == ["0 MiB", "64 MiB", "3.0 GiB"]


def test_help_imports_nothing_heavy() -> None:
    """process: what makes `dspex --help` quick"""
    code = (
        "import sys\nfrom dspex.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'asyncio', 'msgpack', 'pydantic', 'dspy', 'structlog', 'dspex.pools', 'dspex.control'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30.0, check=True)
    assert done.stderr.strip() == "[]"
    assert "doctor" in done.stdout


def test_doctor_tries_the_lifeline_and_reports_each_check(folder: Path, capsys: Out) -> None:
    """process"""
    found = {check.name: check for check in checks(None, is_quick=True)}
    assert found["lifeline"].state == "ok"
    assert found["pidfd"].state == "ok"
    assert found["run folder"].detail.startswith(str(folder))
    assert found["settings"].state == "ok"
    assert all(check.remedy for check in found.values() if check.state != "ok")
    assert main(["doctor", "--quick", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"].get("fail", 0) == 0


def test_doctor_fails_on_what_would_not_work(folder: Path, capsys: Out) -> None:
    """process: settings with an error, an interpreter that is not there, a folder that is open to others"""
    bad = folder / "bad.toml"
    bad.write_text("[pools.x]\nsize = 'many'\n")
    assert main(["doctor", "--quick", "--config", str(bad)]) == 1
    assert "pools.x.size" in capsys.readouterr().out
    bad.write_text("[pools.x]\nbridge = 'faults'\npython = '/nonexistent/python'\nstart_method = 'exec'\n")
    assert main(["doctor", "--quick", "--config", str(bad)]) == 1
    assert "FAIL  interpreter of pool x" in capsys.readouterr().out
    folder.chmod(0o755)
    assert main(["doctor", "--quick"]) == 1
    folder.chmod(0o700)
    assert "chmod 700" in capsys.readouterr().out


def test_doctor_never_prints_a_key(folder: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    """process: 40"""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789")
    assert main(["doctor", "--quick"]) == 0
    text = capsys.readouterr().out
    assert "OPENAI_API_KEY (set, 20 characters)" in text
    assert "canary" not in text


def test_bench_measures(capsys: Out) -> None:
    """process"""
    assert main(["bench", "--seconds", "0.05", "--size", "1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["calls_per_s_at_64"] > 0
    assert figures["call_p50_us"] > 0
