"""Process: sessions, real workers, streams, caches and maps: rules P5, P6 and P9."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dspex import EventKind, cache_step, command, native, parallel, pipeline, python
from dspex.errors import PipelineError, SettingsError, UnknownName
from dspex.lm.cache import Cache
from dspex.pipelines.core.results import Status
from dspex.pipelines.core.step_cache import StepStore
from tests.support.pipelines.doubles import NotedSupervisor, Scripted
from tests.support.pipelines.ways import Go
from tests.support.supervisors import Supervise

pytestmark = pytest.mark.usefixtures("no_leaks")


def _remembering(**how: Any) -> Any:
    """Writes to the session's state, then reads it back."""
    return pipeline([
        command("f", "remember", reads=["key", "value"], writes=["pid"], stateful=True, name="keep", **how),
        command("f", "recall", reads=["key"], into="got", stateful=True, name="read"),
    ])  # fmt: skip


def test_a_run_has_a_session_of_its_own_that_is_closed_in_every_pool_it_went_to(go: Go) -> None:
    """unit: P5"""
    sup: Any = NotedSupervisor()
    first, second = Scripted(pool="dspy"), Scripted(pool="mipro", outputs=("other",), actions=[{"other": 1}])
    result = go(pipeline([parallel([python(first), python(second)])]), {"question": "q"}, supervisor=sup)
    sessions = {scope.session for _, scope in (*first.calls, *second.calls)}
    assert sessions == {result.session}
    assert {name: pool.closed for name, pool in sup.pools.items()} == {
        "dspy": [f"local/{result.session}"],
        "mipro": [f"local/{result.session}"],
    }


def test_the_session_is_closed_after_a_failure_too(go: Go) -> None:
    """unit: P5"""
    sup: Any = NotedSupervisor()
    with pytest.raises(PipelineError):
        go(pipeline([python(Scripted(actions=[ValueError("x")]))]), {"question": "q"}, supervisor=sup)
    assert len(sup.pools["fake"].closed) == 1


def test_the_callers_session_stays_open(go: Go) -> None:
    """unit: P5"""
    sup: Any = NotedSupervisor()
    fake = Scripted()
    result = go(pipeline([python(fake)]), {"question": "q"}, supervisor=sup, session="chat-7")
    assert result.session == fake.calls[0][1].session == "chat-7"
    assert sup.pools.get("fake") is None or sup.pools["fake"].closed == []


def test_steps_of_a_run_share_their_workers_state(supervise: Supervise, go: Go) -> None:
    """process: P5, P6"""
    sup = supervise(size=2, concurrency=4)
    result = go(_remembering(), {"key": "k", "value": 7}, supervisor=sup)
    assert result["got"]["value"] == 7
    assert result["got"]["pid"] == result["pid"]
    assert result.steps["keep"].worker == result.steps["read"].worker == result["got"]["worker"]
    assert result.steps["keep"].route == f"python:{result['got']['worker']}"
    assert result.steps["keep"].generation == result["got"]["generation"]
    with pytest.raises(PipelineError, match=r"session key 'k'"):
        go(pipeline([command("f", "recall", key="k", into="got")]), supervisor=sup, session=result.session)


def test_a_named_session_lives_on_between_runs(supervise: Supervise) -> None:
    """process: P5"""
    sup = supervise(size=2, concurrency=4)
    _remembering().run({"key": "k", "value": [1, 2]}, supervisor=sup, session="chat-7")
    later = pipeline([command("f", "recall", reads="key", into="got", stateful=True)])
    assert later.run({"key": "k"}, supervisor=sup, session="chat-7")["got"]["value"] == [1, 2]
    with pytest.raises(PipelineError):
        later.run({"key": "k"}, supervisor=sup, session="chat-8")


def test_fifty_runs_at_once_keep_their_sessions_apart(supervise: Supervise) -> None:
    """process: P5, P9: one pipeline, many threads"""
    sup = supervise(size=2, concurrency=8)
    p = _remembering()
    with ThreadPoolExecutor(50) as threads:
        results = list(threads.map(lambda i: p.run({"key": "k", "value": i}, supervisor=sup), range(50)))
    assert [result["got"]["value"] for result in results] == list(range(50))
    assert len({result.session for result in results}) == 50

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(p.arun({"key": "k", "value": i}, supervisor=sup) for i in range(50)))

    assert [result["got"]["value"] for result in asyncio.run(all_at_once())] == list(range(50))


