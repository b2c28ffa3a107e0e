"""Chaos: sessions while their workers die, are recycled, are many and grow old (RULES S, scorecard 34)."""

from __future__ import annotations

import asyncio
import threading
from random import Random

import pytest

from dspex.errors import DspexError, SessionLimit, SessionLost, WorkerDied
from tests.support.chaos.callers import Killer, unharmed
from tests.support.supervisors import Supervise
from tests.support.waiting import Caller, all_ready, eventually

SESSIONS, STEPS = 24, 40


def test_durable_sessions_lose_nothing_while_workers_are_killed(supervise: Supervise, seeded: Random) -> None:
    """Chaos (S9): 24 sessions of 40 writes; after each answer the state is what the answered calls made it."""
    sup = supervise(size=3, restart_budget=(100, 1.0))

    async def live(random: Random) -> int:
        deaths, known = 0, []
        with sup.session("f", durable=True) as session:
            for n in range(STEPS):
                try:
                    found = await session.acall("append", {"value": n}, timeout=60)
                except WorkerDied:
                    deaths += 1
                    continue
                known.append(n)
                assert found == known
                await asyncio.sleep(random.uniform(0, 0.05))
            assert (await session.acall("recall", {"key": "list"}, timeout=60, idempotent=True))["value"] == known
        return deaths

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*[live(Random(seeded.random())) for _ in range(SESSIONS)])

    with unharmed(sup, 3), Killer(sup, seeded, every=0.15) as killer:
        deaths = asyncio.run(all_of_them())
    print(f"{killer.kills} kills, {sum(deaths)} calls lost to them")
    assert killer.kills > 2
    assert sum(deaths) < SESSIONS * STEPS / 4


def test_undurable_sessions_are_right_or_lost(supervise: Supervise, seeded: Random) -> None:
    """Chaos (S6, scorecard 34): kills and recycling: every answer is the session's own; else SessionLost, for good."""
    sup = supervise(size=3, restart_budget=(100, 1.0), session_drain=0.2, recycle_after_calls=200)

    def live(number: int) -> str:
        name = f"n{number}"
        sup.session("f", name)
        mine = None
        for n in range(STEPS):
            try:
                if mine is None or n % 3 == 0:
                    sup.session("f", name).call("remember", {"key": "k", "value": [number, n]}, timeout=60)
                    mine = [number, n]
                else:
                    assert sup.session("f", name).call("recall", {"key": "k"}, timeout=60)["value"] == mine
            except WorkerDied:
                continue
            except SessionLost as lost:
                assert lost.reason in ("died", "killed", "recycled")
                with pytest.raises(SessionLost):
                    sup.session("f", name).call("remember", {"key": "k", "value": 0}, timeout=60)
                with sup.session("f", name, fresh=True) as fresh, pytest.raises(DspexError, match="k"):
                    fresh.call("recall", {"key": "k"}, timeout=60)
                return lost.reason
        sup.session("f", name).close()
        return "kept"

    with unharmed(sup, 3), Killer(sup, seeded, every=0.1):
        ends = [caller.outcome(90) for caller in [Caller(live, n) for n in range(SESSIONS)]]
    print({end: ends.count(end) for end in sorted(set(ends))})
    assert len(ends) == SESSIONS


def test_more_sessions_than_the_limit_never_cost_state(supervise: Supervise, seeded: Random) -> None:
    """Chaos (S7): a thousand sessions come and go where 20 may live; those with state stay, the oldest others go."""
    sup = supervise(size=2, session_limit=20)
    kept = [sup.session("f", f"kept{n}") for n in range(10)]
    for n, session in enumerate(kept):
        session.call("remember", {"key": "k", "value": n})
    for n in range(1000):
        assert sup.session("f", f"passing{n}").call("echo", {"n": n}) == {"n": n}
        if n % 100 == 0:
            chosen = seeded.randrange(10)
            assert kept[chosen].call("recall", {"key": "k"})["value"] == chosen
    assert sup.stats()["f"]["sessions"] == 20
    for n in range(10):
        sup.session("f", f"full{n}").call("remember", {"key": "k", "value": n})
    with pytest.raises(SessionLimit):
        sup.session("f", "one too many").call("echo", {"n": 0})
    assert [session.call("recall", {"key": "k"})["value"] for session in kept] == list(range(10))
    kept[0].close()
    assert sup.session("f", "one more").call("echo", {"n": 0}) == {"n": 0}


def test_a_session_expires_only_once_it_rests(supervise: Supervise) -> None:
    """Chaos (S7): used every 0.2 s it outlives its ttl of 1 s; left alone it is lost, and its worker drops it."""
    sup = supervise(size=1, session_ttl=1.0)
    session = sup.session("f", "long")
    session.call("remember", {"key": "k", "value": 1})
    for _ in range(10):
        threading.Event().wait(0.2)
        assert session.call("recall", {"key": "k"})["value"] == 1
    running = Caller(session.call, "sleep", {"seconds": 1.5})
    assert running.outcome() == 1.5
    assert session.call("recall", {"key": "k"})["value"] == 1

    eventually(lambda: _is_lost(session))
    with pytest.raises(SessionLost) as caught:
        session.call("recall", {"key": "k"})
    assert caught.value.reason == "expired"


def _is_lost(session: object) -> bool:
    record = session._pool._dispatcher.state.sessions.get(session.key)  # type: ignore[attr-defined]
    return record is None or record.lost is not None


def test_sessions_under_reload_and_resize_move_with_their_state(supervise: Supervise, seeded: Random) -> None:
    """Chaos (S8): durable sessions are used while the pool is recycled, reloaded and resized; no call fails."""
    sup = supervise(size=2)
    is_over = threading.Event()

    def live() -> int:
        known: list[int] = []
        with sup.session("f", durable=True) as session:
            while not is_over.is_set() or len(known) < 5:
                assert session.call("append", {"value": len(known)}, timeout=60) == [*known, len(known)]
                known.append(len(known))
                if len(known) > 200:
                    session.call("remember", {"key": "list", "value": []}, timeout=60)
                    known.clear()
        return len(known)

    callers = [Caller(live) for _ in range(6)]
    sup.pool("f").recycle(timeout=60)
    sup.pool("f").resize(4)
    all_ready(sup, 4)
    sup.pool("f").recycle(reload=True, timeout=60)
    sup.pool("f").resize(1)
    eventually(lambda: len(sup.stats()["f"]["workers"]) == 1)
    is_over.set()
    for caller in callers:
        assert caller.outcome(60) >= 0
    assert sup.stats()["f"]["counts"]["failed"] == 0
