"""`python -m benchmarks [NAME ...] [--quick] [--out DIR]`: the speed beside the peers, or by name what takes longer."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from benchmarks import calls, chaos, deaths, idle, large, metrics, modules, predict, queued, starts, streams
from benchmarks.report import machine, table

SPEED = {
    "calls": calls.run,
    "predict": predict.run,
    "modules": modules.run,
    "starts": starts.run,
    "streams": streams.run,
    "metrics": metrics.run,
    "large": large.run,
}
FAULTS = {"chaos": chaos.run, "deaths": deaths.run, "queue": queued.run, "idle": idle.run}
BENCHES = SPEED | FAULTS


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(BENCHES)} (default: {', '.join(SPEED)})")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and calls: a look, not a figure")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="where the JSON goes")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHES]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}: choose from {', '.join(BENCHES)}")
    results = {"machine": machine(), "date": time.strftime("%Y-%m-%d %H:%M"), "quick": arguments.quick}
    for name in arguments.names or SPEED:
        found = BENCHES[name](quick=arguments.quick)
        results[name] = found
        for title, rows in found.items():
            print(f"\n{title}\n{table(rows)}", flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"bench-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(results, indent=2))
    print(f"\nWritten to {path}")


if __name__ == "__main__":
    main()
