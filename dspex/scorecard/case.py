"""A case of the scorecard, and the list that `cases` fills."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .peers import Need
from .stage import Stage

Facts = dict[str, Any]


class Ending(StrEnum):
    """The ways in which the host's process ends, once the case has run in it."""

    WHATEVER = "whatever"  # the case has noted its facts: nobody looks
    KILLED = "killed"  # by SIGKILL; what is left of the pool is counted
    EXITS = "exits"  # its program returns; the same, and how long that took


@dataclass(frozen=True, slots=True)
class Case:
    """One fault, its words, and what a pool must have for it."""

    name: str
    title: str
    run: Callable[[Stage], Facts]
    needs: tuple[Need, ...] = ()
    ending: Ending = Ending.WHATEVER


CASES: dict[str, Case] = {}


def case(
    name: str, title: str, *needs: Need, ending: Ending = Ending.WHATEVER
) -> Callable[[Callable[[Stage], Facts]], Callable[[Stage], Facts]]:
    """Register a function as a case of the scorecard; its order is that of the file."""

    def register(run: Callable[[Stage], Facts]) -> Callable[[Stage], Facts]:
        CASES[name] = Case(name, title, run, needs, ending)
        return run

    return register
