"""Process: OpenTelemetry's spans of pipelines, calls, workers and LM requests are linked across pipe and socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import dspex
from dspex import spans
from dspex.control import Service
from dspex.errors import CallTimeout, WorkerDied
from dspex.testing import FakeLM
from tests.support.waiting import eventually

SECRET = "what nobody asked to see"


@pytest.fixture(scope="module")
def sup() -> Iterator[dspex.Supervisor]:
    pools = [dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("faults", bridge="faults", size=2, stop_grace=1.0)]
    with dspex.Supervisor(pools=pools) as running:
        yield running.wait_ready()


class Seen:
    """The spans that were made."""

    def __init__(self, *, capture_prompts: bool = False) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = dspex.trace_spans(self.provider, capture_prompts=capture_prompts)

    def __enter__(self) -> Seen:
        return self

    def __exit__(self, *_: object) -> None:
        self.tracing.stop()
        self.provider.shutdown()

    def paths(self) -> list[str]:
        """Each span's name after those of the spans that it is in."""
        return sorted(" > ".join(one.name for one in self.way(span)) for span in self.spans())

    def spans(self) -> list[ReadableSpan]:
        assert self.tracing.flush()
        return list(self.exporter.get_finished_spans())

    def one(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.spans() if span.name == name]
        return found

    def way(self, span: ReadableSpan) -> list[ReadableSpan]:
        by_id = {each.context.span_id: each for each in self.spans()}
        way = [span]
        while way[0].parent is not None:
            assert way[0].parent.trace_id == span.context.trace_id
            way.insert(0, by_id[way[0].parent.span_id])
        return way


@pytest.fixture
def seen() -> Iterator[Seen]:
    with Seen() as made:
        yield made


def test_a_pipeline_leads_to_its_steps_calls_workers_and_requests(sup: dspex.Supervisor, seen: Seen) -> None:
    with FakeLM([{"draft": "a"}, {"answer": "b"}], temperature=0.5) as lm:
        steps = [
            dspex.native("question -> draft", name="write", lm=lm),
            dspex.python("dspy.Predict", signature="draft -> answer", name="judge", lm=lm),
        ]
        dspex.pipeline(steps, name="qa").run({"question": SECRET}, supervisor=sup)
    assert seen.paths() == [
        "pipeline qa",
        "pipeline qa > step judge",
        "pipeline qa > step judge > call dspy.run",
        "pipeline qa > step judge > call dspy.run > worker dspy/0",
        "pipeline qa > step judge > call dspy.run > worker dspy/0 > chat fake",
        "pipeline qa > step write",
        "pipeline qa > step write > chat fake",
    ]
    for request in [span for span in seen.spans() if span.name == "chat fake"]:
        facts = dict(request.attributes or {})
        assert facts["gen_ai.operation.name"] == "chat" and facts["gen_ai.request.model"] == "fake"
        assert facts["gen_ai.provider.name"] == "openai" and facts["gen_ai.request.temperature"] == 0.5
        assert facts["gen_ai.usage.input_tokens"] > 0 and facts["gen_ai.usage.output_tokens"] > 0
        assert facts["dspex.cached"] is False
    assert SECRET not in str([span.to_json() for span in seen.spans()])
    call, worker = seen.one("call dspy.run"), seen.one("worker dspy/0")
    assert call.start_time <= worker.start_time <= worker.end_time <= call.end_time


def test_the_context_crosses_the_socket_and_calls_at_once_are_not_mixed_up(
    sup: dspex.Supervisor, seen: Seen, folder: Path
) -> None:

    tracer = seen.provider.get_tracer("the host's own")
    with Service(sup) as service, dspex.connect(service.path) as client:

        def ask(number: int) -> None:
            with tracer.start_as_current_span(f"web {number}"):
                client.call("faults", "sleep", {"seconds": 0.05})

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    ways = [seen.way(span) for span in seen.spans() if span.name.startswith("worker")]
    assert sorted(way[0].name for way in ways) == [f"web {number}" for number in range(8)]
    assert {way[1].name for way in ways} == {"call faults.sleep"}
    assert {len(way) for way in ways} == {3}


