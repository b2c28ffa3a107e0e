"""Process: what a worker holds of sessions, and what it tells the supervisor of durable ones (RULES S4, S9)."""

from __future__ import annotations

import os
import signal

import pytest

from dspex.errors import DspexError
from dspex_worker.failure import Failure
from dspex_worker.session_state import Sessions
from dspex_worker.wire import Unencodable
from tests.support.supervisors import Hostile
from tests.support.waiting import eventually, pids


@pytest.mark.parametrize("spoil", ["", "object", "key", "size", "look", "result"])
def test_a_durable_session_is_the_same_in_the_next_worker(hostile: Hostile, spoil: str) -> None:
    """Process (S9): whatever one of its calls did, what a session holds is what its next worker is given."""
    sup = hostile()
    with sup.session("f", durable=True) as session:
        session.call("write", {"values": {"a": 1, "b": 2}})
        try:
            session.call("write", {"values": {"a": 3, "c": 4}, "spoil": spoil})
        except DspexError:
            assert spoil not in ("", "look")
        session.call("write", {"values": {"c": 4}})
        held = session.call("read")
        pid = sup.call("f", "ping")["pid"]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: pid not in pids(sup))
        assert session.call("read") == held
        assert held == ({"a": 1, "b": 2, "c": 4} if spoil in ("object", "key", "size") else {"a": 3, "b": 2, "c": 4})


def test_reading_sessions_leaves_nothing_behind(hostile: Hostile) -> None:
    """Process (S4): a session without state is nowhere in the worker, however many there were."""
    sup = hostile()
    for _ in range(50):
        with sup.session("f") as session:
            session.call("read")
            session.call("write", {"values": {}})
    assert sup.call("f", "count_sessions") == 0


def test_a_refused_write_leaves_the_state_as_the_supervisor_has_it() -> None:
    """Unit (S9): also the writes of that call that could have been kept, and nothing counts as sent."""
    sessions = Sessions()
    first = sessions.view("s", is_writable=True)
    first["a"] = 1
    assert sessions.commit(first, is_durable=True) == {"held": True, "wrote": {"a": 1}, "deleted": []}
    for value, error, kind in ((object(), Unencodable, None), (bytes(2_000_000), Failure, "SessionStateTooLarge")):
        bad = sessions.view("s", is_writable=True)
        del bad["a"]
        bad["b"], bad["c"] = 2, value
        with pytest.raises(error) as raised:
            sessions.commit(bad, is_durable=True)
        assert getattr(raised.value, "kind", None) == kind
        assert dict(sessions.view("s", is_writable=False)) == {"a": 1}
    good = sessions.view("s", is_writable=True)
    good["b"] = 2
    del good["a"]
    assert sessions.commit(good, is_durable=True) == {"held": True, "wrote": {"b": 2}, "deleted": ["a"]}


def test_a_nested_call_that_empties_a_session_does_not_lose_what_comes_after() -> None:
    """Unit (S4): a call and those nested in it see one mapping, from the first look to the last write."""
    sessions = Sessions()
    outer = sessions.view("s", is_writable=True)
    inner = sessions.view("s", is_writable=True)
    inner["x"] = 1
    del inner["x"]
    assert sessions.commit(inner, is_durable=False) == {"held": False}
    outer["a"] = 1
    assert sessions.commit(outer, is_durable=False) == {"held": True}
    assert dict(sessions.view("s", is_writable=False)) == {"a": 1}


def test_a_session_that_was_dropped_meanwhile_is_not_held_again() -> None:
    """Unit (S6): the call that still runs in it writes into nothing."""
    sessions = Sessions()
    view = sessions.view("s", is_writable=True)
    view["a"] = 1
    sessions.commit(view, is_durable=False)
    sessions.drop("s")
    view["b"] = 2
    assert sessions.commit(view, is_durable=True) == {"held": False}
    assert len(sessions) == 0
    assert dict(sessions.view("s", is_writable=False)) == {}
