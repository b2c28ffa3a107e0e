"""Collaboration: many predictions at once: each has its own answer, whatever is cancelled or late."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import dspex
from dspex import defaults
from dspex.errors import CallTimeout, LMError, LMTransportError
from tests.support.lm.delayed_endpoint import Endpoint

SEED = int(os.environ.get("DSPEX_LOAD_SEED", "20261122"))
MANY = 500


@pytest.fixture(autouse=True)
def _no_connection_is_left() -> Iterator[None]:
    """The process's client keeps connections for the next call; they are not the tests' leak."""
    yield
    defaults.client().close()


def _program(endpoint: Endpoint, path: str = "", **options: object) -> dspex.Program:
    lm = dspex.LM("openai/any", api_base=endpoint.base + path, api_key="k", cache=False, **options)
    return dspex.predictor("predict", "question -> answer", lm=lm, implementation="native")


async def _asked(program: dspex.Program, word: str) -> str:
    return str((await program.acall(question=f"say {word}")).answer)


def test_500_at_once_each_get_their_own_answer() -> None:
    """collaboration: three rounds of 500 tasks on one loop; no answer is another's."""

    async def run(program: dspex.Program) -> None:
        for turn in range(3):
            words = [f"w{turn}x{i}" for i in range(MANY)]
            assert await asyncio.gather(*(_asked(program, word) for word in words)) == words

    with Endpoint(SEED) as endpoint:
        asyncio.run(run(_program(endpoint)))
        assert endpoint.answered == 3 * MANY
        assert endpoint.most <= MANY


def test_answers_are_never_swapped_when_neighbours_are_cancelled_or_late() -> None:
    """collaboration: with 500 in flight a third of the calls is cancelled, and a third has too little time."""
    print(f"seed {SEED}")
    draw = random.Random(SEED)

    async def one(program: dspex.Program, hurried: dspex.Program, word: str, fate: str) -> str:
        if fate == "late":
            try:
                return await _asked(hurried.using(timeout=draw.uniform(0.001, 0.3)), word)
            except (CallTimeout, LMTransportError):  # its time was over, or its circuit is open
                return word
        task = asyncio.create_task(_asked(program, word))
        if fate == "cancelled":
            asyncio.get_running_loop().call_later(draw.uniform(0.0, 0.3), task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            assert fate == "cancelled"
            return word

    async def run(program: dspex.Program, hurried: dspex.Program) -> None:
        todo = iter(range(3 * MANY))

        async def caller() -> None:  # so that a connection is wanted again as soon as its call has ended, however
            for i in todo:
                fate = draw.choice(("kept", "late", "cancelled"))
                assert await one(program, hurried, f"w{i}", fate) == f"w{i}"

        await asyncio.gather(*(caller() for _ in range(MANY)))

    with Endpoint(SEED, longest_s=0.5) as endpoint:
        # Under a path of its own the hurried ones have a circuit of their own, and share the connections.
        asyncio.run(run(_program(endpoint, retries=0), _program(endpoint, path="/hurried", retries=0)))


def test_connections_that_the_server_closes_at_any_moment_cost_no_call() -> None:
    """collaboration: kept connections end just as they are used again, and half the answers come in pieces."""

    async def run(program: dspex.Program) -> None:
        todo = iter(range(1_500))

        async def caller() -> None:
            for i in todo:
                assert await _asked(program, f"w{i}") == f"w{i}"

        await asyncio.gather(*(caller() for _ in range(100)))

    with Endpoint(SEED, longest_s=0.003, closes=0.5) as endpoint:
        asyncio.run(run(_program(endpoint)))


def test_a_server_that_hangs_up_is_an_error_of_that_call_only() -> None:
    """collaboration: one answer in ten is a broken connection; those calls fail, and no other does."""

    async def one(program: dspex.Program, word: str) -> str:
        try:
            return await _asked(program, word)
        except LMError as error:
            assert error.retryable == "now"
            return "broken"

    async def run(program: dspex.Program) -> list[str]:
        return await asyncio.gather(*(one(program, f"w{i}") for i in range(MANY)))

    with Endpoint(SEED, hangs_up=0.02) as endpoint:
        answers = asyncio.run(run(_program(endpoint, retries=0)))
    assert all(answer in (f"w{i}", "broken") for i, answer in enumerate(answers))
    assert 0 < answers.count("broken") < MANY / 5


def test_threads_and_loops_share_a_client_without_sharing_answers() -> None:
    """collaboration: 32 threads and two event loops ask at once, while the server closes connections."""

    async def on_loop(program: dspex.Program, name: str) -> None:
        words = [f"{name}x{i}" for i in range(200)]
        assert await asyncio.gather(*(_asked(program, word) for word in words)) == words

    with Endpoint(SEED, longest_s=0.005, closes=0.2) as endpoint, ThreadPoolExecutor(34) as threads:
        program = _program(endpoint)
        loops = [threads.submit(asyncio.run, on_loop(program, name)) for name in ("a", "b")]
        words = [f"t{i}" for i in range(600)]
        answers = list(threads.map(lambda word: program(question=f"say {word}").answer, words))
        assert answers == words
        for loop in loops:
            loop.result()


def test_a_deadline_ends_a_call_in_time_with_500_in_flight() -> None:
    """collaboration: 500 calls of a server that never answers are over soon after their deadline, and none before."""

    async def one(program: dspex.Program) -> float:
        start = time.monotonic()
        with pytest.raises(CallTimeout):
            await _asked(program, "w")
        return time.monotonic() - start

    async def run(program: dspex.Program) -> list[float]:
        return await asyncio.gather(*(one(program) for _ in range(MANY)))

    with Endpoint(SEED, longest_s=1e6) as endpoint:
        took = asyncio.run(run(_program(endpoint, retries=0).using(timeout=1.0)))
    assert min(took) >= 0.99
    assert max(took) < 15.0


def test_no_descriptor_is_left_after_a_loop_that_cancelled_its_calls() -> None:
    """collaboration: descriptors and threads are as before once the loop has ended."""

    async def run(program: dspex.Program) -> None:
        tasks = [asyncio.create_task(_asked(program, f"w{i}")) for i in range(MANY)]
        await asyncio.sleep(0.01)
        for task in tasks[::2]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [a for a in found if isinstance(a, str)] == [
            f"w{i}" for i, a in enumerate(found) if not isinstance(a, BaseException)
        ]

    with Endpoint(SEED, longest_s=0.2) as endpoint:
        program = _program(endpoint, retries=0)
        asyncio.run(run(program))
        deadline = time.monotonic() + 30
        while endpoint.connections and time.monotonic() < deadline:
            threading.Event().wait(0.005)
        assert not endpoint.connections
