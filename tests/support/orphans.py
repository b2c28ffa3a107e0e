"""A host that is killed, for the tests of what outlives it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import time

from tests.support.waiting import eventually, is_alive


class Host:
    """A process that runs a supervisor; `pids` are those of its workers, its fork server and what they started."""

    def __init__(self, body: str, *, concurrency: int = 2, start_method: str = "fork") -> None:
        indented = textwrap.indent(textwrap.dedent(body), "    ")
        code = HOST.format(body=indented, concurrency=concurrency, start_method=start_method)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore:This process", "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            self.process.kill()
            with self.process:
                raise AssertionError(self.process.communicate()[1].decode())
        self.pids: list[int] = json.loads(line)

    def gone_after(self, within: float) -> float:
        """Wait until everything is gone; gives how long that took."""
        began = time.monotonic()
        eventually(lambda: not any(map(is_alive, self.pids)), within=within, what=f"{self.pids} are gone")
        return time.monotonic() - began

    def finish(self, timeout: float) -> tuple[int, bytes]:
        out, err = self.process.communicate(timeout=timeout)
        assert err == b"", err.decode()
        return self.process.returncode, out

    def close(self) -> None:
        self.process.kill()
        for pid in self.pids:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        with self.process:
            self.process.communicate()


SPINNING = """
children = [sup.call("f", "spawn", {"seconds": 600, "detach": detach}) for detach in (True, False)]
children.append(sup.call("f", "daemonize", {"seconds": 600}))
pids += children
for _ in range(2):
    threading.Thread(target=sup.call, args=("f", "spin_c", {"seconds": 600}), daemon=True).start()
while sup.stats()["f"]["in_flight"] < 2:
    time.sleep(0.01)
time.sleep(0.1)
tell()
time.sleep(600)
"""


HOST = """
import json, os, sys, threading, time
from dspex.config import PoolConfig
from dspex.pools.supervisor import Supervisor

def main():
    sup = Supervisor(pools=[PoolConfig("f", bridge="faults", size=2, concurrency={concurrency}, stop_grace=30.0,
                                       start_method={start_method!r})])
    sup.start().wait_ready()
    while sum(w["phase"] == "ready" for w in sup.stats()["f"]["workers"]) < 2:
        time.sleep(0.01)
    pids = [w["pid"] for w in sup.stats()["f"]["workers"]]
    pids.append(int(sup.stats()["f"]["reaper"].split()[-1]))

    def tell():
        print(json.dumps(pids), flush=True)
{body}

main()
"""
