"""Unit: who has a place at the control service, and how often it speaks of those who have none."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from dspex.control import backlog, connection_places
from dspex.control.backlog import Backlog
from dspex.control.connection_places import ConnectionPlaces
from dspex.control.protocol import Role
from dspex.control.throttled_events import ThrottledEvents
from dspex.errors import ResourceExhausted, TooManyClients
from dspex.events import Name


@dataclass(eq=False)
class Somebody:
    active_at: float = 0.0
    is_busy: bool = False
    is_on_reserve: bool = False
    pending: int = 0
    stuck: float = 0.0
    dropped: str = ""

    def stuck_for(self) -> float:
        return self.stuck

    def drop(self, reason: str) -> None:
        self.dropped = reason


def test_clients_never_take_an_operators_place() -> None:
    """unit"""
    places: ConnectionPlaces[Somebody] = ConnectionPlaces(2)
    for _ in range(2):
        places.admit(Somebody(), Role.CLIENT)
    with pytest.raises(TooManyClients) as refused:
        places.admit(Somebody(), Role.CLIENT)
    assert (refused.value.clients, refused.value.limit, refused.value.retryable) == (2, 2, "now")
    assert "2 clients" in str(refused.value) and "--max-clients" in str(refused.value)
    assert places.admit(Somebody(), Role.OPERATOR) is None


def test_the_quietest_idle_operator_makes_room() -> None:
    """unit"""
    places: ConnectionPlaces[Somebody] = ConnectionPlaces(2)
    operators = [Somebody(active_at=float(n), is_busy=n < 3) for n in range(connection_places.OPERATORS)]
    assert [places.admit(one, Role.OPERATOR) for one in operators] == [None] * len(operators)
    late = Somebody(active_at=99.0)
    assert places.admit(late, Role.OPERATOR) is operators[3]
    places.leave(late)
    for one in operators:
        one.is_busy = True
    assert places.admit(Somebody(active_at=99.0, is_busy=True), Role.OPERATOR) is operators[0]


def test_strangers_hold_no_place_of_a_client_and_displace_only_each_other() -> None:
    """unit"""
    places: ConnectionPlaces[Somebody] = ConnectionPlaces(1)
    strangers = [Somebody(active_at=float(n)) for n in range(connection_places.STRANGERS)]
    assert [places.arrive(one) for one in strangers] == [None] * len(strangers)
    late = Somebody(active_at=999.0)
    assert places.arrive(late) is strangers[0]
    assert places.admit(late, Role.CLIENT) is None
    places.leave(late)
    assert places.admit(Somebody(), Role.CLIENT) is None


def test_the_last_descriptors_are_for_operators() -> None:
    """unit"""
    places: ConnectionPlaces[Somebody] = ConnectionPlaces(8)
    with pytest.raises(ResourceExhausted, match="descriptors"):
        places.admit(Somebody(is_on_reserve=True), Role.CLIENT)
    assert places.admit(Somebody(is_on_reserve=True), Role.OPERATOR) is None


def test_only_slow_strangers_are_in_the_way_and_operators_only_without_them() -> None:
    """unit"""
    places: ConnectionPlaces[Somebody] = ConnectionPlaces(8)
    operator, slow, young = Somebody(), Somebody(active_at=1.0), Somebody(active_at=9.9)
    places.admit(operator, Role.OPERATOR)
    assert places.in_the_way(10.0) == [operator]
    places.arrive(slow)
    places.arrive(young)
    assert places.in_the_way(10.0) == [slow]


def test_reports_come_now_and_then_with_how_often() -> None:
    """unit"""
    said: list[tuple[Name, dict[str, Any]]] = []
    now = [0.0]
    reports = ThrottledEvents(lambda name, **facts: said.append((name, facts)), clock=lambda: now[0])
    for _ in range(1000):
        reports.tell(Name.CLIENT_REFUSED, "TooManyClients")
    reports.tell(Name.CLIENT_DROPPED, "unread", client="c1")
    assert [(name.value, facts["times"]) for name, facts in said] == [
        ("dspex.client.refused", 1),
        ("dspex.client.dropped", 1),
    ]
    now[0] = 11.0
    reports.tell(Name.CLIENT_REFUSED, "TooManyClients")
    assert said[-1][1] == {"reason": "TooManyClients", "times": 1000}


@pytest.mark.parametrize("stuck", [(0.0, 9.0), (9.0, 9.0)])
def test_whoever_reads_nothing_and_holds_most_is_dropped(
    monkeypatch: pytest.MonkeyPatch, stuck: tuple[float, float]
) -> None:
    """unit: one that reads may hold more"""
    monkeypatch.setattr(backlog, "MAX_TOTAL", 100)
    first, second = Somebody(stuck=stuck[0]), Somebody(stuck=stuck[1])

    async def fill() -> None:
        waiting = Backlog()
        waiting.add(first, 90)
        waiting.add(second, 20)
        waiting.close()

    asyncio.run(fill())
    assert (first.dropped, second.dropped) == (("", "unread") if stuck[0] == 0.0 else ("unread", ""))
