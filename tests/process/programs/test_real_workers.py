"""Process: the shipped bridges in real workers, against a real HTTP endpoint on the loopback interface."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import (
    AdapterParseError,
    LMAuthError,
    LMConfigurationError,
    OptimizationFailed,
    UnknownName,
)
from dspex.pools.supervisor import Supervisor
from dspex.services.services import Services, services_of
from dspex.signatures.signature import Signature, signature
from dspex.signatures.wire_form import signature_to_wire
from dspex.testing import FakeLM, FakeReply
from tests.support.waiting import late

QA = signature("question -> answer")
ROWS = [{"question": f"double {number}", "answer": str(2 * number)} for number in range(10)]


def _spec(module: str = "dspy.Predict", sig: Signature = QA, **extra: Any) -> dict[str, Any]:
    return {"module": module, "signature": signature_to_wire(sig), "options": {}, "state": None} | extra


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    pools = [dspex.PoolConfig(name="dspy", size=1), dspex.PoolConfig(name="mipro", size=1)]
    with dspex.Supervisor(pools=pools) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def services(supervisor: Supervisor) -> Services:
    return services_of(supervisor)


def test_a_program_runs_and_its_lm_is_called_by_the_parent(supervisor: Supervisor, services: Services) -> None:
    """collaboration: the answer, its usage, and the parent's key in the request."""
    with FakeLM(lambda messages: {"reasoning": "r", "answer": "Paris"}) as lm:
        arguments = {"spec": _spec("dspy.ChainOfThought"), "inputs": {"question": "q"}, "lm": services.lm_record(lm)}
        found = supervisor.call("dspy", "run", arguments)
        assert found["outputs"] == {"reasoning": "r", "answer": "Paris"} and found["cached"] is False
        assert found["usage"][lm.model]["completion_tokens"] > 0 and len(lm.requests) == 1


def test_errors_are_the_same_classes_as_on_the_native_route(supervisor: Supervisor, services: Services) -> None:
    """collaboration: I3, and refusals of the registry."""

    def run(lm: Any, spec: dict[str, Any], **more: Any) -> Any:
        record = services.lm_record(lm)
        return supervisor.call("dspy", "run", {"spec": spec, "inputs": {"question": "q"}, "lm": record} | more)

    with FakeLM(lambda messages: FakeReply(status=401)) as lm, pytest.raises(LMAuthError) as refused:
        run(lm, _spec())
    assert refused.value.status == 401 and refused.value.model == lm.model
    with FakeLM("no fields") as lm, pytest.raises(AdapterParseError) as unparsed:
        run(lm, _spec(), adapter="json")
    assert unparsed.value.lm_response == "no fields" and "no fields" not in str(unparsed.value)
    with FakeLM("") as lm:
        with pytest.raises(UnknownName, match=r"There is no module 'dspy._vendor.lm15.auth.os'"):
            run(lm, _spec("dspy._vendor.lm15.auth.os"))
        with pytest.raises(UnknownName, match=r"There is no adapter 'yaml'"):
            run(lm, _spec(), adapter="yaml")
        with pytest.raises(LMConfigurationError):
            run(lm, _spec(), config={"api_base": "http://127.0.0.1:1"})
        assert not lm.requests


def test_fields_stream_out_of_a_worker(supervisor: Supervisor, services: Services) -> None:
    """collaboration: chunks of fields, then the same value as run's."""
    with FakeLM(lambda messages: {"answer": "one two three four"}) as lm:
        arguments = {"spec": _spec(), "inputs": {"question": "q"}, "lm": services.lm_record(lm)}
        with supervisor.stream("dspy", "run_stream", arguments) as stream:
            text = "".join(chunk["text"] for chunk in stream if chunk["field"] == "answer")
        assert text == stream.value["outputs"]["answer"] == "one two three four"


def test_a_call_that_waits_for_its_lm_ends_at_its_deadline(supervisor: Supervisor, services: Services) -> None:
    """collaboration: the worker's thread is free again and the worker is the same (K1)."""
    before = supervisor.call("dspy", "ping", {})
    with FakeLM("late", latency=30) as lm:
        arguments = {"spec": _spec(), "inputs": {"question": "q"}, "lm": services.lm_record(lm)}
        late(lambda seconds: supervisor.call("dspy", "run", arguments, timeout=seconds), lambda: lm.requests)
        lm.wait_for(lambda: lm.hung_up == len(lm.requests) > 0)
    after = supervisor.call("dspy", "ping", {})
    assert (after["pid"], after["generation"]) == (before["pid"], before["generation"])


def _doubling(messages: Any) -> Any:
    """Knows how to double once an example has shown it."""
    last = messages[-1]["content"]
    number = last.split("double ")[1].split()[0] if "double " in last else "0"
    return {"answer": str(2 * int(number)) if len(messages) > 2 else "no idea"}


def _optimize(lm: Any, services: Services, **more: Any) -> dict[str, Any]:
    arguments = {"spec": _spec(), "trainset": ROWS, "inputs": ["question"], "lm": services.lm_record(lm)}
    return arguments | {"optimizer": "labeled", "metric": {"name": "exact_match"}, "options": {}} | more


def test_an_optimizer_reports_from_the_capped_pool(supervisor: Supervisor, services: Services) -> None:
    """collaboration: progress, the baseline and the state that then serves."""
    with FakeLM(_doubling) as lm:
        with supervisor.stream("mipro", "optimize", _optimize(lm, services, options={"k": 2})) as stream:
            stages = [report["stage"] for report in stream]
        found = stream.value
        assert (found["baseline_score"], found["score"]) == (0.0, 100.0)
        assert stages[0] == "baseline" and stages[-1] == "score"
        arguments = {"spec": _spec(state=found["state"]), "inputs": {"question": "double 21"}}
        answered = supervisor.call("dspy", "run", arguments | {"lm": services.lm_record(lm)})
        assert answered["outputs"] == {"answer": "42"}


def test_an_optimizer_without_a_working_lm_fails(supervisor: Supervisor, services: Services) -> None:
    """collaboration: OptimizationFailed, not a program with score 0.0."""
    with FakeLM(lambda messages: FakeReply(status=401)) as lm:
        stream = supervisor.stream("mipro", "optimize", _optimize(lm, services))
        with pytest.raises(OptimizationFailed, match="LMAuthError"):
            list(stream)


def test_leaving_an_optimization_stops_its_requests(supervisor: Supervisor, services: Services) -> None:
    """collaboration: closing the stream cancels; the worker answers the next call, and nothing is asked any more."""
    asked = threading.Event()

    def answer(messages: Any) -> Any:
        asked.set()
        return _doubling(messages)

    with FakeLM(answer, latency=0.05) as lm:
        options = {"num_candidate_programs": 16, "num_threads": 2}
        arguments = _optimize(lm, services, optimizer="random_search", options=options)
        with supervisor.stream("mipro", "optimize", arguments) as stream:
            assert next(stream)["stage"] == "baseline" and asked.wait(20)
        supervisor.call("mipro", "ping", {})
        count = len(lm.requests)
        supervisor.call("mipro", "ping", {})
        assert len(lm.requests) == count < 160
