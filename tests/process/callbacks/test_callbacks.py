"""Process: what workers ask of the host (tools, metrics), and calls made from inside such a tool (RULES C14)."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from dspex.config import PoolConfig
from dspex.errors import (
    BudgetExceeded,
    CallTimeout,
    DspexError,
    EncodeError,
    LMAuthError,
    RemoteError,
    SessionLost,
    UnsafeInput,
    WouldDeadlock,
)
from dspex.pools import tool_threads
from dspex.pools.supervisor import Supervisor
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, Gate, all_ready, eventually, late, pids

marker: contextvars.ContextVar[str] = contextvars.ContextVar("marker", default="unset")


def ask(name: str, **arguments: Any) -> tuple[str, str, dict[str, Any]]:
    return "f", "ask", {"name": name, "arguments": arguments}


def test_a_tool_answers(supervise: Supervise) -> None:
    """Process: arguments go to the host, the result comes back."""
    sup = supervise(size=1)
    sup.register("add", lambda request: request.arguments["a"] + request.arguments["b"])
    assert sup.call(*ask("add", a=2, b=3)) == 5


def test_a_tool_runs_in_the_callers_context_on_another_thread(supervise: Supervise) -> None:
    """Process (C14): contextvars of the caller, never its thread nor the engine's."""
    sup = supervise(size=1)
    sup.register("where", lambda request: [marker.get(), threading.current_thread().name])
    marker.set("of the caller")
    context, thread = sup.call(*ask("where"))
    assert context == "of the caller"
    assert thread not in (threading.current_thread().name, "dspex-engine")


def test_an_asynchronous_tool_answers(supervise: Supervise) -> None:
    """Process: coroutines run on a loop of ours, in the caller's context."""
    sup = supervise(size=1)

    async def tool(request: Any) -> str:
        await asyncio.sleep(0)
        return marker.get()

    sup.register("tool", tool)
    marker.set("async")
    assert sup.call(*ask("tool")) == "async"


def test_a_streaming_tool_is_passed_on(supervise: Supervise) -> None:
    """Process: an async generator's chunks, more than the credit, in order."""
    sup = supervise(size=1)

    async def tool(request: Any) -> Any:
        for n in range(200):
            yield n

    sup.register("tool", tool)
    assert list(sup.stream("f", "ask_stream", {"name": "tool", "arguments": {}})) == list(range(200))


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, RecursionError])
def test_whatever_a_tool_raises_reaches_the_caller(supervise: Supervise, kind: type[BaseException]) -> None:
    """Process: the worker sees a Failure of that class; the tool thread lives on."""
    sup = supervise(size=1)

    def tool(request: Any) -> None:
        raise kind("by the tool")

    sup.register("tool", tool)
    for _ in range(3):
        with pytest.raises(RemoteError) as caught:
            sup.call(*ask("tool"))
        assert caught.value.type == kind.__name__
        assert "by the tool" in caught.value.message


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        BudgetExceeded("job", spent=2.0, limit=1.0, unit="USD"),
        UnsafeInput("a marker", field="question"),
        WouldDeadlock("it could only wait for itself"),
        EncodeError("$.x", "set"),
        SessionLost(pool="f", session="s", reason="died", generation=3),
        CallTimeout("f", "sleep", timeout=1.0, phase="queued"),
        LMAuthError("refused", model="m", status=401),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_ours_comes_out_as_it_was_raised(supervise: Supervise, error: DspexError, is_async: bool) -> None:
    """Process: through the worker and back, the very exception, with all its facts."""
    sup = supervise(size=1)

    def tool(request: Any) -> None:
        raise error

    async def atool(request: Any) -> None:
        raise error

    sup.register("tool", atool if is_async else tool)
    with pytest.raises(type(error)) as caught:
        sup.call(*ask("tool"))
    assert caught.value is error


def test_an_unknown_handler_is_an_error_of_the_call(supervise: Supervise) -> None:
    """Process: the worker learns that nobody answers."""
    sup = supervise(size=1)
    with pytest.raises(Exception, match="handler"):
        sup.call(*ask("nobody"))


