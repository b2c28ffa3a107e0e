"""Process: many clients of one service: each has its share, its own answers, and an end of each call."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dspex.control import Client
from tests.support.client_load import faults_in, run
from tests.support.client_service import ServiceOfPrograms, served
from tests.support.waiting import eventually

CALLS = 250


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceOfPrograms]:
    with served(size=2, concurrency=8) as running:
        yield running


def test_four_processes_under_a_kill_of_one_and_of_the_service(service: ServiceOfPrograms) -> None:
    """process: 4 x 250 calls at once; every call ends once with its own answer or a lost connection, and all go on."""
    results = run(service, clients=4, calls=CALLS)
    assert len(results) == 3 and not faults_in(results, CALLS)
    assert all(result["outcomes"]["ok"] > CALLS // 4 for result in results)
    with Client(service.socket) as client:

        def is_quiet() -> bool:
            stats = client.stats()
            return all(not row["in_flight"] and not row["queued"] for row in stats.values())

        eventually(is_quiet, what="nothing of a client that is gone is left")


def test_a_client_that_is_killed_gives_back_what_it_held(service: ServiceOfPrograms) -> None:
    """process: its running and queued calls, its sessions, its place."""
    code = f"""
import threading, dspex
client = dspex.connect({str(service.socket)!r}, client="doomed")
client.session("faults", "kept").call("remember", {{"key": "k", "value": 1}})
for _ in range(40):
    threading.Thread(target=client.call, args=("faults", "sleep", {{"seconds": 600}}), daemon=True).start()
print("held", flush=True)
threading.Event().wait()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with Client(service.socket) as client:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"

            def held() -> tuple[int, int, int]:
                row = client.stats()["faults"]
                return row["in_flight"], row["queued"], client.status()["supervisor"]["clients"]

            eventually(lambda: held() == (16, 24, 2), what="it holds all slots, and waits for more")
        finally:
            process.kill()
            process.communicate()
        eventually(lambda: held() == (0, 0, 1), what="all of it is given back")
        assert client.stats()["faults"]["sessions"] == 0


def test_clients_take_turns(service: ServiceOfPrograms, tmp_path: Path) -> None:
    """process: one with 200 queued calls delays others by its turns alone, in the order in which workers begin them."""
    order = tmp_path / "order"
    with Client(service.socket, client="greedy") as greedy, Client(service.socket, client="modest") as modest:
        blocking = _calls(greedy, 16, "sleep", lambda number: {"seconds": 2})
        eventually(lambda: greedy.stats()["faults"]["in_flight"] == 16, what="every slot is taken")
        many = _calls(greedy, 200, "effect", lambda number: {"path": str(order), "token": "greedy"})
        eventually(lambda: greedy.stats()["faults"]["queued"] == 200, what="all of its calls wait")
        few = _calls(modest, 20, "effect", lambda number: {"path": str(order), "token": "modest"})
        eventually(lambda: greedy.stats()["faults"]["queued"] == 220, what="the other's wait behind them")
        for thread in (*blocking, *many, *few):
            thread.join(120)
    begun = order.read_text().split()
    assert len(begun) == 220
    last = max(place for place, token in enumerate(begun) if token == "modest")
    assert begun[:last].count("greedy") <= 20 + 16  # turn by turn, but for those that 16 slots run side by side


def _calls(
    client: Client, count: int, command: str, arguments: Callable[[int], dict[str, Any]]
) -> list[threading.Thread]:
    made = [
        threading.Thread(target=client.call, args=("faults", command, arguments(number))) for number in range(count)
    ]
    for thread in made:
        thread.start()
    return made