def test_a_worker_killed_during_a_step_is_replaced_and_the_step_says_so(
    supervise: Supervise, go: Go, tmp_path: Path
) -> None:
    """process: P7: each attempt ran once, and no more often than `retry` allows"""
    sup = supervise(size=2, concurrency=1)
    marks = tmp_path / "marks"

    def body(inputs: Any, scope: Any) -> dict[str, Any]:
        pool = sup.pool("f")
        options = {"session": scope.key, "timeout": scope.timeout, "idempotent": scope.idempotent}
        pool.call("effect", {"path": str(marks), "token": "began"}, **options)
        if len(fake.calls) == 1:
            pool.call("kill", {}, **options)
        return {"answer": "survived"}

    fake = Scripted(inputs=(), pool="f", actions=[body])
    result = go(pipeline([python(fake, name="s")]), supervisor=sup)
    assert result["answer"] == "survived"
    assert (result.steps["s"].attempts, result.steps["s"].reason) == (2, "tried again after WorkerDied")
    assert marks.read_text().splitlines() == ["began", "began"]


def test_a_command_that_dies_is_tried_again_only_with_retry(supervise: Supervise, go: Go) -> None:
    """process: P7"""
    sup = supervise(size=1, concurrency=1, restart_budget=(50, 30.0))
    with pytest.raises(PipelineError) as caught:
        go(pipeline([command("f", "kill", into="x", name="k")]), supervisor=sup)
    assert caught.value.result.steps["k"].attempts == 1
    with pytest.raises(PipelineError) as caught:
        go(pipeline([command("f", "kill", into="x", name="k", retry=1)]), supervisor=sup)
    assert caught.value.result.steps["k"].attempts == 2
    assert [type(cause).__name__ for cause in caught.value.causes] == ["WorkerDied", "WorkerDied"]


def test_a_failing_branch_cancels_the_call_of_its_sibling(supervise: Supervise, go: Go) -> None:
    """process: P4, K1"""
    sup = supervise(size=1, concurrency=2, cancel_grace=5.0)
    has_begun = threading.Event()

    def fails() -> None:
        while not sup.stats()["f"]["in_flight"] and not has_begun.wait(0.005):
            pass
        raise ValueError("no")

    p = pipeline([parallel([command("f", "spin", seconds=20.0, into="n"), native(fails)])])
    with pytest.raises(PipelineError) as caught:
        go(p, supervisor=sup)
    assert [type(cause) for cause in caught.value.causes] == [ValueError]
    assert sup.call("f", "echo", {"x": 1}, timeout=10) == {"x": 1}


def test_an_unknown_pool_fails_the_step_with_the_near_names(supervise: Supervise) -> None:
    """process"""
    sup = supervise(size=1)
    with pytest.raises(PipelineError) as caught:
        pipeline([command("ff", "echo", into="x")]).run(supervisor=sup)
    assert isinstance(caught.value.causes[0], UnknownName)


def test_a_stream_tells_of_each_step_and_ends_with_the_result() -> None:
    """unit"""

    def reports(_: Any, scope: Any) -> dict[str, Any]:
        scope.on_progress({"trial": 1})
        return {"answer": 2}

    def fails() -> None:
        raise ValueError("x")

    sup: Any = NotedSupervisor()
    p = pipeline([python(Scripted(inputs=(), actions=[reports]), name="a"), native(fails, name="b", when="go")])
    events = list(p.stream(supervisor=sup))
    assert [(event.kind.value, event.step) for event in events] == [
        ("run_started", ""), ("step_started", "a"), ("step_progressed", "a"), ("step_finished", "a"),
        ("step_skipped", "b"), ("run_finished", ""),
    ]  # fmt: skip
    assert events[2].facts == {"trial": 1}
    assert events[3].record is not None
    assert events[3].record.wrote == ("answer",)

    async def failing() -> list[Any]:
        seen: list[Any] = []
        events = p.astream({"go": 1}, supervisor=sup)
        with pytest.raises(PipelineError):
            while True:
                seen.append(await anext(events))
        return seen

    last = asyncio.run(failing())[-1]
    assert (last.kind, last.step, str(last.error)) == (EventKind.STEP_FAILED, "b", "x")


def test_leaving_an_async_stream_cancels_and_waits_for_the_run() -> None:
    """unit"""
    ended = threading.Event()

    async def body() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    async def leave() -> None:
        async with pipeline([native(body)]).astream() as events:
            async for event in events:
                if event.kind is EventKind.STEP_STARTED:
                    break

    asyncio.run(leave())
    assert ended.is_set()


