"""Find the nearest vectors by comparing all of them: with numpy, or in plain Python where it is not installed.

Not safe for several threads: an index holds its lock around each call.
"""

from __future__ import annotations

import array
import heapq
from collections.abc import Sequence
from operator import mul
from typing import TYPE_CHECKING, Any, Protocol

from .vectors import loaded_numpy

if TYPE_CHECKING:
    from ..lm.dialects.embeddings import Vector

_FIRST = 64  # rows that a new table has room for


class Neighbors(Protocol):
    """Unit vectors by number, and the nearest of them."""

    def add(self, numbers: Sequence[int], vectors: Sequence[Vector]) -> None:
        """Add vectors, all of one length; their numbers are new."""
        ...

    def remove(self, number: int) -> None:
        """Remove the vector of a number."""
        ...

    def nearest(self, vector: Vector, k: int) -> list[tuple[int, float]]:
        """Return the numbers of the `k` nearest and their cosines, the nearest first, of equals the oldest."""
        ...

    def vector(self, number: int) -> Vector:
        """Return the vector of a number."""
        ...


def exact_search() -> Neighbors:
    """Return an empty one, as fast as this installation allows."""
    numpy = loaded_numpy()
    return PlainSearch() if numpy is None else NumpySearch(numpy)


class PlainSearch:
    """In plain Python: some 40 ms for each 1,000 vectors of 384 numbers."""

    def __init__(self) -> None:
        self._vectors: dict[int, Vector] = {}

    def add(self, numbers: Sequence[int], vectors: Sequence[Vector]) -> None:
        self._vectors.update(zip(numbers, vectors, strict=True))

    def remove(self, number: int) -> None:
        del self._vectors[number]

    def nearest(self, vector: Vector, k: int) -> list[tuple[int, float]]:
        scored = ((sum(map(mul, vector, own)), -number) for number, own in self._vectors.items())
        return [(-number, score) for score, number in heapq.nlargest(k, scored)]

    def vector(self, number: int) -> Vector:
        return self._vectors[number]


class NumpySearch:
    """One table of all vectors, in which removed rows are zeros until there are as many of them as others."""

    def __init__(self, numpy: Any) -> None:
        self._numpy = numpy
        self._table: Any = numpy.zeros((0, 0), dtype=numpy.float32)
        self._numbers: list[int | None] = []  # of each row; None of one that was removed
        self._rows: dict[int, int] = {}

    def add(self, numbers: Sequence[int], vectors: Sequence[Vector]) -> None:
        if not numbers:
            return
        begin = len(self._numbers)
        self._make_room(begin + len(numbers), len(vectors[0]))
        self._table[begin : begin + len(numbers)] = self._numpy.array(vectors, dtype=self._numpy.float32)
        self._numbers += numbers
        self._rows.update(zip(numbers, range(begin, begin + len(numbers)), strict=True))

    def remove(self, number: int) -> None:
        self._numbers[self._rows.pop(number)] = None
        if len(self._numbers) > 2 * len(self._rows) + _FIRST:
            self._compact()

    def nearest(self, vector: Vector, k: int) -> list[tuple[int, float]]:
        if not self._rows or k < 1:
            return []
        numpy, count = self._numpy, len(self._numbers)
        scores = self._table[:count] @ numpy.frombuffer(vector, dtype=numpy.float32)
        if len(self._rows) < count:
            scores[[row for row, number in enumerate(self._numbers) if number is None]] = -numpy.inf
        most = min(k, len(self._rows))
        found = numpy.flatnonzero(scores >= numpy.partition(scores, count - most)[count - most])  # the last may be many
        best = found[numpy.argsort(-scores[found], kind="stable")][:most]
        return [(int(self._numbers[row] or 0), float(scores[row])) for row in best.tolist()]

    def vector(self, number: int) -> Vector:
        return array.array("f", self._table[self._rows[number]].tobytes())

    def _make_room(self, count: int, width: int) -> None:
        room = len(self._table)
        if count <= room:
            return
        table = self._numpy.zeros((max(count, 2 * room, _FIRST), width), dtype=self._numpy.float32)
        if room:
            table[: len(self._numbers)] = self._table[: len(self._numbers)]
        self._table = table

    def _compact(self) -> None:
        kept = sorted(self._rows.items(), key=lambda item: item[1])
        self._table = self._table.take([row for _, row in kept], axis=0)
        self._numbers = [number for number, _ in kept]
        self._rows = {number: row for row, (number, _) in enumerate(kept)}
