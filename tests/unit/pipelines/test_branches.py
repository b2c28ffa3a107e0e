"""Unit: branches: rules P3 and P4, in the four ways to run."""

from __future__ import annotations

import asyncio
import threading
import time
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspex import conditional, map_each, native, parallel, pipeline, python
from dspex.errors import CallCancelled, InvalidInput, KeyClash, PipelineError, SettingsError
from dspex.pipelines.core.results import Status
from tests.support.pipelines.doubles import NotedSupervisor, Scripted, Waiting
from tests.support.pipelines.ways import Go

SUP: Any = NotedSupervisor()


def test_branches_run_at_the_same_time_on_the_same_state(go: Go) -> None:
    """unit: P3"""
    meeting = threading.Barrier(3, timeout=10)

    def branch(key: str) -> Any:
        def body(x: int) -> dict[str, int]:
            meeting.wait()
            return {key: x + 1}

        return native(body, name=key)

    p = pipeline([parallel([branch("a"), branch("b"), branch("c")])])
    assert dict(go(p, {"x": 1}).state) == {"x": 1, "a": 2, "b": 2, "c": 2}


def test_declared_writes_that_overlap_fail_when_the_pipeline_is_made() -> None:
    """unit: P3"""
    step = parallel([native(lambda: {"a": 1}, writes=["a", "b"]), native(lambda: 1, into="b")])
    with pytest.raises(KeyClash, match="'b'") as caught:
        pipeline([step])
    assert caught.value.keys == ("b",)
    with pytest.raises(KeyClash):
        pipeline([parallel([python(Scripted()), python(Scripted())])])


def test_undeclared_writes_that_overlap_fail_before_anything_is_merged(go: Go) -> None:
    """unit: P3"""
    p = pipeline([parallel([native(lambda: {"a": 1, "x": 1}), native(lambda: {"b": 2, "x": 2})])])
    with pytest.raises(PipelineError) as caught:
        go(p)
    [cause] = caught.value.causes
    assert isinstance(cause, KeyClash)
    assert cause.keys == ("x",)
    assert dict(caught.value.result.state) == {}


def test_into_collects_the_branches_values_in_their_order(go: Go) -> None:
    """unit: P3, nothing can clash"""
    first_may_go = threading.Event()

    def slow() -> str:
        assert first_may_go.wait(10)
        return "slow"

    def quick() -> dict[str, int]:
        first_may_go.set()
        return {"x": 1}

    steps = [native(slow), native(quick), native(lambda: {"x": 2}), native(lambda: "own", into="x")]
    retriever = python(Scripted(inputs=(), outputs=(), actions=[{"passages": ["d"]}]))
    result = go(pipeline([parallel([*steps, retriever], into="evidence")]), {}, supervisor=SUP)
    assert result["evidence"] == ["slow", {"x": 1}, {"x": 2}, "own", ["d"]]
    assert set(result.state) == {"evidence"}


def test_the_first_failure_cancels_the_siblings_and_all_failures_are_causes(go: Go) -> None:
    """unit: P4, K1"""
    waiting = Waiting()
    asked = threading.Event()

    async def sleeper() -> None:
        asked.set()
        await asyncio.sleep(30)

    def fails() -> None:
        assert waiting.has_begun.wait(10)
        assert asked.wait(10)
        raise ValueError("no luck")

    class Pooled(Scripted):
        async def arun(self, inputs: Any, scope: Any) -> Any:  # as a call to a pool: its task's cancel reaches it
            waiting.has_begun.set()
            try:
                await asyncio.sleep(30)
            finally:
                waiting.was_cancelled.set()

    p = pipeline([
        native(lambda: 1, into="before"),
        parallel([python(Pooled(actions=[waiting], inputs=())), native(sleeper), native(fails, name="bad")], into="x"),
    ])  # fmt: skip
    began = time.monotonic()
    with pytest.raises(PipelineError, match=r"'bad'.*number 1 of 0 to 1.*no luck") as caught:
        go(p, {}, supervisor=SUP)
    assert time.monotonic() - began < 10
    assert waiting.was_cancelled.wait(10)
    assert caught.value.step == "bad"
    assert [type(cause) for cause in caught.value.causes] == [ValueError]
    assert dict(caught.value.result.state) == {"before": 1}
    children = caught.value.result.steps["parallel"].children
    assert [child.status for child in children] == [Status.CANCELLED, Status.CANCELLED, Status.FAILED]


