"""Unit: PoolState under random histories: every promise is checked after every event (see `pool_world.World`)."""

from __future__ import annotations

import os
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from dspex.pools.state.machine import Rules
from tests.support.pools.pool_world import World

KEYS = ("a", "b", "c", "d")
PICK = st.integers(0, 50)
USES = st.sampled_from([None, "read", "write", "write"])
RULES = st.builds(
    Rules,
    size=st.integers(1, 3),
    concurrency=st.integers(1, 3),
    affinity=st.sampled_from(["strict_queue", "strict_queue", "hint", "strict_fail_fast"]),
    queue_limit=st.sampled_from([3, 1000]),
    recycle_after_calls=st.sampled_from([None, None, 3]),
    recycle_after_memory=st.sampled_from([None, 100]),
    recycle_after_age=st.sampled_from([None, 50.0]),
    session_ttl=st.sampled_from([30.0, 3600.0]),
    session_limit=st.sampled_from([2, 10_000]),
    session_drain=st.sampled_from([5.0, 900.0]),
    restart_budget=st.sampled_from([(2, 30.0), (50, 30.0)]),
)


class PoolMachine(RuleBasedStateMachine):
    """Anything that callers, workers, an operator and time can do to a pool, in any order."""

    @initialize(rules=RULES, seed=st.integers(0, 3))
    def begin(self, rules: Rules, seed: int) -> None:
        self.world = World(rules, seed=seed)

    @rule(
        session=st.sampled_from([None, None, *KEYS]),
        use=USES,
        retries=st.integers(0, 1),
        packed=PICK,
        share=st.sampled_from(["", "", "one", "other"]),
    )
    def submit(self, session: str | None, use: str | None, retries: int, packed: int, share: str) -> None:
        name = bytes([packed % 5])
        self.world.submit(session=session, use=use, retries=retries, packed=name, share=share)  # type: ignore[arg-type]

    @rule(pick=PICK, use=USES)
    def submit_nested(self, pick: int, use: str | None) -> None:
        self.world.submit_nested(pick, use)  # type: ignore[arg-type]

    @rule(pick=PICK)
    def abandon(self, pick: int) -> None:
        self.world.abandon(pick)

    @rule(pick=PICK)
    def ready(self, pick: int) -> None:
        self.world.ready(pick)

    @rule(pick=PICK, held=st.booleans(), retire=st.sampled_from([None] * 9 + ["interrupted"]))
    def finish(self, pick: int, held: bool, retire: str | None) -> None:
        self.world.finish(pick, held=held, retire=retire)

    @rule(pick=PICK, by_itself=st.booleans(), unstarted=st.integers(0, 3), cause=st.sampled_from(["died", "memory"]))
    def die(self, pick: int, by_itself: bool, unstarted: int, cause: str) -> None:
        self.world.die(pick, by_itself=by_itself, unstarted=unstarted, cause=cause)

    @rule(pick=PICK)
    def pong(self, pick: int) -> None:
        self.world.pong(pick)

    @rule(pick=PICK, rss=st.integers(50, 101))
    def measure(self, pick: int, rss: int) -> None:
        self.world.measure(pick, rss)

    @rule(size=st.integers(1, 4))
    def resize(self, size: int) -> None:
        self.world.resize(size)

    @rule()
    def recycle(self) -> None:
        self.world.recycle()

    @rule(rules=RULES)
    def adopt(self, rules: Rules) -> None:
        limit = self.world.rules.session_limit  # with a lower one there may be more than it allows, for a while
        self.world.adopt(replace(rules, session_limit=limit))

    @rule(key=st.sampled_from(KEYS), is_durable=st.booleans(), fresh=st.booleans())
    def open_session(self, key: str, is_durable: bool, fresh: bool) -> None:
        self.world.open_session(key, is_durable=is_durable, fresh=fresh)

    @rule(key=st.sampled_from(KEYS))
    def close_session(self, key: str) -> None:
        self.world.close_session(key)

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.5, 1.0, 1.1, 6.0, 31.0, 1000.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule()
    def tick(self) -> None:
        self.world.tick()

    @precondition(lambda self: len(self.world.calls) > 20)
    @rule(then_stop=st.booleans())
    def close(self, then_stop: bool) -> None:
        self.world.close()
        if then_stop:
            self.world.stop()

    def teardown(self) -> None:
        world = getattr(self, "world", None)
        if world is not None:
            come_to_an_end(world)


