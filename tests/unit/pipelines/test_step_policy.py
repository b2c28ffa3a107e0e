"""Unit: when, attempts, timeouts, fallbacks and cancellation: rule P7, in the four ways to run."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from typing import Any

import pytest

from dspex import native, parallel, pipeline, python
from dspex.errors import CallCancelled, InvalidInput, PipelineError, StepTimeout, WorkerDied
from dspex.pipelines.core.results import Status
from tests.support.pipelines.doubles import NotedSupervisor, Scripted, Waiting, died
from tests.support.pipelines.ways import Go

SUP: Any = NotedSupervisor()


def _step(*actions: Any, may_repeat: bool = True, is_stateful: bool = False) -> Scripted:
    return Scripted(inputs=(), actions=list(actions), may_repeat=may_repeat, is_stateful=is_stateful)


def test_when_decides_first_and_a_skipped_step_writes_nothing(go: Go) -> None:
    """unit: P7"""
    fake = _step(ValueError("never"))
    p = pipeline([python(fake, when=lambda go: go, fallback=lambda: {"answer": "fb"}, name="s")])
    result = go(p, {"go": False}, supervisor=SUP)
    assert fake.calls == []
    assert "answer" not in result
    assert (result.steps["s"].status, result.steps["s"].attempts) == (Status.SKIPPED, 0)
    assert go(p, {"go": True}, supervisor=SUP)["answer"] == "fb"


def test_when_takes_a_name_or_an_async_function(go: Go) -> None:
    """unit: P7"""

    async def wanted(x: int) -> bool:
        return x > 1

    p = pipeline([native(lambda: 1, into="a", when="flag"), native(lambda: 2, into="b", when=wanted)])
    assert dict(go(p, {"x": 1}).state) == {"x": 1}
    assert dict(go(p, {"x": 2, "flag": "yes"}).state) == {"x": 2, "flag": "yes", "a": 1, "b": 2}


def test_a_condition_that_raises_fails_its_step(go: Go) -> None:
    """unit: P7"""

    def broken() -> bool:
        raise KeyError("x")

    with pytest.raises(PipelineError) as caught:
        go(pipeline([native(lambda: 1, into="a", when=broken, fallback=lambda: 2, name="s")]))
    assert caught.value.step == "s"
    assert isinstance(caught.value.causes[0], KeyError)


def test_a_worker_that_dies_is_tried_once_more_by_default(go: Go) -> None:
    """unit: P7"""
    fake = _step(died(), {"answer": "ok"})
    result = go(pipeline([python(fake, name="s")]), supervisor=SUP)
    step = result.steps["s"]
    assert (step.attempts, step.generation, step.reason) == (2, 2, "tried again after WorkerDied")
    assert [type(error) for error in step.errors] == [WorkerDied]
    with pytest.raises(PipelineError) as caught:
        go(pipeline([python(_step(died(), died(), {"answer": "third"}))]), supervisor=SUP)
    assert [type(cause) for cause in caught.value.causes] == [WorkerDied, WorkerDied]


@pytest.mark.parametrize("flags", [{"may_repeat": False}, {"is_stateful": True}])
def test_steps_with_users_code_or_state_are_not_tried_again_by_default(go: Go, flags: dict[str, bool]) -> None:
    """unit: P7"""
    fake = _step(died(), {"answer": "ok"}, **flags)
    with pytest.raises(PipelineError):
        go(pipeline([python(fake)]), supervisor=SUP)
    assert len(fake.calls) == 1


def test_other_errors_are_tried_again_only_with_retry(go: Go) -> None:
    """unit: P7"""
    fake = _step(ValueError("a"), {"answer": "ok"})
    with pytest.raises(PipelineError):
        go(pipeline([python(fake)]), supervisor=SUP)
    assert len(fake.calls) == 1
    again = _step(ValueError("a"), died(), {"answer": "ok"})
    assert go(pipeline([python(again, retry=2)]), supervisor=SUP).steps[0].attempts == 3
    never = _step(InvalidInput("wrong"), {"answer": "ok"})
    with pytest.raises(PipelineError):
        go(pipeline([python(never, retry=5)]), supervisor=SUP)
    assert len(never.calls) == 1, "what is wrong with the call stays wrong"


def test_native_steps_are_tried_once_unless_retry_says_more(go: Go) -> None:
    """unit: P7"""
    runs: list[int] = []

    def flaky() -> dict[str, int]:
        runs.append(1)
        if len(runs) < 3:
            raise OSError("flaky")
        return {"n": len(runs)}

    with pytest.raises(PipelineError):
        go(pipeline([native(flaky)]))
    assert go(pipeline([native(flaky, retry=1)]))["n"] == 3


def test_the_attempts_are_the_whole_number_of_runs(go: Go) -> None:
    """unit: P7: the pool is not asked to try again by itself, or one attempt would be two runs"""
    fake = _step(died(), {"answer": "ok"})
    go(pipeline([python(fake, retry=3)]), supervisor=SUP)
    assert [scope.idempotent for _, scope in fake.calls] == [False, False]


def test_the_timeout_bounds_all_attempts_together(go: Go) -> None:
    """unit: P7"""

    def slow(_: Any, scope: Any) -> Any:
        if len(fake.calls) == 3:
            threading.Event().wait(scope.timeout)
        raise died()

    fake = _step(slow)
    with pytest.raises(PipelineError):
        go(pipeline([python(fake, retry=1000, timeout=1.0)]), supervisor=SUP)
    lefts = [scope.timeout for _, scope in fake.calls]
    assert len(lefts) == 3
    assert lefts == sorted(lefts, reverse=True)
    assert lefts[0] <= 1.0


def test_without_a_timeout_the_pools_own_holds(go: Go) -> None:
    """unit: P7"""
    fake = _step({"answer": 1})
    go(pipeline([python(fake)]), supervisor=SUP)
    go(pipeline([python(fake, timeout=math.inf)]), supervisor=SUP)
    go(pipeline([python(fake)]), supervisor=SUP, timeout=60)
    first, second, third = (scope.timeout for _, scope in fake.calls)
    assert first is None
    assert second == math.inf
    assert 50 < third <= 60


def test_a_native_step_that_takes_too_long_is_left_behind(go: Go) -> None:
    """unit: P7"""
    release = threading.Event()

    async def forever() -> None:
        await asyncio.sleep(60)

    try:
        for body in (lambda: release.wait(30), forever):
            began = time.monotonic()
            with pytest.raises(PipelineError, match=r"timeout of 0.05 s") as caught:
                go(pipeline([native(body, timeout=0.05, into="x", name="slow")]))
            assert time.monotonic() - began < 5
            [cause] = caught.value.causes
            assert isinstance(cause, StepTimeout)
            assert (cause.step, cause.timeout, cause.whose) == ("slow", 0.05, "step")
    finally:
        release.set()


def test_the_runs_timeout_ends_the_step_that_it_finds_and_no_fallback_runs(go: Go) -> None:
    """unit: P7"""
    release = threading.Event()
    try:
        p = pipeline([native(lambda: 1, into="a"), native(lambda: release.wait(30), into="b", fallback=lambda: 3)])
        with pytest.raises(PipelineError) as caught:
            go(p, timeout=0.1)
    finally:
        release.set()
    [cause] = caught.value.causes
    assert isinstance(cause, StepTimeout)
    assert (cause.whose, cause.timeout) == ("run", 0.1)
    assert dict(caught.value.result.state) == {"a": 1}


def test_a_timeout_of_the_steps_own_is_an_error_like_any(go: Go) -> None:
    """unit"""

    def raises() -> None:
        raise TimeoutError("mine")

    with pytest.raises(PipelineError) as caught:
        go(pipeline([native(raises, timeout=30)]))
    assert type(caught.value.causes[0]) is TimeoutError


def test_the_fallback_sees_the_error_and_stands_in(go: Go) -> None:
    """unit: P7: after the attempts"""
    fake = _step(died(), died())
    p = pipeline([python(fake, name="s", fallback=lambda error, q: {"answer": f"{type(error).__name__} {q}"})])
    result = go(p, {"q": 1}, supervisor=SUP)
    assert result["answer"] == "WorkerDied 1"
    assert "error" not in result
    step = result.steps["s"]
    assert (step.status, step.attempts, step.reason) == (Status.FELL_BACK, 2, "fell back after WorkerDied")
    assert step.children[0].name == "s fallback"
    assert p.optional_inputs == ("q",)


def test_the_fallbacks_value_goes_where_the_steps_would(go: Go) -> None:
    """unit: P7"""

    def fails() -> str:
        raise ValueError("x")

    assert go(pipeline([native(fails, into="a", fallback=lambda: "b")]))["a"] == "b"
    branches = [native(fails, fallback=lambda: "b"), native(lambda: "c")]
    assert go(pipeline([parallel(branches, into="all")]))["all"] == ["b", "c"]
    dspy_reads = Scripted(inputs=("error",), actions=[lambda inputs, _: {"answer": inputs["error"]}])
    result = go(pipeline([native(fails, into="a", fallback=python(dspy_reads, into="b"))]), supervisor=SUP)
    assert result["b"] == {"answer": "ValueError: x"}


def test_a_fallback_that_fails_too_adds_its_cause(go: Go) -> None:
    """unit: P7"""

    def fails() -> None:
        raise ValueError("first")

    def fails_too(error: Exception) -> None:
        raise LookupError("second")

    with pytest.raises(PipelineError, match=r"1 more failure in causes") as caught:
        go(pipeline([native(fails, fallback=fails_too, name="s")]))
    assert [str(cause) for cause in caught.value.causes] == ["first", "second"]
    assert caught.value.step == "s"
    assert caught.value.__cause__ is caught.value.causes[0]


def test_a_composite_has_a_policy_like_any_step(go: Go) -> None:
    """unit: P7"""

    def fails() -> None:
        raise ValueError("x")

    p = pipeline([parallel([native(fails), native(lambda: 1)], into="all", fallback=lambda error: [str(error)])])
    assert go(p)["all"] == ["x"]
    release = threading.Event()
    try:
        slow = parallel([native(lambda: release.wait(30)), native(lambda: 1)], into="x", timeout=0.05, cancel_grace=0.0)
        with pytest.raises(PipelineError) as caught:
            go(pipeline([slow]))
    finally:
        release.set()
    assert isinstance(caught.value.causes[0], StepTimeout)


def test_cancellation_is_neither_tried_again_nor_caught(go: Go) -> None:
    """unit: P7"""
    fake = _step(CallCancelled("gone"), {"answer": "ok"})
    with pytest.raises(CallCancelled):
        go(pipeline([python(fake, retry=3, fallback=lambda: {"answer": "fb"})]), supervisor=SUP)
    assert len(fake.calls) == 1


def test_cancelling_the_task_cancels_the_step_and_closes_the_session() -> None:
    """unit: P5, P7"""
    began, ended = threading.Event(), threading.Event()

    class Pooled(Scripted):
        async def arun(self, inputs: Any, scope: Any) -> Any:
            began.set()
            try:
                await asyncio.sleep(30)
            finally:
                ended.set()

    sup: Any = NotedSupervisor()
    p = pipeline([python(Pooled(inputs=()), retry=3, fallback=lambda: 1)])

    async def cancelled() -> None:
        task = asyncio.create_task(p.arun(supervisor=sup))
        await asyncio.to_thread(began.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert ended.is_set()
    assert len(sup.pools["fake"].closed) == 1


def test_closing_the_stream_cancels_the_run() -> None:
    """unit: P7"""
    waiting = Waiting()
    p = pipeline([python(Scripted(inputs=(), actions=[waiting]), retry=2, fallback=lambda: 1)])
    with p.stream(supervisor=SUP) as events:
        assert next(events).kind == "run_started"
        assert waiting.has_begun.wait(10)
    assert waiting.was_cancelled.wait(10)


def test_dropping_the_stream_cancels_the_run() -> None:
    """unit: C11"""
    waiting = Waiting()
    events = pipeline([python(Scripted(inputs=(), actions=[waiting]))]).stream(supervisor=SUP)
    next(events)
    assert waiting.has_begun.wait(10)
    del events
    assert waiting.was_cancelled.wait(10)


def test_the_message_holds_no_traceback_and_one_line_of_the_cause(go: Go) -> None:
    """unit"""

    def fails() -> None:
        raise ValueError("x" * 1000 + "\nsecond line")

    with pytest.raises(PipelineError) as caught:
        go(pipeline([native(fails)], name="mine"))
    text = str(caught.value)
    assert text.startswith("Step 'fails' (number 0 of 0 to 0) of pipeline 'mine' failed: ValueError: xxx")
    assert len(text) < 500
    assert "second" not in text