def test_a_tools_result_must_be_sendable(supervise: Supervise) -> None:
    """Process: a value without an exact form is an error of the call."""
    sup = supervise(size=1)
    sup.register("tool", lambda request: {1, 2})
    with pytest.raises(Exception, match="set"):
        sup.call(*ask("tool"))


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_tool_may_call_its_own_full_pool(supervise: Supervise, concurrency: int) -> None:
    """Process (C14): all slots are taken by calls whose tools call the pool again: they run nested, nobody waits."""
    sup = supervise(size=1, concurrency=concurrency)
    barrier = threading.Barrier(concurrency)

    def tool(request: Any) -> Any:
        barrier.wait(20)
        return sup.call("f", "echo", {"nested": request.arguments["n"]}, timeout=20)

    sup.register("tool", tool)
    callers = [Caller(sup.call, *ask("tool", n=n), timeout=30) for n in range(concurrency)]
    assert [caller.outcome(40) for caller in callers] == [{"nested": n} for n in range(concurrency)]


def test_a_tool_may_call_within_its_calls_session(supervise: Supervise) -> None:
    """Process (C14): in the same session it runs beside the outer call, on the same worker."""
    sup = supervise(size=2, concurrency=1)

    def tool(request: Any) -> Any:
        return sup.call("f", "ping", session="s", timeout=10)["worker"]

    sup.register("tool", tool)
    assert sup.call(*ask("tool"), session="s") in ("f/0", "f/1")


def test_a_tool_that_could_only_wait_for_itself_is_told(supervise: Supervise) -> None:
    """Process (DESIGN §6): another session of its own full pool: WouldDeadlock at once."""
    sup = supervise(size=1, concurrency=1)
    found: list[BaseException] = []

    def tool(request: Any) -> str:
        try:
            sup.call("f", "ping", session="another")
        except BaseException as error:
            found.append(error)
        return "done"

    sup.register("tool", tool)
    assert sup.call(*ask("tool"), session="s", timeout=10) == "done"
    assert isinstance(found[0], WouldDeadlock)


def test_a_session_that_lives_where_the_outer_call_runs_is_told_too(supervise: Supervise) -> None:
    """Process (C14): another worker is free, but the session's state is with the one whose only slot the tool holds."""
    sup = supervise(size=2, concurrency=1)
    all_ready(sup, 2)
    home = sup.call("f", "remember", {"key": "k", "value": 1}, session="another")["worker"]
    holding: list[Caller] = []

    def tool(request: Any) -> str:
        gate.open()
        holding[0].outcome()  # from here on the other worker is free
        try:
            return str(sup.call("f", "recall", {"key": "k"}, session="another", timeout=10))
        except WouldDeadlock:
            return request.worker.name

    sup.register("tool", tool)
    with Gate(sup) as gate:
        holding.append(Caller(sup.call, *gate.command))  # it goes to the worker without a session
        gate.wait_for(1)
        assert sup.call(*ask("tool"), timeout=30) == home


def test_a_tool_of_another_pool_may_call_back_into_a_full_one() -> None:
    """Process (C14): a call's tool calls another pool, whose tool calls the first again: nested, it need not wait."""
    settings = {"bridge": "faults", "size": 1, "concurrency": 1, "stop_grace": 0.5}
    with Supervisor(pools=[PoolConfig("f", **settings), PoolConfig("g", **settings)]) as sup:

        def there(request: Any) -> Any:
            return sup.call("g", "ask", {"name": "back", "arguments": {}}, timeout=20)

        sup.register("there", there)
        sup.register("back", lambda request: sup.call("f", "echo", {"x": 1}, timeout=10))
        assert sup.call(*ask("there"), timeout=30) == {"x": 1}


def test_a_tool_may_call_within_the_session_of_a_call_further_out(supervise: Supervise) -> None:
    """Process (C14): from a session's call into another session and back: the writer further out is no obstacle."""
    sup = supervise(size=2, concurrency=2)

    def other(request: Any) -> Any:
        return sup.call(*ask("back"), session="other", timeout=20)

    sup.register("other", other)
    sup.register("back", lambda request: sup.call("f", "echo", {"x": 1}, session="s", timeout=10))
    assert sup.call("f", "ask_writing", ask("other")[2], session="s", timeout=30) == {"x": 1}


def test_what_a_tool_leaves_behind_makes_calls_like_any_other(supervise: Supervise) -> None:
    """Process (C14): with the contextvars of a tool whose call has ended, nothing runs beyond `concurrency`."""
    sup = supervise(size=1, concurrency=1)
    left: list[contextvars.Context] = []
    sup.register("tool", lambda request: left.append(contextvars.copy_context()))
    sup.call(*ask("tool"))
    with Gate(sup) as gate:
        callers = [Caller(left[0].copy().run, sup.call, *gate.command) for _ in range(2)]
        gate.wait_for(1)
        eventually(lambda: sup.stats()["f"]["queued"] == 1, what="the second waits for its turn")
        gate.open()
        assert [caller.outcome() for caller in callers] == ["f/0"] * 2