def test_a_cache_step_serves_what_the_steps_before_it_wrote(go: Go) -> None:
    """unit: and later steps still run"""
    runs: list[str] = []

    def work(question: str) -> dict[str, Any]:
        runs.append(question)
        return {"answer": [question]}

    p = pipeline([native(work), native(Cache, ttl=3600), native(lambda answer: answer[0] + "!", into="loud")])
    first, again, other = (go(p, {"question": q, "noise": n}) for n, q in enumerate("aab"))
    assert [first["loud"], again["loud"], other["loud"]] == ["a!", "a!", "b!"]
    assert runs == ["a", "b"]
    assert again.steps["work"].status is Status.KEPT
    assert (again.steps["cache"].route, again.steps["cache"].wrote) == ("cache", ("answer",))
    again["answer"].append("spoilt")
    assert go(p, {"question": "a"})["answer"] == ["a"]


def test_a_cache_step_keeps_neither_fallbacks_nor_opaque_inputs(go: Go) -> None:
    """unit"""
    runs: list[int] = []

    def fails(x: Any) -> dict[str, int]:
        runs.append(1)
        raise ValueError("down")

    p = pipeline([native(fails, fallback=lambda: {"a": 0}), cache_step(ttl=60)])
    assert go(p, {"x": 1})["a"] == go(p, {"x": 1})["a"] == 0
    assert len(runs) == 2

    def count(x: Any) -> dict[str, int]:
        runs.append(1)
        return {"n": len(runs)}

    opaque = pipeline([native(count), cache_step(ttl=60)])
    assert go(opaque, {"x": object()})["n"] != go(opaque, {"x": object()})["n"]
    keyed = pipeline([native(count), cache_step(ttl=60)])
    assert go(keyed, {"x": 1})["n"] != go(keyed, {"x": True})["n"], "1 and True are two inputs"


def test_what_is_kept_ends_with_its_ttl_and_its_place() -> None:
    """unit"""
    now = 0.0
    kept = StepStore(10.0, 2, clock=lambda: now)
    kept.put(b"a", {"x": 1})
    now = 9.9
    assert kept.get(b"a") == {"x": 1}
    kept.put(b"b", {"x": 2})
    kept.get(b"a")
    kept.put(b"c", {"x": 3})
    assert kept.get(b"b") is None, "the least recently used goes"
    now = 10.0
    assert kept.get(b"a") is None
    assert kept.get(b"c") == {"x": 3}


def test_a_cache_step_stands_only_where_it_can_keep_something() -> None:
    """unit"""
    for make in (
        lambda: pipeline([cache_step(ttl=1)]),
        lambda: pipeline([parallel([native(lambda: {"a": 1}), cache_step(ttl=1)])]),
        lambda: pipeline([python(Scripted(is_stateful=True)), cache_step(ttl=1)]),
        lambda: cache_step(ttl=0),
        lambda: native(Cache, ttl=1, into="x"),
    ):
        with pytest.raises(SettingsError):
            make()


def test_a_pipeline_inside_another_shares_its_session_and_keeps_its_own_cache() -> None:
    """unit: P5"""
    sup: Any = NotedSupervisor()
    fake = Scripted()
    inner = pipeline([python(fake), cache_step(ttl=60)], name="inner")
    outer = pipeline([inner, native(lambda answer: answer + "!", into="loud")])
    result = outer.run({"question": "q"}, supervisor=sup)
    assert result["loud"] == "yes!"
    assert fake.calls[0][1].session == result.session
    assert outer.run({"question": "q"}, supervisor=sup).steps["inner"].children[0].status is Status.KEPT
    assert len(fake.calls) == 1


def test_map_keeps_the_rows_in_order_and_errors_in_their_row() -> None:
    """unit"""
    p = pipeline([native(lambda x: 10 // x, into="y")])
    rows = list(p.map([{"x": 1}, {"x": 0}, {"x": 5}], max_in_flight=2))
    assert [row.value["y"] if row.error is None else type(row.error).__name__ for row in rows] == [
        10, "PipelineError", 2,
    ]  # fmt: skip

    async def amapped() -> list[Any]:
        return [row.value["y"] async for row in p.amap([{"x": 2}, {"x": 5}])]

    assert asyncio.run(amapped()) == [5, 2]
    assert p(x=5)["y"] == 2


def test_a_pipeline_is_immutable() -> None:
    """unit: P9"""
    p = pipeline([native(lambda x: x, into="y")])
    with pytest.raises(AttributeError, match="immutable"):
        p.steps = ()
    with pytest.raises(AttributeError):
        p.steps[0].into = "z"  # type: ignore[misc]
