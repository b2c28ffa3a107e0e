"""Process: optimizations of a running service: started, listed, watched and cancelled by clients, and gone on with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.control import Client, Service
from dspex.testing import FakeLM
from tests.support.programs.job_tasks import ROWS, endpoint, is_right
from tests.support.service import SETTINGS, Live, Starter
from tests.support.waiting import eventually

OWN = """
import os
import dspy


class Doubling(dspy.Module):
    def __init__(self):
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    def forward(self, question):
        return self.answer(question=question)


def is_right(example, prediction, trace=None):
    return example["answer"] == prediction["answer"]
"""
COPRO: dict[str, Any] = {"optimizer": "copro", "options": {"breadth": 3, "depth": 2}}


@pytest.fixture
def lm() -> Iterator[FakeLM]:
    with endpoint() as answering:
        yield answering


@pytest.fixture
def one(live: Starter, settings: Path, folder: Path, lm: FakeLM) -> Live:
    """A service that optimizes, with a folder of journals."""
    (folder / "doubling.py").write_text(OWN)
    settings.write_text(f"""{SETTINGS}
[pools.dspy]
size = 1
imports = ["doubling"]
path = ["{folder}"]
[pools.mipro]
size = 1
stop_grace = 1
imports = ["doubling"]
path = ["{folder}"]
[lm]
model = "openai/fake"
api_base = "{lm.api_base}"
api_key = "{lm.api_key}"
cache = false
[lms.other]
model = "openai/other"
api_base = "{lm.api_base}"
api_key = "{lm.api_key}"
cache = false
[jobs]
folder = "{folder}/jobs"
resume = true
""")
    settings.chmod(0o600)
    return live("--grace", "0.3")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dspex.cli", *words], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_client_starts_watches_and_takes_a_job(one: Live, lm: FakeLM, folder: Path) -> None:
    """process: by import path, with a metric of the pool's imports; the result is served without DSPy."""
    with Client(one.socket) as client:
        job = client.optimize("doubling:Doubling", ROWS, metric="doubling:is_right", **COPRO)
        kinds = [event["kind"] for event in job.events()]
        assert kinds[:2] == ["queued", "running"] and kinds[-1] == "done" and "candidate" in kinds
        row = job.progress
        assert (row["state"], row["program"], row["optimizer"]) == ("done", "doubling:Doubling", "copro")
        assert row["requests"] == len(lm.requests) > 8 and row["best"] >= row["baseline"]
        again = [event["kind"] for event in client.job(job.id).events(follow=False)]
        assert again[-1] == "done" and "candidate" in again
        assert [listed["id"] for listed in client.jobs()] == [job.id]
        job.save(folder / "best.json")
        assert client.status()["jobs"][0]["id"] == job.id and not job.cancel()
        other = client.optimize(
            "question -> answer", ROWS, metric="exact_match", optimizer="labeled", lm="other", kind="chain_of_thought"
        )
        assert other.wait() == "done"
        assert {request.body["model"] for request in lm.requests[row["requests"] :]} == {"other"}
    best = dspex.load(folder / "best.json", program=dspex.module("doubling:Doubling"))
    assert best.score == row["best"]
    journal = Path(row["journal"]).read_text()
    assert lm.api_key not in journal and "127.0.0.1" not in journal


def test_the_command_lists_watches_and_cancels_what_runs(one: Live, lm: FakeLM) -> None:
    """process: `dspex jobs`, `dspex status`, `dspex job`; the job outlives its client and keeps its best."""
    lm._server.latency = 0.2
    with Client(one.socket) as client:
        id = client.optimize("question -> answer", ROWS, metric="exact_match", **COPRO).id
    with Client(one.socket) as client:
        eventually(lambda: client.job_row(id)["baseline"] is not None, within=40.0, what="the baseline")
        listed = command("jobs")
        assert listed.returncode == 0, listed.stderr
        [_, line] = listed.stdout.splitlines()
        assert line.startswith(id) and "running" in line and line.endswith("default")
        assert f"optimization {id}: copro of " in command("status").stdout
        watching = subprocess.Popen(
            [sys.executable, "-m", "dspex.cli", "job", id[:17], "--watch", "--json"], stdout=subprocess.PIPE, text=True
        )
        ended = command("job", id, "--cancel", "--json")
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["state"] == "stopped"
        told = [json.loads(line) for line in watching.communicate(timeout=30)[0].splitlines()]
        assert watching.returncode == 1 and told[0]["kind"] == "queued" and told[-1]["kind"] == "stopped"
        assert client.job(id).program()["metadata"]["dspex"]["score"] is not None  # type: ignore[index]
        with pytest.raises(dspex.OptimizationStopped, match=id):
            client.job(id).save("none.json")
        again = command("job", id, "--cancel")
        assert again.returncode == 2 and "has ended already: stopped" in again.stderr
        assert command("job", "none").returncode == 2
        answers = client.call("dspy", "ping")
        assert answers