class Speechless(Exception):
    """An exception whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("is_async", [False, True])
def test_an_exception_whose_text_cannot_be_made_reaches_the_caller(supervise: Supervise, is_async: bool) -> None:
    """Process: the worker hears of it, the call ends at once, and the tool threads live on."""
    sup = supervise(size=1)

    def tool(request: Any) -> None:
        raise Speechless

    async def atool(request: Any) -> None:
        raise Speechless

    sup.register("tool", atool if is_async else tool)
    for _ in range(2):
        with pytest.raises(RemoteError, match="Speechless"):
            sup.call(*ask("tool"), timeout=10)


def test_nested_calls_nest_deeply(supervise: Supervise) -> None:
    """Process (C14): a tool whose call calls a tool whose call ... ten levels on one worker of concurrency 1."""
    sup = supervise(size=1, concurrency=1)

    def tool(request: Any) -> int:
        depth = request.arguments["depth"]
        return depth if depth == 10 else sup.call(*ask("tool", depth=depth + 1), timeout=20)

    sup.register("tool", tool)
    assert sup.call(*ask("tool", depth=0), timeout=30) == 10


def test_more_slow_tools_than_threads_all_answer(supervise: Supervise) -> None:
    """Process: 40 calls wait in tools at once, 32 threads serve them; then all answer."""
    sup = supervise(size=5, concurrency=8)
    with Gate(sup) as gate:
        callers = [Caller(sup.call, *gate.command) for _ in range(40)]
        gate.wait_for(32)
        gate.open()
        assert len([caller.outcome(30) for caller in callers]) == 40


def test_slow_tools_do_not_keep_threads_from_the_tools_that_they_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process (C14): every tool thread waits for a call in another pool, whose own tool gets a thread all the same."""
    monkeypatch.setattr(tool_threads, "THREADS", 2)
    settings = {"bridge": "faults", "size": 1, "stop_grace": 0.5}
    barrier = threading.Barrier(2)
    with Supervisor(pools=[PoolConfig("f", **settings), PoolConfig("g", **settings)]) as sup:

        def outer(request: Any) -> Any:
            barrier.wait(20)
            return sup.call("g", "ask", {"name": "inner", "arguments": {}}, timeout=10)

        sup.register("outer", outer)
        sup.register("inner", lambda request: "done")
        callers = [Caller(sup.call, *ask("outer"), timeout=30) for _ in range(2)]
        assert [caller.outcome(40) for caller in callers] == ["done"] * 2


@pytest.mark.parametrize("is_async", [False, True])
def test_a_host_without_threads_to_spare_fails_the_call_and_not_the_supervisor(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    """Process (C12): the call whose tool cannot run hears why; once there are threads, tools run."""
    sup = supervise(size=1)

    async def atool(request: Any) -> str:
        return "done"

    sup.register("tool", atool if is_async else lambda request: "done")
    with monkeypatch.context() as patched:
        patched.setattr("threading.Thread.start", _no_thread)
        with pytest.raises(RemoteError, match="no thread is left"):
            sup.call(*ask("tool"), timeout=10)
    assert sup.call(*ask("tool"), timeout=10) == "done"


def _no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("no thread is left")


def test_a_cancelled_call_cancels_its_asynchronous_tool(supervise: Supervise) -> None:
    """Process (K1): the coroutine gets CancelledError; the worker stays."""
    sup = supervise(size=1, cancel_grace=10.0)
    before = pids(sup)
    begun: list[str] = []
    ended: list[str] = []

    async def tool(request: Any) -> None:
        begun.append("begun")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    sup.register("tool", tool)
    late(lambda seconds: sup.call(*ask("tool"), timeout=seconds), lambda: begun)
    eventually(lambda: len(ended) == len(begun))
    assert pids(sup) == before


def test_a_tool_outlives_its_callers_deadline_harmlessly(supervise: Supervise) -> None:
    """Process (C7): its late answer belongs to nobody."""
    sup = supervise(size=1)
    with Gate(sup) as gate:
        late(lambda seconds: sup.call(*gate.command, timeout=seconds), lambda: gate.arrived)
        gate.open()
        assert sup.call("f", "echo", {"next": 1}) == {"next": 1}