def come_to_an_end(world: World) -> None:
    """Let every call end, and look at what is left."""
    world.settle()
    for call in world.calls:
        assert len(call.ends) == 1, f"{call} ended {call.ends}"
    assert not world.state.queued
    if world.state.is_over:
        return
    for _ in range(100):  # back-offs, drains of sessions and recycling come to rest
        if world.state.due < world.now + 2000.0:
            world.pass_time(world.state.due - world.now)
        world.settle()
        if len(world.state.workers) == world.state.size and not world.state.is_recycling:
            break
    assert len(world.state.staying()) == world.state.size, f"{world.state.workers} for {world.state.size}"


PoolMachine.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


class TestRandomHistories(PoolMachine.TestCase):
    """unit: random histories, chosen and shrunk by hypothesis."""


def _walk(seed: int, steps: int) -> None:
    """A long history of many sessions and calls, without shrinking: `seed` repeats it."""
    random = Random(seed)
    world = World(
        Rules(
            size=random.randint(1, 5),
            concurrency=random.choice([1, 2, 8]),
            affinity=random.choice(["strict_queue", "strict_queue", "hint", "strict_fail_fast"]),
            queue_limit=random.choice([5, 1000]),
            recycle_after_calls=random.choice([None, 20]),
            recycle_after_age=random.choice([None, 100.0]),
            session_ttl=random.choice([30.0, 3600.0]),
            session_limit=random.choice([3, 10_000]),
            session_drain=random.choice([5.0, 900.0]),
            restart_budget=random.choice([(3, 30.0), (1000, 30.0)]),
        ),
        seed=seed,
    )
    keys = [f"s{i}" for i in range(random.choice([2, 10]))]
    for _ in range(steps):
        _step(world, random, keys)
    come_to_an_end(world)


def _step(world: World, random: Random, keys: list[str]) -> None:
    pick = random.randrange(1000)
    roll = random.random()
    if roll < 0.35:
        world.submit(
            session=random.choice([None, *keys]),
            use=random.choice([None, "read", "write"]),
            retries=random.randint(0, 1),
            packed=bytes([random.randrange(40)]),
        )
    elif roll < 0.70:
        world.finish(pick, held=random.random() < 0.7, retire="memory" if random.random() < 0.01 else None)
    elif roll < 0.80:
        world.ready(pick)
    elif roll < 0.84:
        world.abandon(pick)
    elif roll < 0.87:
        world.submit_nested(pick, random.choice([None, "read", "write"]))
    elif roll < 0.90:
        world.die(pick, by_itself=random.random() < 0.5, unstarted=random.randrange(3))
    elif roll < 0.93:
        world.pong(pick)
    elif roll < 0.97:
        world.pass_time(random.choice([0.01, 0.5, 1.0, 3.0, 20.0]))
    elif roll < 0.98:
        world.open_session(random.choice(keys), is_durable=random.random() < 0.5, fresh=random.random() < 0.5)
    elif roll < 0.99:
        world.close_session(random.choice(keys))
    elif roll < 0.995:
        world.recycle()
    else:
        world.resize(random.randint(1, 5))


@pytest.mark.parametrize("seed", range(12))
def test_long_histories_keep_every_promise(seed: int) -> None:
    """unit: 400 steps each, with many calls in flight."""
    _walk(seed, 400)


@pytest.mark.slow
def test_very_long_histories_keep_every_promise() -> None:
    """unit: DSPEX_WALKS histories (default 300) of 1,000 steps; a failure names its seed."""
    for seed in range(1000, 1000 + int(os.environ.get("DSPEX_WALKS", "300"))):
        try:
            _walk(seed, 1000)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
