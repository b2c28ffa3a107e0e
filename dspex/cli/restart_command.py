"""`dspex restart`: let a service finish its calls, begin anew as it was started, and wait until it serves."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import click

from ..control import run_files
from ..control.command_client import DirectClient
from ..control.process_end import ProcessEnd
from ..control.process_identity import Life
from ..control.unreachable import explained
from ..errors import ConnectionLost, DspexError, NotRunning, Unresponsive
from .exit_codes import FAILED, OK
from .option_types import SPAN
from .printing import print_json, print_line
from .shared_options import command, target_options
from .target import Target

LOOK = 0.05  # seconds between looks
BOOT = 120.0  # seconds beyond the grace until it must serve again


@command(
    "restart",
    more="It reads its settings first: if they have become wrong it goes on as it is. The pid, the words and the "
    "environment with which it was started stay the same.",
)
@target_options
@click.option("--grace", type=SPAN, metavar="S", help="For running calls (default: the pools').")
@click.option("--timeout", type=SPAN, metavar="S", help="Wait no longer; it goes on (default: grace and 120 s).")
def restart(target: Target, grace: float | None, timeout: float | None, as_json: bool) -> int:
    """Restart it and wait; 1 if calls were cut, or it does not serve in time."""
    path = target.path
    before = run_files.read(path)
    with ProcessEnd(path) as ending:
        with explained(path), DirectClient(path) as client:
            limits = client.greeting.get("timeouts", {}).values()
            longest = max((limit for limit in limits if math.isfinite(limit)), default=3600.0)
            client.restart(grace)
        wait = timeout if timeout is not None else (longest if grace is None else grace) + BOOT
        seen = _served_again(path, before, ending, wait)
        cut = ending.calls_cut
    who = seen["supervisor"]
    if as_json:
        print_json({"name": who["name"], "pid": who["pid"], "socket": str(path), "calls_cut": cut})
    else:
        lost = f"; {cut} call(s) were running and have been cut" if cut else ""
        print_line(f"restarted {who['name']} (pid {who['pid']}){lost}")
    return FAILED if cut else OK


def _served_again(path: Path, before: run_files.RunFile | None, ending: ProcessEnd, wait: float) -> dict[str, Any]:
    """Wait until a new service serves there; return its status.

    Raises:
        DspexError: it ended instead, or does not serve in time.
    """
    deadline = time.monotonic() + wait
    token = before.token if before is not None else ""
    why = "it still runs its calls"
    while time.monotonic() < deadline:
        now = run_files.read(path)
        if now is not None and now.token != token:
            try:
                with DirectClient(path) as client:
                    seen = client.status()
                if all(row["is_ready"] for row in seen["health"].values()):
                    return seen
                why = "; ".join(f"{row['pool']}: {row['reason']}" for row in seen["health"].values() if row["reason"])
            except (NotRunning, ConnectionLost, Unresponsive) as error:
                why = str(error)
        if ending.life is Life.GONE:
            raise DspexError(f"The service at {path} has ended and does not run again; look into its log.")
        time.sleep(LOOK)
    raise DspexError(f"The service at {path} does not serve after {wait:g} s: {why}.")