def test_a_traceparent_that_is_none_harms_nobody(sup: dspex.Supervisor, seen: Seen, folder: Path) -> None:
    with Service(sup) as service, dspex.connect(service.path) as client:
        for carried in ("00-zz-zz-01", "x" * 10_000, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(seen.tracing, "carried", lambda carried=carried: carried)
                client.call("faults", "sleep", {"seconds": 0.0})
    assert [span.parent for span in seen.spans() if span.name == "call faults.sleep"] == [None] * 3


def test_an_end_by_an_error_is_in_the_spans_and_its_text_is_not(sup: dspex.Supervisor, seen: Seen) -> None:
    with pytest.raises(dspex.errors.RemoteError):
        sup.call("faults", "raise_error", {"message": SECRET})
    with pytest.raises(CallTimeout):
        sup.call("faults", "sleep", {"seconds": 30.0}, timeout=0.2)
    with pytest.raises(WorkerDied):
        sup.call("faults", "kill")
    found = {
        name: seen.one(f"call faults.{name}").attributes["error.type"] for name in ("raise_error", "sleep", "kill")
    }
    assert found == {"raise_error": "RemoteError", "sleep": "CallTimeout", "kill": "WorkerDied"}
    assert SECRET not in str([span.to_json() for span in seen.spans()])
    eventually(lambda: all(row["is_ready"] for row in sup.health().values()), what="the worker is replaced")


def test_log_records_have_the_ids(sup: dspex.Supervisor, seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="dspex"):
        sup.call("faults", "print", {"text": "hello from there"})

        def said() -> list[Any]:
            return [record for record in caplog.records if "hello from there" in record.getMessage()]

        eventually(lambda: bool(said()), what="the worker's line is logged")
    worker = next(span for span in seen.spans() if span.name.startswith(("worker", "call")))
    assert said()[0].trace_id == f"{worker.context.trace_id:032x}"


def test_prompts_are_there_if_asked_for_and_nothing_is_made_after_the_stop(sup: dspex.Supervisor) -> None:
    with FakeLM(by_field={"answer": "Paris"}) as lm:
        with Seen(capture_prompts=True) as seen:
            dspex.predict("question -> answer", {"question": SECRET}, lm=lm)
            facts = dict(seen.one("chat fake").attributes or {})
            assert SECRET in str(facts["gen_ai.input.messages"]) and "Paris" in str(facts["gen_ai.output.messages"])
        assert spans.source is None
        before = len(seen.exporter.get_finished_spans())
        sup.call("faults", "sleep", {"seconds": 0.0})
        dspex.predict("question -> answer", {"question": "again"}, lm=lm)
        assert len(seen.exporter.get_finished_spans()) == before


def test_streams_end_their_spans_also_when_they_are_left(sup: dspex.Supervisor, seen: Seen) -> None:
    async def read() -> None:
        async with contextlib.aclosing(program.astream(question="q")) as items:
            async for _ in items:
                break
        async for _ in program.astream(question="q"):
            pass

    with FakeLM(by_field={"answer": "one two three four"}) as lm:
        program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup)
        asyncio.run(read())
    assert [span.name for span in seen.spans()] == ["chat fake"] * 2


def test_a_trace_of_a_worker_says_when_its_steps_began(sup: dspex.Supervisor, tmp_path: Path) -> None:
    began = time.time()
    with FakeLM([{"answer": "a"}]) as lm:
        program = dspex.predictor("predict", "question -> answer", lm=lm, supervisor=sup, implementation="python")
        out = program.using(trace=True)(question="q")
    (step,) = out.trace
    assert began <= step.began <= step.began + step.seconds <= time.time()
    out.trace.save(tmp_path / "trace.json")
    assert [event["ph"] for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]] == ["M", "X"]
