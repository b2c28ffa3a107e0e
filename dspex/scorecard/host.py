"""Run one trial in its host process: one peer, one case, and a report file.

`trial` starts it with `python -c`, because some pools load the host's main module by its path in their workers. Its
standard output belongs to whatever prints there; its standard error goes to a file of the trial's.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from .cases import CASES, Ending
from .peers import peer_class
from .stage import Stage

REPORT = "report.json"


def main() -> None:
    """Arguments: the peer's "module:Class", the case's name, the trial's folder."""
    target, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    chosen = CASES[name]
    try:
        facts = chosen.run(Stage(peer_class(target)(), folder))
    except BaseException as error:  # the trial's verdict must say so, whatever it was
        _report(folder, {"broken": f"{type(error).__name__}: {error}"})
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    _report(folder, {"facts": facts})
    if chosen.ending is Ending.EXITS:
        return
    if chosen.ending is Ending.KILLED:
        threading.Event().wait()
    os._exit(0)


def _report(folder: Path, found: dict[str, Any]) -> None:
    """Write it whole or not at all: the trial looks at any time."""
    half = folder / f"{REPORT}.half"
    half.write_text(json.dumps({**found, "at": time.monotonic()}))
    half.rename(folder / REPORT)
