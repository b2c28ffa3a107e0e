"""Four client processes on one service, with a client and the service killed in the middle: `make clients`.

    python -m tests.support.client_load [CALLS] [CLIENTS]

Prints what came of each client's calls. Fails if a call ended with another's answer, with an error that is none of a
lost connection's, or if a client did not go on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from dspex.control import Client
from tests.support.client_service import ServiceOfPrograms, served
from tests.support.paths import ROOT
from tests.support.waiting import eventually

EXPECTED = ("ok", "ConnectionLost (if_idempotent)", "ConnectionLost (now)")


class ClientProcesses:
    """Client processes of one service."""

    def __init__(self, service: ServiceOfPrograms, names: list[str], calls: int) -> None:
        self._processes = {
            name: subprocess.Popen(
                [sys.executable, "-m", "tests.support.client_process", str(service.socket), name, str(calls)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
                text=True,
            )
            for name in names
        }

    def begin(self) -> None:
        """Let all begin, once all are connected."""
        for process in self._processes.values():
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in self._processes.values():
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

    def kill(self, name: str) -> None:
        """SIGKILL one."""
        process = self._processes.pop(name)
        process.kill()
        process.communicate()

    def results(self, timeout: float) -> list[dict[str, Any]]:
        """Return what each that lives says in the end."""
        ends = [process.communicate(timeout=timeout)[0] for process in self._processes.values()]
        self._processes.clear()
        return [json.loads(said) for said in ends]

    def end(self) -> None:
        """Kill what is left."""
        for name in tuple(self._processes):
            self.kill(name)


def run(service: ServiceOfPrograms, *, clients: int = 4, calls: int = 250) -> list[dict[str, Any]]:
    """Have them call, kill a client when some calls have ended and the service later; return what the others say."""
    names = [f"web{number}" for number in range(clients)]
    processes = ClientProcesses(service, names, calls)
    try:
        processes.begin()
        whole = clients * calls
        eventually(lambda: len(service.lm.requests) >= whole // 4, within=120.0, what="a quarter is under way")
        processes.kill(names[0])
        eventually(lambda: len(service.lm.requests) >= whole // 2, within=120.0, what="half is under way")
        service.kill()
        service.start()
        return processes.results(timeout=300.0)
    finally:
        processes.end()


def faults_in(results: list[dict[str, Any]], calls: int) -> list[str]:
    """Return what is wrong with the results."""
    found = []
    for result in results:
        outcomes, name = result["outcomes"], result["name"]
        if sum(outcomes.values()) != calls:
            found.append(f"{name}: {sum(outcomes.values())} of {calls} calls ended")
        found += [f"{name}: {outcome} {count}" for outcome, count in outcomes.items() if outcome not in EXPECTED]
        if set(result["afterwards"]) != {"ok"}:
            found.append(f"{name} did not go on: {result['afterwards']}")
    return found


def main() -> None:
    calls, clients = (int(text) for text in (*sys.argv[1:3], "250", "4")[:2]) if len(sys.argv) > 2 else (250, 4)
    if len(sys.argv) == 2:
        calls = int(sys.argv[1])
    began = time.monotonic()
    with served(size=2, concurrency=8) as service:
        results = run(service, clients=clients, calls=calls)
        with Client(service.socket) as client:
            in_flight = {name: row["in_flight"] + row["queued"] for name, row in client.stats().items()}
    for result in results:
        print(f"{result['name']}  {result['seconds']:6.1f} s  {result['outcomes']}  then {result['afterwards']}")
    print(f"{time.monotonic() - began:.1f} s in all; left in flight: {in_flight}")
    if faults := faults_in(results, calls):
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
