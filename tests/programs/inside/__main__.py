"""Serve cases: read `module function` lines on stdin, run each, answer one JSON line on the descriptor given."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
import warnings
from pathlib import Path


def main() -> None:
    answers = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    root = Path(__file__).resolve().parents[3]
    sys.path[:0] = [str(root / "workers"), str(Path(__file__).resolve().parents[1])]
    warnings.simplefilter("error")
    from inside.parent import start

    start()
    for line in sys.stdin:
        module, name = line.split()
        error = ""
        try:
            getattr(importlib.import_module(f"inside.{module}"), name)()
        except BaseException:
            error = traceback.format_exc()
        answers.write(json.dumps({"error": error}) + "\n")


main()
