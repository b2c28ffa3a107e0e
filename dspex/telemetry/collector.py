"""Compute the Prometheus metrics of this process's supervisors when they are scraped. Any thread.

    dspex.register_metrics(supervisor)

Labels are bounded: pools and workers by the settings, commands and outcomes by `CallTally`, models by `MODELS_MOST`.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from .. import defaults
from ..errors import SettingsError
from ..pools.state.records import WorkerPhase
from ..pools.supervisor import Supervisor
from ..services.services import services_of
from .event_counts import EventCounts

if TYPE_CHECKING:
    from ..pools.call_tally import CallTally, Spread
    from ..pools.stats import PoolStats

MODELS_MOST: Final = 100
OTHER: Final = "other"

Values = Mapping[tuple[str, ...], float]  # by labels

_OF_A_POOL: Final[tuple[tuple[str, str, Callable[[PoolStats], float]], ...]] = (
    ("dspex_pool_size", "Workers that the pool aims at.", lambda stats: stats["size"]),
    ("dspex_pool_ready", "1 if a worker can take a call.", lambda stats: stats["state"] == "ready"),
    ("dspex_calls_running", "Calls in workers.", lambda stats: stats["in_flight"]),
    ("dspex_calls_queued", "Calls that wait.", lambda stats: stats["queued"]),
    ("dspex_queue_limit", "Calls that may wait.", lambda stats: stats["queue_limit"]),
    ("dspex_sessions", "Sessions that are open.", lambda stats: stats["sessions"]),
    ("dspex_quarantined_inputs", "Inputs refused for killing workers.", lambda stats: len(stats["poison"])),
)

_registering = threading.Lock()
_registered: weakref.WeakKeyDictionary[Any, MetricsCollector] = weakref.WeakKeyDictionary()


def register(supervisor: Any, registry: Any) -> None:
    """Show a supervisor's metrics: see `metrics_app.register_metrics`.

    Raises:
        SettingsError: the supervisor is a client of a service, which has the metrics itself.
    """
    chosen = defaults.default_supervisor() if supervisor is None else supervisor
    if not isinstance(chosen, Supervisor):
        raise SettingsError(
            f"Metrics are of the process that owns the pools, and {chosen!r} is a client of it: scrape the service "
            f"(`dspex start --http PORT`).",
            key="supervisor",
        )
    collector_of(registry).watch(chosen)


def collector_of(registry: Any) -> MetricsCollector:
    """Return a registry's collector, which is made at first; it shows the LM requests of this process by itself."""
    registry = REGISTRY if registry is None else registry
    with _registering:
        collector = _registered.get(registry)
        if collector is None:
            collector = _registered[registry] = MetricsCollector()
            registry.register(collector)
    return collector


class MetricsCollector:
    """What a registry asks for metrics at each scrape."""

    def __init__(self) -> None:
        self._watched: weakref.WeakKeyDictionary[Supervisor, EventCounts] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def watch(self, supervisor: Supervisor) -> None:
        """Show this supervisor too."""
        with self._lock:
            if supervisor in self._watched:
                return
            counts = self._watched[supervisor] = EventCounts()
        services_of(supervisor)  # the events of this process's own LM requests reach it by these
        supervisor.on_event(counts.take)
        for name in supervisor.pools:
            supervisor.pool(name).tally()

    def describe(self) -> list[Any]:
        """Return nothing: a registry would compute everything once for it."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield the families."""
        with self._lock:
            watched = [(each, counts) for each, counts in self._watched.items() if each.is_running]
        pools: dict[str, PoolStats] = {}
        tallies: dict[str, CallTally] = {}
        for supervisor, _ in watched:
            for name, stats in supervisor.stats().items():
                if name not in pools:
                    pools[name], tallies[name] = stats, supervisor.pool(name).tally()
        yield from _of_calls(tallies)
        yield from _of_pools(pools)
        yield from _of_events([counts for _, counts in watched])
        yield from _of_jobs([supervisor for supervisor, _ in watched])
        yield from _of_models(defaults.client().usage.total.stats())


# ======================================================================================================================


