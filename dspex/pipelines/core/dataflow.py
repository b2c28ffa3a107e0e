"""Compute what steps read and write, as far as it is known before a run: sets of names, added up in sequence.

Pure; `pipeline(...)` uses it to say what a run must be given and to find branches that write the same name (P1 - P3).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...errors import KeyClash

_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Reads:
    """The names that a step needs, those that it takes if present, and whether it sees the whole state."""

    required: frozenset[str] = _NONE
    optional: frozenset[str] = _NONE
    is_everything: bool = False

    def __or__(self, other: Reads) -> Reads:
        required = self.required | other.required
        optional = (self.optional | other.optional) - required
        return Reads(required, optional, self.is_everything or other.is_everything)

    def softened(self) -> Reads:
        """Return the same for a step that may not run."""
        return Reads(_NONE, self.required | self.optional, self.is_everything)

    def without(self, *names: str) -> Reads:
        return Reads(self.required - {*names}, self.optional - {*names}, self.is_everything)


@dataclass(frozen=True, slots=True)
class Writes:
    """The names that a step certainly writes, all that it may write, and whether it may write undeclared ones."""

    certain: frozenset[str] = _NONE
    possible: frozenset[str] = _NONE
    is_open: bool = False

    @classmethod
    def of(cls, names: Iterable[str], maybe: Iterable[str] = ()) -> Writes:
        certain = frozenset(names)
        return cls(certain, certain | frozenset(maybe))

    def __or__(self, other: Writes) -> Writes:
        return Writes(self.certain | other.certain, self.possible | other.possible, self.is_open or other.is_open)

    def either(self, other: Writes) -> Writes:
        """Return the writes of a step that runs one of two parts."""
        return Writes(self.certain & other.certain, self.possible | other.possible, self.is_open or other.is_open)

    def softened(self) -> Writes:
        """Return the same for a step that may not run."""
        return Writes(_NONE, self.possible, self.is_open)


@dataclass(frozen=True, slots=True)
class Flow:
    """The reads and writes of a step."""

    reads: Reads = Reads()
    writes: Writes = Writes()


def in_sequence(flows: Iterable[Flow]) -> Flow:
    """Add up steps that run one after the other: what an earlier one certainly writes need not be given."""
    reads, writes = Reads(), Writes()
    for flow in flows:
        unwritten = flow.reads.required - writes.certain
        doubtful = unwritten if writes.is_open else unwritten & writes.possible
        optional = (flow.reads.optional - writes.certain) | doubtful
        reads |= Reads(unwritten - doubtful, optional, flow.reads.is_everything)
        writes |= flow.writes
    return Flow(reads, writes)


def side_by_side(flows: Iterable[Flow], *, where: str) -> Flow:
    """Add up branches that run at the same time.

    Raises:
        KeyClash: two of them declare to write the same name (P3).
    """
    reads, writes = Reads(), Writes()
    clashes: frozenset[str] = _NONE
    for flow in flows:
        clashes |= writes.possible & flow.writes.possible
        reads |= flow.reads
        writes |= flow.writes
    if clashes:
        raise KeyClash(clashes, where=where)
    return Flow(reads, writes)
