"""Birth: what a forked child of the template does to become a worker. Runs in the child, and never returns."""

from __future__ import annotations

import os
import random
import resource
import sys
from typing import Any, NoReturn

from .bridge import Bridge
from .startup import EXIT_BOOT, run_worker

STDIO = 3  # descriptors 0, 1 and 2


class Gate:
    """Holds a child back until its parent opens the gate, or is gone."""

    def __init__(self) -> None:
        self._inside, self._outside = os.pipe2(os.O_CLOEXEC)

    def open(self) -> None:
        """In the parent."""
        os.close(self._inside)
        os.close(self._outside)

    def wait(self) -> None:
        """In the child: give back the own copy of the parent's end, whose closing is the sign."""
        os.close(self._outside)
        os.read(self._inside, 1)
        os.close(self._inside)


def be_worker(settings: dict[str, Any], bridge: Bridge | None, descriptors: list[int], gate: Gate | None) -> NoReturn:
    """Become a session of its own, drop all that is the template's, and go: on as a fork, or through exec."""
    try:
        os.setsid()
        if gate is not None:
            gate.wait()
        for target, descriptor in enumerate(descriptors[:STDIO]):
            os.dup2(descriptor, target)
        lifeline = descriptors[STDIO]
        _close_inherited(keep=lifeline)
        if bridge is None:
            os.set_inheritable(lifeline, True)
            python = settings["python"]
            os.execv(python, [python, "-P", "-m", "dspex_worker", "--lifeline", str(lifeline)])
        _reseed()
        run_worker(lifeline, bridge)
    except BaseException as error:  # a forked child must never run on as a second template
        os.write(2, f"the worker could not start: {error}\n".encode(errors="replace"))
    os._exit(EXIT_BOOT)


def _close_inherited(keep: int) -> None:
    os.closerange(STDIO, keep)
    try:
        last = max(int(entry.name) for entry in os.scandir("/proc/self/fd"))
    except OSError:  # no /proc: as many as there may be
        last = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    os.closerange(keep + 1, last + 1)


def _reseed() -> None:
    """Two children must not draw the same numbers; numpy's global generator does not reseed itself at fork."""
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed(int.from_bytes(os.urandom(4), "little"))