def test_the_command_optimizes_in_a_service(one: Live, lm: FakeLM, folder: Path) -> None:
    """process: with the service's program, metric and models; what is no service's to heed is refused."""
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    words = ["optimize", "doubling:Doubling", str(folder / "rows.jsonl"), "--metric", "doubling:is_right"]
    words += ["--optimizer", "labeled", "--option", "k=2", "--name", "default", "-o", str(folder / "best.json")]
    said = command(*words, "--val", str(folder / "rows.jsonl"), "--lm", "other")
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("score ") and "candidate 0 (baseline" in said.stderr
    assert json.loads((folder / "best.json").read_text())["metadata"]["dspex"]["optimizer"] == "labeled"
    assert {request.body["model"] for request in lm.requests} == {"other"}
    asked = len(lm.requests)
    for more in (["--journal", "j.jsonl"], ["--resume"], ["--config", "c.toml"], ["--lm", "openai/theirs"]):
        refused = command(*words, *more)
        assert (refused.returncode, refused.stdout) == (1 if "--lm" in more else 2, ""), (more, refused.stderr)
    assert command("optimize", "./d.py:D", *words[2:]).returncode == 2 and len(lm.requests) == asked


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a module beside the imports": ({"program": "os:system"}, "imports of the pool 'mipro'"),
    "a metric beside the imports": ({"metric": "os:system"}, "imports"),
    "a metric that was only imported": ({"metric": "doubling:os.system"}, "doubling"),
    "no such optimizer": ({"optimizer": "cobro"}, "copro"),
    "an option that names a file": ({"options": {"log_dir": "/tmp/x"}}, "There is no option 'log_dir'"),
    "an option that is no word": ({"options": {"auto": {"a": 1}}}, "a number, a word"),
    "another model": ({"lm": "openai/theirs"}, "no language model 'openai/theirs'"),
    "a model of the constructor": ({"program": "q -> answer", "init": {"lm": "openai/theirs"}}, "no argument"),
    "rows that are none": ({"trainset": ["text"]}, "list of objects"),
    "no rows": ({"trainset": []}, "at least one example"),
    "a budget that cannot be": ({"budget": {"usd": -1}}, "budget's usd"),
    "a program that is no text": ({"program": 5}, "program must be text"),
    "inputs that are none": ({"inputs": "question"}, "inputs must be a list"),
    "a kind of a module": ({"kind": "predict"}, "kind is for a signature"),
    "a module as kind": ({"program": "question -> answer", "kind": "os:system"}, "kind is a built-in one"),
}


def test_what_a_client_may_not_ask_is_refused_before_anything_is_paid(one: Live, lm: FakeLM) -> None:
    """process: each over the socket itself, whatever a client's own checks say; the service serves on."""
    good = {"program": "doubling:Doubling", "metric": "doubling:is_right", "trainset": ROWS, "optimizer": "labeled"}
    with Client(one.socket) as client:
        for case, (given, said) in REFUSED.items():
            try:
                id = client.ask("job.start", {**good, **given})
            except Exception as error:
                assert said in str(error), case
            else:
                job = client.job(id)
                assert job.wait() == "failed", case
                assert said in job.progress["message"], (case, job.progress["message"])
        assert not lm.requests
        for verb in ("job", "job.cancel", "job.program"):
            with pytest.raises(dspex.UnknownName, match="There is no job"):
                client.ask(verb, {"id": "none"})
        with pytest.raises(dspex.UnknownName, match="There is no job"):
            list(client.job_events("none"))
        with pytest.raises(dspex.InvalidInput, match="text"):
            client.optimize("question -> answer", ROWS, metric=is_right)  # type: ignore[arg-type]
    with Client(one.socket, operator=True) as operator, pytest.raises(dspex.UsageError, match="operator"):
        operator.optimize("question -> answer", ROWS, metric="exact_match")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_job_goes_on_when_its_service_starts_again(
    how: signal.Signals, one: Live, live: Starter, lm: FakeLM, folder: Path
) -> None:
    """process: after a kill and after a stop, with the same id; what was answered is not paid again."""
    with Client(one.socket) as client:
        whole = client.optimize("doubling:Doubling", ROWS, metric="doubling:is_right", **COPRO)
        assert whole.wait() == "done"
        expected, paid = whole.program(), len(lm.requests)
        lm.requests.clear()
        lm._server.latency = 0.15
        ended = client.optimize("question -> answer", ROWS, metric="exact_match", optimizer="labeled")
        assert ended.wait() == "done"
        lm.requests.clear()
        job = client.optimize("doubling:Doubling", ROWS, metric="doubling:is_right", **COPRO)
        eventually(lambda: len(lm.requests) > paid // 2, within=60.0, what="half of the requests")
        one.process.send_signal(how)
        one.process.wait(timeout=30)
    lm._server.latency = 0.0
    live()
    with Client(one.socket) as client:
        eventually(lambda: any(row["id"] == job.id for row in client.jobs()), within=30.0, what="the job goes on")
        assert client.job(job.id).wait() == "done"
        found = client.job(job.id).program()
        assert found is not None and expected is not None and found["answer"] == expected["answer"]
        assert [row["id"] for row in client.jobs()] == [job.id]  # not what had ended
    assert len(lm.requests) <= paid + 16  # those that were under way


def test_jobs_of_an_embedded_supervisor_are_seen_by_clients(folder: Path) -> None:
    """process: those of its own process; clients start none there."""
    pools = [dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]
    with dspex.Supervisor(pools=pools) as sup, endpoint(latency=0.1) as lm, Service(sup) as service:
        job = dspex.optimize(
            "question -> answer", ROWS, optimizer="copro", metric=is_right, supervisor=sup, lm=lm, wait=False,
            progress=False, breadth=3, depth=2,
        )  # fmt: skip
        with Client(service.path) as client:
            assert [row["id"] for row in client.jobs()] == [job.id] == [row["id"] for row in client.status()["jobs"]]
            events = iter(client.job(job.id).events())
            assert next(events)["kind"] == "queued"
            assert client.job(job.id).cancel() and [event["kind"] for event in events][-1] == "stopped"
            with pytest.raises(dspex.UsageError, match="dspex start"):
                client.optimize("question -> answer", ROWS, metric="exact_match")
        with pytest.raises(dspex.OptimizationStopped):
            job.result(10)
