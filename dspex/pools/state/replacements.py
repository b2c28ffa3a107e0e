"""Decide which workers are replaced, in which order. Pure; `lifecycle` starts their successors and drains them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from .model import PoolModel
from .records import WorkerPhase, WorkerRecord

JITTER = 0.1  # of recycle_after_age, so that workers started together do not all leave together


class Replacements:
    """The planned replacements of one pool's workers, one at a time."""

    def __init__(self, model: PoolModel) -> None:
        self._model = model
        self._wanted: OrderedDict[int, str] = OrderedDict()  # generations to replace, and why
        self.current: int | None = None  # the generation whose successor is being made

    @property
    def is_under_way(self) -> bool:
        """Whether workers are being replaced or wait for their turn."""
        return self.current is not None or bool(self._wanted)

    def want(self, generations: Iterable[int], reason: str) -> None:
        """Have these workers replaced, each in its turn."""
        for generation in sorted(generations):
            worker = self._model.workers.get(generation)
            if worker is not None and worker.is_staying:
                self._wanted.setdefault(generation, reason)

    def skip(self, worker: WorkerRecord) -> None:
        """Let the next have its turn: this one leaves in another way."""
        if self.current == worker.generation:
            self.current = None

    def gone(self, worker: WorkerRecord) -> None:
        """Note that a worker is out of the pool."""
        self._wanted.pop(worker.generation, None)
        self.skip(worker)

    def choose(self) -> None:
        """Choose the next worker, if none is being replaced."""
        while self.current is None and self._wanted:
            generation = next(iter(self._wanted))
            worker = self._model.workers.get(generation)
            if worker is None or not worker.is_staying:
                del self._wanted[generation]
                continue
            self.current = generation
            self._model.emit("worker.recycling", worker, reason=self._wanted[generation])

    def schedule(self, worker: WorkerRecord, ready_at: float) -> None:
        """Set when a worker that became ready then is too old."""
        age = self._model.rules.recycle_after_age
        worker.recycle_at = None
        if age is not None:
            worker.recycle_at = ready_at + age * self._model.random.uniform(1 - JITTER, 1 + JITTER)
            self._model.tick_by(worker.recycle_at)

    def wear(self, worker: WorkerRecord, now: float) -> str | None:
        """Return why a ready worker must be replaced; None if it need not, or is to be anyway."""
        if worker.phase is not WorkerPhase.READY or worker.generation in self._wanted:
            return None
        rules = self._model.rules
        if rules.recycle_after_calls is not None and worker.answered >= rules.recycle_after_calls:
            return "calls"
        if rules.recycle_after_memory is not None and worker.rss >= rules.recycle_after_memory:
            return "memory"
        return "age" if worker.recycle_at is not None and now >= worker.recycle_at else None