def test_failures_of_several_branches_come_in_the_order_of_time(go: Go) -> None:
    """unit: P4"""
    both = threading.Barrier(2, timeout=10)
    second_may_fail = threading.Event()

    def first() -> None:
        both.wait()
        threading.Timer(0.05, second_may_fail.set).start()
        raise ValueError("first")

    def second() -> None:
        both.wait()
        assert second_may_fail.wait(10)
        raise LookupError("second")

    with pytest.raises(PipelineError) as caught:
        go(pipeline([parallel([native(second), native(first)], into="x")]))
    assert str(caught.value.causes[0]) == "first"


def test_a_branch_that_does_not_end_is_left_after_the_grace(go: Go) -> None:
    """unit: P4"""
    release = threading.Event()
    has_begun = threading.Event()

    def stubborn() -> None:
        has_begun.set()
        release.wait(30)

    def fails() -> None:
        assert has_begun.wait(10)
        raise ValueError("no")

    began = time.monotonic()
    try:
        with pytest.raises(PipelineError):
            go(pipeline([parallel([native(stubborn), native(fails)], into="x", cancel_grace=0.1)]))
        assert time.monotonic() - began < 5
    finally:
        release.set()


def test_branches_see_the_callers_contextvars(go: Go) -> None:
    """unit"""
    who: ContextVar[str] = ContextVar("who", default="nobody")

    async def later() -> str:
        return who.get()

    token = who.set("ann")
    try:
        result = go(
            pipeline(
                [parallel([native(lambda: who.get()), native(later)], into="x"), native(lambda: who.get(), into="y")]
            )
        )
    finally:
        who.reset(token)
    assert (result["x"], result["y"]) == (["ann", "ann"], "ann")


def test_no_more_branches_run_at_once_than_max_in_flight(go: Go) -> None:
    """unit"""
    lock = threading.Lock()
    running, most = 0, 0

    def body() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.01)
        with lock:
            running -= 1

    go(pipeline([parallel([native(body) for _ in range(9)], into="x", max_in_flight=3)]))
    assert most == 3


def test_lists_and_pipelines_are_branches_of_several_steps(go: Go) -> None:
    """unit"""
    inner = pipeline([native(lambda x: x + 1, into="y"), native(lambda y: y * 2, into="z")], name="inner")
    p = pipeline([parallel([inner, [native(lambda x: x - 1, into="w")]]), native(lambda z, w: z + w, into="sum")])
    assert p.inputs == ("x",)
    result = go(p, {"x": 5})
    assert dict(result.state) == {"x": 5, "y": 6, "z": 12, "w": 4, "sum": 16}
    assert [child.name for child in result.steps["inner"].children] == ["step", "step_2"]


def test_an_inner_failure_names_the_innermost_step(go: Go) -> None:
    """unit: P4"""

    def bad(x: int) -> None:
        raise RuntimeError("deep")

    inner = pipeline([native(lambda x: 1, into="y"), native(bad)], name="inner")
    with pytest.raises(PipelineError, match=r"Step 'bad' \(number 0 of 0 to 0, in 'parallel'\).*deep") as caught:
        go(pipeline([parallel([inner])]), {"x": 1})
    assert caught.value.result.steps["inner"].children[0].status is Status.DONE


def test_conditional_takes_the_one_or_the_other(go: Go) -> None:
    """unit"""
    p = pipeline([conditional(lambda n: n > 0, native(lambda: "pos", into="s"), native(lambda: "neg", into="s"))])
    assert p.inputs == ("n",)
    assert go(p, {"n": 1})["s"] == "pos"
    assert go(p, {"n": -1})["s"] == "neg"
    alone = pipeline(
        [conditional(lambda n: n > 0, native(lambda: "pos", into="s")), native(lambda s="no": s, into="t")]
    )
    assert go(alone, {"n": 0})["t"] == "no"
    assert "did not hold" in go(alone, {"n": 0}).steps["conditional"].reason


