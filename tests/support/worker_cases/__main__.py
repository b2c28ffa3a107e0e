"""Serve cases: read `module function` lines on stdin, run each, answer one JSON line on the descriptor given."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
import warnings

from tests.support.paths import ROOT


def main() -> None:
    answers = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    sys.path.insert(0, str(ROOT / "workers"))
    warnings.simplefilter("error")
    from tests.support.worker_cases.parent import start

    start()
    for line in sys.stdin:
        module, name = line.split()
        error = ""
        try:
            getattr(importlib.import_module(f"tests.support.worker_cases.{module}"), name)()
        except BaseException:
            error = traceback.format_exc()
        answers.write(json.dumps({"error": error}) + "\n")


main()
