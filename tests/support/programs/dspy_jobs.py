"""Runs in a subprocess: DSPy itself evaluates and optimizes on an endpoint, so that the tests never import dspy.

    python -m tests.support.programs.dspy_jobs API_BASE API_KEY

The jobs are on stdin, as JSON: {"evaluate": metric, "rows": [...], "config": {...}}, or {"optimize": name, ...}; the
answers are on stdout, a line each.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

LABELED = "text -> label: Literal['spam', 'ham'], score: float"


def main() -> None:
    import dspy

    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    lm = dspy.LM("openai/fake", api_base=sys.argv[1], api_key=sys.argv[2], cache=False, num_retries=0)
    dspy.configure(lm=lm)
    for job in json.load(sys.stdin):
        sys.stdout, real = sys.stderr, sys.stdout  # DSPy's optimizers print
        try:
            answer = _done(dspy, job)
        finally:
            sys.stdout = real
        print(json.dumps(answer), flush=True)


def _done(dspy: Any, job: dict[str, Any]) -> Any:
    rows = [dspy.Example(**row).with_inputs(*job["inputs"]) for row in job["rows"]]
    program = dspy.Predict(job["signature"], **job.get("config", {}))
    module, _, name = job["metric"].partition(":")
    metric = getattr(importlib.import_module(module), name)
    if "optimize" not in job:
        found = dspy.Evaluate(devset=rows, metric=metric, num_threads=2, max_errors=1000)(program)
        return {"score": found.score, "scores": [float(score) for *_, score in found.results]}
    kind = getattr(dspy, job["optimize"])
    best = kind(metric=metric, **job["options"]).compile(program, trainset=rows)
    return {"demos": [dict(demo.items()) for demo in best.demos]}


if __name__ == "__main__":
    main()
