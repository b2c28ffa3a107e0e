"""Process: whatever a worker says costs that worker alone; its calls hear ProtocolError, the engine lives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from dspex.errors import DspexError, LMRateLimitError, ProtocolError, RemoteError, UnknownName
from dspex.events import Event, Name
from dspex.pools.call_errors import MESSAGE_MOST, NAMES_MOST, error_from
from dspex.pools.processes.worker_process import holds_other_end
from dspex.pools.state import invariants
from dspex.pools.supervisor import Supervisor
from dspex_worker.wire.error_codec import read
from dspex_worker.wire.messages import MAGIC, Kind
from tests.support.paths import HOSTILE_BRIDGE
from tests.support.paths import ODD_BRIDGE as ODD
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, Gate, all_ready, eventually, pids

OWN = 777_777  # stands for the id of the call that has the messages written
DEEP: list[Any] = []
for _ in range(250):
    DEEP = [DEEP]


@pytest.fixture
def odd(supervise: Supervise) -> Callable[..., Supervisor]:
    """A maker of running supervisors whose pool "f" says what it is told to."""

    def make(**settings: Any) -> Supervisor:
        return supervise(**{"bridge": ODD, "size": 1, "restart_budget": (100, 1.0), **settings})

    return make


def _write(sup: Supervisor, *messages: list[Any], **options: Any) -> Any:
    return sup.call("f", "write", {"messages": list(messages), "own": OWN}, timeout=20, **options)


ATTACKS: dict[str, list[list[Any]]] = {
    "fact that is a name of ours": [[int(Kind.EVENT), OWN, "e", {"worker": "another"}]],
    "unhashable meta": [[int(Kind.CALL), 2, "tool", {}, {"for": {}}]],
    "endless credit": [[int(Kind.CALL), 2, "tool", {}, {"for": OWN, "credit": 2**60}]],
    "credit that adds up": [
        [int(Kind.CALL), 2, "never", {}, {"for": OWN, "credit": 1000}],
        *[[int(Kind.CREDIT), 2, 1000]] * 2,
    ],
    "the same callback twice": [[int(Kind.CALL), 2, "never", {}, {"for": OWN}]] * 2,
    "second READY": [[int(Kind.READY), {}]],
    "second HELLO": [[int(Kind.HELLO), MAGIC, 1, 0, {"pid": 1}]],
    "late boot error": [[int(Kind.ERROR), 0, {}, None]],
    "chunk of no stream": [[int(Kind.CHUNK), OWN, 1]],
    "answer to itself": [[int(Kind.RESULT), 2, 1, None]],
    "notes of another shape": [[int(Kind.RESULT), OWN, 1, {"wrote": ["k"]}]],
    "retire by a number": [[int(Kind.RESULT), OWN, 1, {"retire": 5}]],
    "level that fills a table": [[int(Kind.LOG), 0, 2**50, "l", "t"]],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_odd_words_retire_the_worker_that_says_them(odd: Callable[..., Supervisor], attack: str) -> None:
    """Process: the call that ran there fails typed, the next one is served, the engine lives."""
    sup = odd()

    async def never(request: Any) -> Any:
        import asyncio

        await asyncio.Event().wait()
        yield

    sup.register("never", never)
    before = pids(sup)
    messages = [*ATTACKS[attack], [int(Kind.DROP), "x"]] if attack.startswith("credit") else ATTACKS[attack]
    with pytest.raises(ProtocolError) as caught:
        _write(sup, *messages)
    assert "f/0" in str(caught.value)
    assert "does not send" not in str(caught.value), "the attack itself was taken"
    assert sup.call("f", "echo", {"n": 1}, timeout=20) == {"n": 1}
    assert pids(sup) != before
    assert sup._engine.is_alive


def test_the_neighbors_of_a_worker_that_says_odd_things_answer(odd: Callable[..., Supervisor]) -> None:
    """Process: a call that is under way in another worker is not disturbed."""
    sup = odd(size=2, concurrency=1)
    all_ready(sup, 2)
    with Gate(sup) as gate:
        other = Caller(sup.call, *gate.command)
        gate.wait_for(1)
        for attack in ("second READY", "unhashable meta"):
            with pytest.raises(ProtocolError):
                _write(sup, *ATTACKS[attack])
        gate.open()
        assert other.outcome() == gate.arrived[0]


@pytest.mark.parametrize("broken", ["state.pong", "take_answer", "state.finished"])
def test_any_exception_while_a_message_is_taken_costs_one_worker(
    odd: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """Process: what no check foresaw, while a message is read, an answer is taken, and its slot is freed."""
    sup = odd()
    before = pids(sup)
    dispatcher = sup.pool("f")._dispatcher
    owner, name = (dispatcher.state, broken[6:]) if broken.startswith("state.") else (dispatcher, broken)
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, _raise_unforeseen)
        try:
            said = _write(sup, [int(Kind.PONG), 1])
        except ProtocolError:
            said = "retired"
    assert said == ("said" if broken == "state.finished" else "retired")  # there it was answered before
    assert sup.call("f", "echo", {"n": 1}, timeout=20) == {"n": 1}
    assert pids(sup) != before
    eventually(dispatcher.is_idle)
    with dispatcher.lock:
        invariants.check(dispatcher.state)
    assert "could not be taken" in caplog.text


def _raise_unforeseen(*_: object, **__: object) -> None:
    raise ZeroDivisionError("nobody foresaw this")


def test_a_fact_may_have_any_name_but_those_that_say_who_sent_it(supervise: Supervise) -> None:
    """Process: `ctx.emit` with a fact named self arrives, and its log line can be written; a reserved name is told."""
    bridge = HOSTILE_BRIDGE
    sup = supervise(bridge=bridge, size=1)
    heard: list[Event] = []
    sup.on_event(heard.append)
    facts = {"self": 1, "level": "x", "args": 2, "exc_info": True, 'a "key" = ': "v", "size": 3}
    sup.call("f", "emit", {"name": "odd", "facts": facts}, timeout=20)
    for name in ("pool", "name", "event"):
        with pytest.raises(RemoteError, match=f"ValueError.*{name}"):
            sup.call("f", "emit", {"name": "odd", "facts": {name: "x"}}, timeout=20)
    assert sup.call("f", "ping")["generation"] == 1
    assert sup.flush_events(10)
    (told,) = [event for event in heard if event.name is Name.WORKER_REPORTED]
    assert facts.items() <= told.facts.items()
    assert told.facts["worker"] == "f/0" and told.facts["event"] == "odd"


@pytest.mark.parametrize(
    "facts", [{"self": 1}, {"event": 2, "level": None}, {"a b": "c=d"}, {"": ""}, {"method_name": 1}, {"logger": "%s"}]
)
def test_every_event_has_a_log_line(facts: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """unit: whatever its facts are called."""
    from dspex.events import write_log

    with caplog.at_level("DEBUG", "dspex"):
        write_log(Event(Name.WORKER_REPORTED, facts))
    (line,) = caplog.messages
    assert line.startswith("event=dspex.worker.reported")


@pytest.mark.parametrize(
    "wrote",
    [{"k": "DEEP"}, {"k": b"1" * 1_100_000}, {f"k{n}": b"1" * 300_000 for n in range(4)}],
    ids=["deep", "1", "4"],
)
def test_session_notes_that_cannot_be_kept_are_not_kept(odd: Callable[..., Supervisor], wrote: dict[str, Any]) -> None:
    """Process (S9): what the supervisor has is what the last good answer said."""
    sup = odd()
    with sup.session("f", durable=True) as session:
        session.call("speak", {"seed": 1, "count": 0}, timeout=20)
        size = sup.pool("f")._dispatcher.durable.size()
        with pytest.raises(ProtocolError):
            _write(sup, [int(Kind.RESULT), OWN, None, {"held": True, "wrote": wrote}], session=session.id)
        assert sup.pool("f")._dispatcher.durable.size() == size
        assert session.call("speak", {"seed": 1, "count": 0}, timeout=20) == "said"


def test_a_stream_that_ignores_its_credit_fills_nothing(odd: Callable[..., Supervisor]) -> None:
    """Process: what was allowed is kept, not a hundred thousand chunks; a consumer that reads gets what it allowed."""
    sup = odd()
    unread = sup.stream("f", "flood", {"count": 100_000}, timeout=20)
    eventually(lambda: unread._call.is_ended)
    assert unread._buffer._chunks.qsize() <= 18  # 16, and the end
    with pytest.raises(ProtocolError, match="credit"):
        list(unread)
    assert list(sup.stream("f", "flood", {"count": 10}, timeout=20)) == [*range(10), 10]


@pytest.mark.parametrize("pid", ["host", "bystander"])
def test_a_worker_cannot_have_another_process_watched_for_it(odd: Callable[..., Supervisor], pid: str) -> None:
    """Process: the pid in its HELLO is believed only of a process that has its end of the pipe."""
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        told = os.getpid() if pid == "host" else bystander.pid
        sup = odd(options={"facts": {"pid": told}})
        worker = next(iter(sup.pool("f")._dispatcher.workers.values()))
        assert worker.greeting["pid"] == told
        assert worker.channel is not None
        eventually(lambda: worker.pid)
        assert worker.pid != told
        assert not holds_other_end(told, worker.channel.stdin)
        assert holds_other_end(worker.pid, worker.channel.stdin)
        worker.pidfd, known = None, worker.pidfd
        assert not worker.watch_reported_pid()
        worker.pidfd = known
        assert sup.call("f", "echo", {"n": 1}, timeout=20) == {"n": 1}
    finally:
        bystander.communicate(b"\n")


@pytest.mark.parametrize(
    "described",
    [
        {"kind": "FrameTooLarge", "facts": {"limit": float("inf"), "actual": 1}},
        {"kind": "UnknownName", "facts": {"name": {}, "known": 5}},
        {"kind": {"a": []}, "message": DEEP},
        {"kind": "SettingsError", "facts": {"key": []}},
        {"kind": "LMRateLimitError", "facts": {"retry_after": "soon", "status": []}},
        {"type": 5, "traceback": 7},
        {},
    ],
)
def test_every_description_becomes_an_exception(described: dict[str, Any]) -> None:
    """unit: whatever an ERROR message holds."""
    error = _error_from(described)
    assert isinstance(error, DspexError)
    assert len(str(error)) < 20_000


def test_what_an_error_says_is_bounded_and_of_its_type() -> None:
    """unit: nothing is searched among a million names, waited for in years, or shown in megabytes."""
    known = ["x" * 1_000_000] * 10_000
    unknown = _error_from({"kind": "UnknownName", "facts": {"name": "x" * 10**7, "known": known}})
    assert isinstance(unknown, UnknownName) and len(unknown.known) <= NAMES_MOST and len(str(unknown)) < 100_000
    for wait in (float("nan"), -1, 1e300, True, "1"):
        limited = _error_from({"kind": "LMRateLimitError", "facts": {"retry_after": wait}})
        assert isinstance(limited, LMRateLimitError) and limited.retry_after is None
    remote = _error_from({"kind": "Odd", "message": "m" * 10**7, "traceback": "t" * 10**7})
    assert isinstance(remote, RemoteError) and len(remote.message) + len(remote.traceback) < 200_000


def _error_from(described: dict[str, Any]) -> DspexError:
    return error_from(read(described, message_most=MESSAGE_MOST), pool="p", command="c", worker="w")