def test_map_each_keeps_the_items_order(go: Go) -> None:
    """unit"""
    p = pipeline([map_each("words", native(lambda item, by: item * by), into="out", max_in_flight=2)])
    assert p.inputs == ("words",)
    assert p.optional_inputs == ("by",)
    result = go(p, {"words": ["a", "b", "c"], "by": 2})
    assert result["out"] == ["aa", "bb", "cc"]
    assert [child.name for child in result.steps[0].children] == ["step[0]", "step[1]", "step[2]"]
    assert go(p, {"words": [], "by": 2})["out"] == []
    with pytest.raises(PipelineError) as caught:
        go(p, {"words": "abc", "by": 2})
    assert isinstance(caught.value.causes[0], InvalidInput)


def test_system_exit_in_a_branch_is_the_callers_to_see() -> None:
    """unit"""

    def leaves() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        pipeline([parallel([native(leaves), native(lambda: 1)], into="x")]).run()


def test_cancellation_of_a_branch_is_no_failure_of_a_step() -> None:
    """unit: P7"""
    p = pipeline([parallel([python(Scripted(actions=[CallCancelled("gone")], inputs=()))], into="x")])
    with pytest.raises(CallCancelled):
        p.run({}, supervisor=SUP)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9), max_size=3), min_size=1, max_size=5),
    order=st.randoms(use_true_random=False),
    is_async=st.booleans(),
)
def test_merging_does_not_depend_on_which_branch_ends_first(shape: Any, order: Any, is_async: bool) -> None:
    """unit: P3, property: branches end in a random order; the outcome is that of the writes alone"""
    turns = list(range(len(shape)))
    order.shuffle(turns)
    gates = [threading.Event() for _ in shape]
    gates[turns[0]].set()

    def branch(index: int, writes: dict[str, int]) -> Any:
        def body() -> dict[str, int]:
            assert gates[index].wait(10)
            place = turns.index(index)
            if place + 1 < len(turns):
                gates[turns[place + 1]].set()
            return writes

        return native(body, name=f"b{index}")

    p = pipeline([parallel([branch(i, writes) for i, writes in enumerate(shape)])])
    names = [name for writes in shape for name in writes]
    try:
        result = asyncio.run(p.arun()) if is_async else p.run()
    except PipelineError as error:
        [cause] = error.causes
        assert isinstance(cause, KeyClash)
        assert set(cause.keys) == {name for name in names if names.count(name) > 1}
        assert dict(error.result.state) == {}
    else:
        assert len(set(names)) == len(names)
        expected = {name: value for writes in shape for name, value in writes.items()}
        assert list(result.state.items()) == list(expected.items())


def test_branch_that_is_cancelled_by_itself_cancels_the_run() -> None:
    """collaboration (P7): something that it awaited was cancelled; that is no defect of the step, on either way"""

    async def gives_up(x: int) -> dict[str, int]:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task
        return {"y": x}

    line = pipeline([parallel([gives_up, lambda x: {"z": x}])])
    with pytest.raises(CallCancelled):
        line.run({"x": 1})
    with pytest.raises(CallCancelled):
        asyncio.run(line.arun({"x": 1}))


@pytest.mark.parametrize("bad", ["soon", -1, float("nan"), True])
def test_values_that_cannot_be_are_refused_before_anything_runs(bad: Any) -> None:
    """unit: whatever takes a span or a number of places says so"""
    line = pipeline([lambda x: {"y": x}])
    with pytest.raises(InvalidInput):
        line.run({"x": 1}, timeout=bad)
    with pytest.raises(SettingsError):
        parallel([lambda x: {"y": x}], cancel_grace=bad)
    with pytest.raises(ValueError, match="max_in_flight"):
        list(line.map([{"x": 1}], max_in_flight=bad))  # nan: no thread would ever start
