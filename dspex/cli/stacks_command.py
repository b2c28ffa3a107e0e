"""`dspex stacks`: show where a worker's threads are."""

from __future__ import annotations

from collections.abc import Iterator

import click

from .calls_command import HEADS, cells
from .exit_codes import FAILED, OK
from .printing import print_error, print_json, print_line, print_text
from .shared_options import command, target_options
from .tables import table
from .target import Target

_OWN = "dspex_worker"  # the frames of the worker's own code, below those of the call
_BEGINS = ("Thread ", "Current thread ")


@command(
    "stacks",
    more="Also of a worker that hangs or holds the GIL in C. The latest call of each thread is first; the frames of "
    "DSPex itself below a call are left out, but with --all.",
)
@target_options
@click.argument("worker", metavar="WORKER", help="Its name, such as dspy/0, or its pid.")
@click.option("--all", "shows_all", is_flag=True, help="Show the frames of DSPex too.")
def stacks(target: Target, worker: str, shows_all: bool, as_json: bool) -> int:
    """Print them, with the calls that it runs; 1 if it does not answer."""
    with target.connect() as client:
        seen = client.stacks(int(worker) if worker.isdecimal() else worker)
        running = [row for row in client.calls() if row["pid"] == seen["pid"]]
    if as_json:
        print_json({**seen, "calls": running})
        return OK if seen["stacks"] else FAILED
    print_line(f"worker {seen['worker']}, generation {seen['generation']}, pid {seen['pid']}")
    if running:
        print_text(table(HEADS, [cells(row) for row in running], indent=2))
    for line in seen["stacks"].splitlines() if shows_all else shortened(seen["stacks"]):
        print_line(line)
    if seen["problem"]:
        print_error(f"worker {seen['worker']}: {seen['problem']}")
    return OK if seen["stacks"] else FAILED


def shortened(text: str) -> Iterator[str]:
    """Yield the lines of stacks, each thread's down to where DSPex's own code called it."""
    is_below = was_code = False
    for line in text.splitlines():
        if line.startswith(_BEGINS):
            is_below = was_code = False
        elif line.startswith("  File ") and not is_below:
            is_own = f"/{_OWN}/" in line
            is_below = is_own and was_code
            was_code = was_code or not is_own
            if is_below:
                yield "  ..."
        if not is_below or not line.startswith("  "):
            yield line
