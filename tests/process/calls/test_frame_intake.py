"""Process: what workers send and nobody has taken yet is bounded, and what is given up for it is reported."""

from __future__ import annotations

import threading

import pytest

from dspex.events import Event, Name
from dspex.pools import inbox
from dspex.pools.frame_intake import SMALL
from tests.support.paths import HOSTILE_BRIDGE
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, all_ready, eventually


def test_a_frame_that_is_held_back_is_given_up_for_those_that_wait(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process: five workers hold large frames back; the sixth's large answer arrives, small ones meanwhile too."""
    from dspex.pools import frame_intake

    monkeypatch.setattr(frame_intake, "ROOM", 4 * 1024 * 1024)
    monkeypatch.setattr(frame_intake, "PATIENCE", 1.0)
    sup = supervise(size=5, concurrency=1, restart_budget=(100, 1.0))
    all_ready(sup, 5)
    held = (3 * 1024 * 1024).to_bytes(4, "big") + b"\xc6" + b"x" * (3 * 1024 * 1024 - 5)
    bad = [Caller(sup.call, "f", "garbage", {"data": held, "seconds": 60.0}, timeout=60.0) for _ in range(4)]
    dispatcher = sup.pool("f")._dispatcher
    pending = lambda: sum(w.buffer.pending for w in tuple(dispatcher.workers.values()))  # noqa: E731
    eventually(lambda: pending() > 4 * 1024 * 1024)
    assert sup.call("f", "echo", {"n": 1}, timeout=20) == {"n": 1}
    assert len(sup.call("f", "payload", {"bytes": 8 * 1024 * 1024}, timeout=60)) == 8 * 1024 * 1024
    assert pending() <= 4 * 1024 * 1024 + 3 * 1024 * 1024 + 5 * (SMALL + 64 * 1024)
    errors = {type(caller.error).__name__ for caller in bad if not caller.is_alive()}
    assert errors == {"ProtocolError"}
    sup.stop(grace=0.0)
    for caller in bad:
        caller.join(20)


def test_reports_that_nobody_takes_are_dropped_and_counted(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process: a subscriber hangs, a worker tells events on and on: bounded here, and told afterwards."""
    monkeypatch.setattr(inbox, "REPORTS_MOST", 1024 * 1024)
    sup = supervise(bridge=HOSTILE_BRIDGE, size=1)
    heard: list[Event] = []
    go = threading.Event()

    def slow(event: Event) -> None:
        heard.append(event)
        if event.name is Name.WORKER_REPORTED:
            go.wait(30)

    sup.on_event(slow)
    for _ in range(40):
        sup.call("f", "emit", {"name": "e", "facts": {"text": "x" * 100_000}}, timeout=20)
    go.set()
    assert sup.flush_events(20)
    assert 5 <= len([event for event in heard if event.name is Name.WORKER_REPORTED]) <= 12
    sup.call("f", "emit", {"name": "e", "facts": {}}, timeout=20)
    assert sup.flush_events(20)
    (dropped,) = [event for event in heard if event.name is Name.REPORT_DROPPED]
    assert dropped.facts["count"] >= 28
