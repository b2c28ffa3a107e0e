"""A module of a pool's `imports` that imports what it needs, in every way there is."""

from __future__ import annotations

import functools
from os import system
from pathlib import Path
from shutil import rmtree as remove
from subprocess import Popen, run

from tests.support.victims import library
from tests.support.victims.library import Agent, handler, mailer, seeded
from tests.support.victims.library import send as deliver

try:
    from random import shuffle as mix
except ImportError:
    mix = None  # type: ignore[assignment]

from tests.support.victims.passing import *  # noqa: F403


class Own:
    """The module's own."""

    def __call__(self, query: str, k: int = 3) -> list[str]:
        return [query]


def scored(example: object, prediction: object, trace: object = None) -> float:
    """A metric of its own."""
    return 1.0


own = Own()
halved = functools.partial(scored, trace=None)
wrapped = library.Mailer()
USED = (system, Path, remove, Popen, run, Agent, handler, mailer, seeded, deliver)