def _of_calls(tallies: Mapping[str, CallTally]) -> Iterator[Any]:
    ended = CounterMetricFamily(
        "dspex_calls",
        "Calls that have ended; the outcome is ok, or the error's class.",
        None,
        ["pool", "command", "outcome"],
    )
    durations = HistogramMetricFamily(
        "dspex_call_duration_seconds", "From a call's making to its end.", labels=["pool", "command"]
    )
    waits = HistogramMetricFamily(
        "dspex_call_queue_wait_seconds", "From a call's making until a worker was given it.", labels=["pool"]
    )
    for pool, tally in tallies.items():
        for command, calls in tally.commands.items():
            for outcome, count in calls.outcomes.items():
                ended.add_metric([pool, command, outcome], count)
            durations.add_metric([pool, command], *_buckets(calls.durations))
        waits.add_metric([pool], *_buckets(tally.waits))
    yield from (ended, durations, waits)


def _buckets(spread: Spread) -> tuple[list[tuple[str, float]], float]:
    """Return what a histogram has: how many were at most each bound, and the sum."""
    so_far, buckets = 0, list[tuple[str, float]]()
    for bound, count in zip((*map(str, spread.bounds), "+Inf"), spread.counts, strict=True):
        so_far += count
        buckets.append((bound, so_far))
    return buckets, spread.seconds


def _of_pools(pools: Mapping[str, PoolStats]) -> Iterator[Any]:
    for name, about, value in _OF_A_POOL:
        yield _gauge(name, about, {(pool,): value(stats) for pool, stats in pools.items()}, "pool")
    phases: dict[tuple[str, ...], float] = {(name, phase.value): 0 for name in pools for phase in WorkerPhase}
    memory: dict[tuple[str, ...], float] = {}
    for name, stats in pools.items():
        for row in stats["workers"]:
            phases[name, row["phase"]] += 1
            memory[name, row["worker"]] = memory.get((name, row["worker"]), 0) + row["counted_bytes"]
    yield _gauge("dspex_workers", "Workers by the phase of their life.", phases, "pool", "phase")
    yield _gauge(
        "dspex_worker_memory_bytes", "What counts against the cap, descendants included.", memory, "pool", "worker"
    )
    caps: dict[tuple[str, ...], float] = {
        (name,): cap for name, stats in pools.items() if (cap := stats["memory"]["cap_bytes"]) is not None
    }
    yield _gauge("dspex_worker_memory_cap_bytes", "Where a worker is killed; absent without a cap.", caps, "pool")


def _of_events(counted: Iterable[EventCounts]) -> Iterator[Any]:
    restarts, retries, jobs, events = (Counter[tuple[str, ...]]() for _ in range(4))
    for counts in counted:
        restarts.update(counts.restarts())
        retries.update(counts.retries())
        jobs.update(counts.jobs())
        events.update(counts.events())
    yield _counter("dspex_worker_restarts", "Workers that were replaced, by how they ended.", restarts, "pool", "cause")
    yield _counter("dspex_lm_retries", "LM requests that were sent once more.", retries, "model")
    yield _counter("dspex_jobs_ended", "Optimizations that have ended.", jobs, "state")
    yield _counter("dspex_events", "Events by their name.", events, "event")


def _of_jobs(supervisors: Iterable[Supervisor]) -> Iterator[Any]:
    rows = [row for each in supervisors for row in services_of(each).jobs.rows()]
    running = sum(row.get("state") not in ("done", "failed", "stopped") for row in rows)
    yield _gauge("dspex_jobs_running", "Optimizations that wait or run.", {(): running})


def _of_models(usage: Mapping[str, Any]) -> Iterator[Any]:
    yield _counter("dspex_lm_requests", "LM requests that a model answered.", {(): usage["requests"]})
    yield _counter("dspex_lm_cache_hits", "LM requests that the cache answered.", {(): usage["cached_requests"]})
    yield _counter("dspex_lm_cost_usd", "Their cost, as far as prices are known.", {(): usage["cost_usd"]})
    yield _counter(
        "dspex_lm_unpriced_requests", "LM requests whose price is unknown.", {(): usage["unpriced_requests"]}
    )
    tokens: Counter[tuple[str, ...]] = Counter()
    for at, (model, used) in enumerate(usage["models"].items()):
        for kind in ("prompt", "completion"):
            tokens[(model if at < MODELS_MOST else OTHER, kind)] += used.get(f"{kind}_tokens", 0)
    yield _counter("dspex_lm_tokens", "Tokens of LM requests.", tokens, "model", "kind")


def _gauge(name: str, about: str, values: Values, *labels: str) -> Any:
    return _filled(GaugeMetricFamily(name, about, None, labels), values)


def _counter(name: str, about: str, values: Values, *labels: str) -> Any:
    return _filled(CounterMetricFamily(name, about, None, labels), values)


def _filled(family: Any, values: Values) -> Any:
    for labels, value in values.items():
        family.add_metric(labels, float(value))
    return family
