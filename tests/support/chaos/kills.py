"""Kills under load, the long run.

    python -m tests.support.chaos.kills --calls 1000000 --kill-every 10000
    python -m tests.support.chaos.kills --calls 600000 --kill-every-s 1


Prints what became of the calls, how fast, and what the process held before and after.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from tests.support.chaos.plan import Plan
from tests.support.chaos.run import ChaosRun

MIB = 1024 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.chaos.kills", description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--kill-every", type=int, default=10_000, help="calls; 0 for none")
    parser.add_argument("--kill-every-s", type=float, default=0.0, help="seconds; 0 for none")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--size", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    plan = Plan(options.seed, options.calls, options.kill_every)
    with tempfile.TemporaryDirectory() as folder:
        run = ChaosRun(
            plan, Path(folder), in_flight=options.in_flight, size=options.size, kill_every_s=options.kill_every_s
        )
        run.execute()
        run.ledger.check(run.effects)
    print(f"seed {options.seed}: {options.calls:,} calls in {run.seconds:.1f} s ({options.calls / run.seconds:,.0f}/s)")
    print(f"kills {run.kills}; " + "; ".join(f"{how} {n:,}" for how, n in run.ledger.counts.most_common()))
    for name in ("descriptors", "threads", "children"):
        print(f"{name} {getattr(run.warm, name)} -> {getattr(run.end, name)}")
    print(f"rss {run.warm.rss / MIB:.1f} -> {run.end.rss / MIB:.1f} MiB")


if __name__ == "__main__":
    main()
