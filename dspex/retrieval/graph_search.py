"""Find near vectors by walking a graph of them, with usearch (the extra `vectors`): not all are compared.

Not safe for several threads: an index holds its lock around each call. The graph is kept in memory only; usearch reads
a file of one without checks, and dies of a damaged one.
"""

from __future__ import annotations

import array
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependency
from .vectors import loaded_numpy

if TYPE_CHECKING:
    from ..lm.dialects.embeddings import Vector


class GraphSearch:
    """An HNSW graph (Malkov and Yashunin, 2016) of unit vectors.

    Raises:
        MissingDependency: usearch is not installed.
    """

    def __init__(self) -> None:
        self._usearch = _usearch()
        self._numpy = loaded_numpy()
        self._graph: Any = None

    def add(self, numbers: Sequence[int], vectors: Sequence[Vector]) -> None:
        if not numbers:
            return
        if self._graph is None:
            self._graph = self._usearch.Index(ndim=len(vectors[0]), metric="ip", dtype="f32")
        keys = self._numpy.array(numbers, dtype=self._numpy.uint64)
        self._graph.add(keys, self._numpy.array(vectors, dtype=self._numpy.float32))

    def remove(self, number: int) -> None:
        self._graph.remove(number)

    def nearest(self, vector: Vector, k: int) -> list[tuple[int, float]]:
        if self._graph is None or not len(self._graph) or k < 1:
            return []
        numpy = self._numpy
        found = self._graph.search(numpy.frombuffer(vector, dtype=numpy.float32), min(k, len(self._graph)))
        scored = [(int(key), 1.0 - float(distance)) for key, distance in zip(found.keys, found.distances, strict=True)]
        return sorted(scored, key=lambda item: (-item[1], item[0]))

    def vector(self, number: int) -> Vector:
        return array.array("f", self._graph.get(number).astype(self._numpy.float32).tobytes())


def _usearch() -> Any:
    try:
        return importlib.import_module("usearch.index")
    except ImportError as error:
        raise MissingDependency(
            'approximate=True needs usearch: pip install "dspex[vectors]". Without it, every vector is compared.',
            package="usearch",
            extra="vectors",
        ) from error
