"""Valid frames with odd contents, said by real workers to a live supervisor, with good workers beside them.

    python -m tests.support.chaos.odd_messages --seconds 60 [--seed N]

Every kind of message, each field replaced, spoiled inside, repeated or out of turn. Only DSPex's own errors may reach a
caller, the good pool must answer every call, the engine must live, and the host's memory stay bounded.
"""

from __future__ import annotations

import argparse
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from random import Random, SystemRandom
from unittest import mock

from dspex.config import PoolConfig
from dspex.errors import DspexError
from dspex.lm.call_history import CallHistory
from dspex.lm.observing import Observing
from dspex.pools.callbacks import Callback
from dspex.pools.state import restarts
from dspex.pools.supervisor import Supervisor
from dspex.programs.native.observer import Observer, Watch
from dspex.services.code import SentCode
from dspex.services.services import Services, services_of
from dspex.types.tool import Tool
from dspex_worker.memory.procfs import rss_of
from tests.support.paths import ODD_BRIDGE as BRIDGE

CALLERS = 4
MIB = 1024 * 1024


class OddWords:
    """One run; `outcomes` counts what callers of the odd workers got, `good` the answers of the good ones."""

    def __init__(self, seed: int, *, frames: int | None = None, seconds: float | None = None) -> None:
        self.outcomes: Counter[str] = Counter()
        self.frames = 0
        self.good = 0
        self.faults: list[BaseException] = []
        self.grown = 0
        self._random = Random(seed)
        self._frames = frames
        self._until = None if seconds is None else time.monotonic() + seconds
        self._lock = threading.Lock()
        self._is_over = threading.Event()

    def run(self) -> None:
        """Raises what a caller must never see."""
        odd = {"bridge": BRIDGE, "size": 3, "concurrency": 2, "stop_grace": 0.2, "restart_budget": (1_000_000, 1.0)}
        pools = [
            PoolConfig("odd", **odd, options={"odd": 0.2}, cancel_grace=0.2, session_limit=500),
            PoolConfig("good", bridge="faults", size=1, stop_grace=0.5),
        ]
        patched = mock.patch.object(restarts, "LONGEST_WAIT", 0.0)
        with patched, Supervisor(pools=pools).start() as sup, contextlib.ExitStack() as opened:
            opened.enter_context(_services_known(services_of(sup)))
            sup.register("endless", _endless)
            sup.on_event(lambda event: repr(event.facts))
            sup.pool("good").lifecycle.wait_ready(30)
            before = _own_rss()
            threads = [threading.Thread(target=self._guard, args=(self._be_odd, sup)) for _ in range(CALLERS)]
            company = threading.Thread(target=self._guard, args=(self._be_good, sup))
            for thread in (company, *threads):
                thread.start()
            for thread in threads:
                thread.join()
            self._is_over.set()
            company.join()
            self.grown = _own_rss() - before
            if self.faults:
                raise self.faults[0]
            assert sup.call("good", "echo", {"n": 1}, timeout=10) == {"n": 1}
            assert sup._engine.is_alive

    def _guard(self, work: Callable[[Supervisor], None], sup: Supervisor) -> None:
        try:
            work(sup)
        except BaseException as error:
            self.faults.append(error)

    def _be_good(self, sup: Supervisor) -> None:
        while not self._is_over.is_set():
            assert sup.call("good", "echo", {"n": self.good}, timeout=20) == {"n": self.good}
            self.good += 1
            self._is_over.wait(0.002)

    def _be_odd(self, sup: Supervisor) -> None:
        while (seed := self._next_seed()) is not None:
            try:
                said = self._say(sup, seed)
            except DspexError as error:
                said = type(error).__name__
            with self._lock:
                self.outcomes[said] += 1

    def _say(self, sup: Supervisor, seed: int) -> str:
        """Have one frame said; the seed decides in which kind of call."""
        arguments = {"seed": seed}
        match seed % 4:
            case 0:
                with sup.session("odd", durable=True) as session:
                    session.call("speak", arguments, timeout=10)
            case 1:
                with sup.stream("odd", "speak_stream", arguments, timeout=10) as stream:
                    list(stream)
            case _:
                sup.call("odd", "speak", arguments, session=None if seed % 8 > 4 else f"s{seed}", timeout=10)
        return "answered"

    def _next_seed(self) -> int | None:
        with self._lock:
            is_enough = self._frames is not None and self.frames >= self._frames
            if is_enough or self.faults or (self._until is not None and time.monotonic() > self._until):
                return None
            self.frames += 1
            return self._random.randrange(2**31)


@contextlib.contextmanager
def _services_known(services: Services) -> Generator[None]:
    """Let odd words reach what calls of programs register: a tool, a metric, an observer, code; all "known"."""
    watch = Watch(True, (CallHistory(),), (_Callbacks(),), Observing(), 1)
    code = SentCode("known", f"value:{'0' * 64}", b"code")
    with (
        services.tools.registered("known", [Tool(known)]),
        services.metrics.registered("known", lambda example, prediction, trace=None: len(prediction.keys())),
        services.call_observers.registered("known", Observer(watch)),
        services.code.registered([code]),
    ):
        yield


def known(n: int) -> int:
    """Add one."""
    return n + 1


class _Callbacks:
    """Shows what it is told, as a user's would."""

    def on_lm_start(self, call_id: str, instance: object, inputs: object) -> None:
        repr((call_id, instance, inputs))

    def on_lm_end(self, call_id: str, outputs: object, exception: BaseException | None = None) -> None:
        repr((call_id, outputs, exception))


async def _endless(request: Callback) -> object:  # type: ignore[misc]
    while True:
        yield b"x" * 1000


def _own_rss() -> int:
    import os

    return rss_of(os.getpid())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.chaos.odd_messages", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    run = OddWords(options.seed, seconds=options.seconds)
    run.run()
    print(
        f"{run.frames:,} odd frames, seed {options.seed}: {dict(run.outcomes)}; the good pool answered {run.good:,} of "
        f"{run.good:,}; RSS grew by {run.grown / MIB:.1f} MiB"
    )


if __name__ == "__main__":
    main()
