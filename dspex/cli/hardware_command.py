"""`dspex hardware`: show what this machine offers, and what a pool of which size would take of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .printed_units import size
from .printing import print_json, print_text
from .shared_options import command
from .tables import facts, table

if TYPE_CHECKING:
    from .worker_sizes import PoolSize

SIZES = (1, 2, 4, 8, 16, 32, 64)


@command("hardware", more="It starts a pool of two workers for a moment, to measure what DSPy takes here.")
@click.option("--bridge", default="dspy", metavar="NAME", help="Of the pool that is measured (default: dspy).")
@click.option("--quick", is_flag=True, help="Measure no workers (seconds).")
def hardware(bridge: str, quick: bool, as_json: bool) -> None:
    """Print both."""
    from .machine_facts import cores, gpus, memory, shared_memory

    cpu, ram, shm, cards = cores(), memory(), shared_memory(), gpus()
    measured: PoolSize | None = None
    if not quick:
        from .worker_sizes import measured_size

        measured = measured_size(bridge)
    pools = [] if measured is None else [_pool(measured, count, cpu.counted, ram.free) for count in SIZES]
    if as_json:
        print_json({
            "cores": {**asdict(cpu), "counted": cpu.counted},
            "memory": {**asdict(ram), "free": ram.free},
            "shared_memory": None if shm is None else {"total": shm[0], "free": shm[1]},
            "gpus": [asdict(card) for card in cards],
            "measured": None if measured is None else asdict(measured),
            "pools": pools,
        })  # fmt: skip
        return
    limits = "" if ram.cgroup_limit is None else f"; the control group allows {size(ram.cgroup_limit)}"
    quota = "" if cpu.quota is None else f", a quota of {cpu.quota:g}"
    shown = {
        "cores": f"{cpu.present}, {cpu.usable} usable{quota}",
        "memory": f"{size(ram.total)}, {size(ram.free)} free{limits}",
        "/dev/shm": "none" if shm is None else f"{size(shm[0])}, {size(shm[1])} free",
        "GPUs": ", ".join(f"{card.name} ({size(card.total)}, {size(card.used)} used)" for card in cards) or "none seen",
    }
    if measured is not None:
        shown["a worker"] = f"{size(measured.worker)}, beside {size(measured.base)} for the pool ({bridge}, measured)"
    print_text(facts(shown))
    if pools:
        rows = [(str(row["size"]), size(row["bytes"]), row["fits"], row["cores"]) for row in pools]
        print_text("\n" + table(("workers", "memory", "fits", "cores"), rows))


def _pool(measured: PoolSize, count: int, cores: float, free: int) -> dict[str, Any]:
    taken = measured.of(count)
    share = "one each" if count <= cores else f"{count / cores:.1f} workers each"
    return {"size": count, "bytes": taken, "fits": "yes" if taken <= free else "no", "cores": share}
