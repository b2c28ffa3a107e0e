"""Files of saved programs by strangers, loaded and called: `python -m tests.support.programs.fuzz_files --seconds 60`.

Documents of DSPex's and DSPy's own, with places changed in their meaning or their bytes. Nothing but DSPex's own errors
may come of it, within bounds of time and memory; the endpoint that a file names must never be asked, and the key in the
environment be told to nobody. Exits with 1 where this does not hold, with the number that makes the file again.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import dspex
from dspex.errors import DspexError
from dspex.pools.supervisor import Supervisor
from dspex.programs.files.saved_file import FILE_LIMIT
from dspex.testing import FakeLM
from dspex.types.markers import END, START
from dspex_worker.memory.procfs import rss_of
from tests.support.lm.fuzz_clock import Clock
from tests.support.lm.hostile_bodies import mutate
from tests.support.programs.saved_documents import saved_document, saved_part

KEY = "sk-canary-of-the-environment"
MIB = 1024 * 1024
CPU_LEAST_S, CPU_PER_MIB_S = 1.0, 2.0
PEAK_LEAST, PEAK_PER_BYTE = 48 * MIB, 60
GROWN_MOST = 100 * MIB
IN_WORKER = 0.05  # the share of the loaded programs that a worker runs
MODULES = ("dspy.Predict", "dspy.ChainOfThought", "dspy.ReAct", "dspy.MultiChainComparison")
ODD_NAMES = (
    *(
        "lm",
        "api_base",
        "api_key",
        "headers",
        "config",
        "supervisor",
        "timeout",
        "demos",
        "n",
        "adapter",
        "lms",
        "module",
    ),
    *(
        "implementation",
        "tools",
        "signature",
        "instructions",
        "types",
        "metadata",
        "self",
        "__class__",
        "retriever",
        "url",
    ),
)


class FileFuzz:
    """One run; `evil` is what a file may name, and nobody may dial."""

    def __init__(self, seed: int, folder: Path, sup: Supervisor, lm: FakeLM, evil: str) -> None:
        self.seed = seed
        self.count = 0
        self.outcomes: Counter[str] = Counter()
        self.faults: list[str] = []
        self.worst_cpu = self.worst_peak = (0.0, "")
        self._path = folder / "program.json"
        self._sup = sup
        self._lm = lm
        self._evil = evil
        self._clock = Clock()

    def one(self) -> None:
        """Make one file, load it and call what it holds."""
        self.count += 1
        random = Random(f"{self.seed}/{self.count}")
        content = self._content(random)
        self._path.write_bytes(content)
        what = f"number {self.count}, {len(content):,} bytes: {content[:80]!r}"
        begun = self._clock.begin()
        outcome = self._used(random)
        spent = self._clock.end(begun)
        self.outcomes[type(outcome).__name__ if isinstance(outcome, BaseException) else "called"] += 1
        self.worst_cpu = max(self.worst_cpu, (spent.cpu_s, what))
        self.worst_peak = max(self.worst_peak, (spent.peak / MIB, what))
        self._judge(outcome, spent.cpu_s, spent.peak, len(content), what)

    def _judge(self, outcome: Any, cpu_s: float, peak: int, size: int, what: str) -> None:
        if isinstance(outcome, BaseException) and not isinstance(outcome, DspexError):
            self.faults.append(f"{outcome!r}: {what}")
        if KEY in f"{outcome} {outcome!r}":
            self.faults.append(f"the key is told: {what}")
        if cpu_s > CPU_LEAST_S + CPU_PER_MIB_S * size / MIB:
            self.faults.append(f"{cpu_s:.2f} s of CPU time: {what}")
        if peak > PEAK_LEAST + PEAK_PER_BYTE * size:
            self.faults.append(f"{peak / MIB:.0f} MiB: {what}")

    def _used(self, random: Random) -> Any:
        try:
            known = dspex.predictor("predict", "question -> answer") if random.random() < 0.3 else None
            way = "python" if random.random() < IN_WORKER else "auto"
            loaded = dspex.load(self._path, program=known, lm=self._lm, supervisor=self._sup)
            return loaded.program.using(implementation=way, timeout=20.0)(question="1+1")
        except Exception as error:  # whatever comes is judged
            return error

    def _content(self, random: Random) -> bytes:
        document: Any = saved_document(module=random.choice(MODULES), options=random.choice(({}, {"n": 2})))
        roll = random.random()
        if roll < 0.2:
            del document["metadata"]["dspex"]
        elif roll < 0.5:
            parts = {"react": saved_part(), "extract.predict": saved_part(), "predict": saved_part()}
            document = {**parts, "metadata": document["metadata"]}
        size = random.choice((10, 1_000, 100_000, 1_000_000))
        for _ in range(random.choice((0, 1, 1, 2, 5))):
            mutate(random, document, size) if random.random() < 0.5 else self._spoil(random, document)
        content = json.dumps(document).encode()
        return self._damaged(random, content) if random.random() < 0.2 else content

    def _spoil(self, random: Random, document: Any) -> None:
        """Put a telling name or value somewhere."""
        holder = document
        while isinstance(holder, dict) and holder and random.random() < 0.75:
            inner = [value for value in holder.values() if isinstance(value, dict | list) and value]
            if not inner:
                break
            holder = random.choice(inner)
            while isinstance(holder, list) and holder and isinstance(holder[0], dict):
                holder = random.choice(holder)
        if isinstance(holder, dict):
            holder[random.choice((*ODD_NAMES, *holder))] = self._telling(random)

    def _telling(self, random: Random) -> Any:
        url = self._evil
        marked = f"{START}[{{'type': 'image_url', 'image_url': {{'url': '{url}'}}}}]{END}"
        return random.choice((
            url, {"model": "openai/x", "api_base": url}, {"api_base": url, "headers": {"x": "y"}}, marked, [marked],
            {"import": "os:system"}, "subprocess:Popen", f"value:{'0' * 64}", "__main__:Own", f"Literal[{marked!r}]",
            "list[" * 3000 + "str" + "]" * 3000, "question -> answer: list[dict[str, Any]]", {"$ref": "#/$defs/M"},
            {"M": {"model": {"properties": {"a": {"pattern": "(a+)+$"}}}}}, {"n": 10**9}, {"temperature": url},
            [{"question": marked, "answer": "x"}] * 50, "dspy.ReAct", "mine:Module", 10**400, True, "x" * 1_000_000,
        ))  # fmt: skip

    def _damaged(self, random: Random, content: bytes) -> bytes:
        at = random.randrange(len(content) + 1)
        return random.choice((
            content[:at], content[:at] + random.randbytes(4) + content[at:],
            content[:at] + b"[" * 100_000 + content[at:],
            b'{"a":' * 50_000, b"{}," * 400_000, b"\x00" * 1000, content.replace(b'"', b"'"), content + content,
            b'{"x": [' + b"{}," * 600_000 + b"{}]}", b'{"x": "' + b"a" * (FILE_LIMIT + 1) + b'"}', b"9" * 1_000_000,
        ))  # fmt: skip


@contextlib.contextmanager
def _forbidden() -> Any:
    """Give an address, and what dialled it."""
    dialled: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, peer = listener.accept()
                    dialled.append(peer)
                    connection.close()

        thread = threading.Thread(target=listen)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", dialled
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def main() -> int:
    """Fuzz for a while; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.programs.fuzz_files", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    options = parser.parse_args()
    os.environ["OPENAI_API_KEY"] = KEY
    root = str(Path(__file__).parents[3])
    pool = dspex.PoolConfig("dspy", size=1, env={"PYTHONPATH": f"{root}:{root}/workers"})
    print(f"seed {options.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        _forbidden() as (evil, dialled),
        FakeLM(by_field={"answer": "2", "reasoning": "r"}) as lm,
        dspex.Supervisor(pools=[pool]) as sup,
    ):
        sup.wait_ready()
        fuzz = FileFuzz(options.seed, Path(folder), sup, lm, evil)
        gc.collect()
        before, until = rss_of(os.getpid()), time.monotonic() + options.seconds
        while time.monotonic() < until:
            fuzz.one()
            lm.requests.clear()
        gc.collect()
        grown = rss_of(os.getpid()) - before
        generation = sup.call("dspy", "ping")["generation"]
    if grown > GROWN_MOST:
        fuzz.faults.append(f"the host grew by {grown / MIB:.0f} MiB")
    if dialled:
        fuzz.faults.append(f"the endpoint of a file was dialled {len(dialled)} times")
    print(
        f"{fuzz.count:,} files, seed {options.seed}: {dict(sorted(fuzz.outcomes.items()))}; what they name "
        f"was dialled {len(dialled)} times; generation {generation} of the worker; RSS grew by {grown / MIB:.1f} MiB"
    )
    print(f"worst CPU: {fuzz.worst_cpu[0]:.3f} s ({fuzz.worst_cpu[1]})")
    print(f"worst peak: {fuzz.worst_peak[0]:.1f} MiB ({fuzz.worst_peak[1]})")
    print(*fuzz.faults[:50], f"{len(fuzz.faults)} faults", sep="\n")
    return 1 if fuzz.faults else 0


if __name__ == "__main__":
    sys.exit(main())
