"""What one piece of work costs this process: CPU time, peak memory, and how long it blocked the event loop."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from pathlib import Path

TICK_S = 0.002
_KIB = re.compile(rb"Vm(HWM|RSS):\s+(\d+) kB")


@dataclass(frozen=True, slots=True)
class Spent:
    """What one reply cost."""

    cpu_s: float
    peak: int  # bytes over what there was before
    block_s: float


class Clock:
    """Measures; `tick` runs beside the work, on its loop.

    A tick that comes late was held up by work of this process or by the machine's others: of the delay, no more is
    counted than the CPU time that this process had meanwhile.
    """

    def __init__(self) -> None:
        self._worst_s = 0.0

    async def tick(self) -> None:
        """Tick until it is cancelled."""
        while True:
            began, cpu = time.monotonic(), time.process_time()
            await asyncio.sleep(TICK_S)
            late = time.monotonic() - began - TICK_S
            self._worst_s = max(self._worst_s, min(late, time.process_time() - cpu))

    def begin(self) -> tuple[float, int]:
        """Begin a piece of work."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew (proc_pid_clear_refs(5))
        self._worst_s = 0.0
        return time.process_time(), _memory()["RSS"]

    def end(self, begun: tuple[float, int]) -> Spent:
        """End it."""
        cpu, rss = begun
        return Spent(time.process_time() - cpu, max(0, _memory()["HWM"] - rss), self._worst_s)


def _memory() -> dict[str, int]:
    status = Path("/proc/self/status").read_bytes()
    return {name.decode(): int(kib) * 1024 for name, kib in _KIB.findall(status)}
