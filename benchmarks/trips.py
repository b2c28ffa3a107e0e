"""How far a call travels through the source: `python -m benchmarks.trips` prints a table of warm calls.

For each trip: the functions of ours that are called in this process, the files that they are in, and how often the next
function is in another file than the one before, per thread and summed. It counts steps, not time: the same code gives
the same figures on every machine. Workers, and the scripted endpoint in `dspex.testing`, are not looked at.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import dspex
import dspex_worker
from benchmarks.report import Row, table
from dspex.control import Service
from dspex.testing import FakeLM

OURS = tuple(f"{Path(str(package.__file__)).parent}{os.sep}" for package in (dspex, dspex_worker))
LEFT_OUT = f"{OURS[0]}testing{os.sep}"
WARM, COUNTED = 30, 9  # calls
SETTLING = 0.05  # seconds in which other threads do what follows from a call
Trip = Callable[[], object]


class Recorder:
    """Notes every call of a function of ours, in whatever thread, while it is on."""

    def __init__(self) -> None:
        self._files: defaultdict[int, list[str]] = defaultdict(list)  # by thread, in the order of the calls
        self._is_on = False

    def install(self) -> None:
        """Look at this thread, and at those that are started from now on."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def remove(self) -> None:
        threading.setprofile(None)
        sys.setprofile(None)

    def record(self, trip: Trip) -> tuple[int, int, int, int]:
        """Give (calls, files, switches of the file, threads) of one trip."""
        self._files.clear()
        self._is_on = True
        trip()
        time.sleep(SETTLING)
        self._is_on = False
        threads = [files for files in self._files.values() if files]
        calls = sum(map(len, threads))
        switches = sum(before != after for files in threads for before, after in pairwise(files))
        return calls, len({file for files in threads for file in files}), switches, len(threads)

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if self._is_on and event == "call":
            code = frame.f_code
            file = code.co_filename
            if file.startswith(OURS) and not file.startswith(LEFT_OUT) and not code.co_name.startswith("<"):
                self._files[threading.get_ident()].append(file)


def rows() -> list[Row]:
    """Measure every trip; the least of some calls, for a timer may fall into one."""
    recorder = Recorder()
    recorder.install()
    found: list[Row] = []
    try:
        with _trips() as trips:
            for name, trip in trips.items():
                for _ in range(WARM):
                    trip()
                time.sleep(SETTLING)
                calls, files, switches, threads = min(recorder.record(trip) for _ in range(COUNTED))
                found.append({"trip": name, "calls": calls, "files": files, "switches": switches, "threads": threads})
    finally:
        recorder.remove()
    return found


@contextlib.contextmanager
def _trips() -> Iterator[dict[str, Trip]]:
    pool = dspex.PoolConfig("faults", bridge="faults", size=2)
    folder = tempfile.TemporaryDirectory(prefix="dspex-")
    with folder, FakeLM({"": "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"}) as lm:
        two_steps = dspex.pipeline([dspex.native(lambda x: x + 1, into="y"), dspex.native(lambda y: y + 1, into="z")])
        with dspex.Supervisor(pools=[pool]) as supervisor:
            supervisor.wait_ready()
            with Service(supervisor, Path(folder.name) / "s") as service, dspex.connect(service.path) as client:
                yield {
                    "Supervisor.call": lambda: supervisor.call("faults", "echo", {"n": 1}),
                    "predict, native route": lambda: dspex.predict("question -> answer", {"question": "?"}, lm=lm),
                    "pipeline of two native steps": lambda: two_steps.run({"x": 1}),
                    "call by the control socket": lambda: client.call("faults", "echo", {"n": 1}),
                }


if __name__ == "__main__":
    print(table(rows()))
