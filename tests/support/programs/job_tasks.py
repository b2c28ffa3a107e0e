"""A task whose answers depend on the whole prompt, so that optimizers find something; and how each is given it.

    python -m tests.support.programs.job_tasks API_BASE API_KEY JOURNAL OPTIMIZER begin|resume

runs the job in a process of its own, which a test may kill; its result is a line of JSON on stdout.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import dspex
from dspex.testing import FakeLM

ROWS = [{"question": f"What is {number} doubled?", "answer": str(2 * number)} for number in range(8)]
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "bootstrap": {"max_bootstrapped_demos": 3, "max_labeled_demos": 4},
    "random_search": {"num_candidate_programs": 3, "max_bootstrapped_demos": 2, "max_labeled_demos": 2},
    "miprov2": {"num_candidates": 4, "num_trials": 6, "minibatch": True, "minibatch_size": 3, "seed": 5},
    "gepa": {"max_metric_calls": 50, "seed": 3},
    "copro": {"breadth": 3, "depth": 2},
    "simba": {"bsize": 4, "num_candidates": 2, "max_steps": 3, "seed": 1},
    "infer_rules": {"num_candidates": 3, "max_bootstrapped_demos": 2},
    "optuna": {"num_candidate_programs": 3, "max_bootstrapped_demos": 2, "max_labeled_demos": 2, "max_demos": 2},
    "better_together": {
        "optimizers": {
            "r": {"optimizer": "random_search", "num_candidate_programs": 2, "max_bootstrapped_demos": 2},
            "c": {"optimizer": "copro", "breadth": 3, "depth": 1},
        },
        "strategy": "r -> c",
        "valset_ratio": 0.5,
    },
    "labeled": {"k": 3},
}


def is_right(example: Any, prediction: Any, trace: Any = None) -> bool:
    """Whether the number is right."""
    return bool(example["answer"] == prediction["answer"])


def _chance(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % 100


def _answer(request: Any) -> str:
    number = int("".join(filter(str.isdigit, request.inputs["question"])) or 0)
    is_known = _chance(json.dumps(request.messages)) < 55
    return str(2 * number) if is_known else "no idea"


def _said(request: Any) -> str:
    return f"Double it, in manner {_chance(json.dumps(request.messages))}."


def endpoint(latency: float = 0.0, **options: Any) -> FakeLM:
    """Return an endpoint that answers the task, and proposes other instructions for every prompt; it caches nothing."""
    proposals = (
        *("proposed_instruction", "new_instruction", "observations", "summary", "program_description"),
        *("module_description", "natural_language_rules", "discussion"),
    )
    fields: dict[str, Any] = dict.fromkeys(proposals, _said)
    fields |= {"answer": _answer, "proposed_prefix_for_output_field": "Answer:", "module_names": ["self"], "sure": True}
    fields["module_advice"] = lambda request: {"self": _said(request)}
    fields |= {"plan": _said, "draft": _said, "reasoning": _said, "next_thought": _said}  # of agents and modules
    fields["next_tool_name"] = lambda request: "finish" if "observation_0" in str(request.inputs) else "double"
    fields["next_tool_args"] = lambda request: {} if "observation_0" in str(request.inputs) else {"number": 2}
    return FakeLM(by_field=fields, latency=latency, **options)


def main() -> None:
    base, key, journal, optimizer, verb = sys.argv[1:6]
    lm: Any = dspex.LM("openai/fake", api_base=base, api_key=key, cache=False)
    pools = [dspex.PoolConfig("dspy", size=1), dspex.PoolConfig("mipro", size=1)]
    with dspex.Supervisor(pools=pools) as sup:
        if verb == "begin":
            named: Any = optimizer
            best: Any = dspex.optimize(
                "question -> answer", ROWS, optimizer=named, metric=is_right, lm=lm, supervisor=sup, journal=journal,
                progress=False, **OPTIMIZERS[optimizer],
            )  # fmt: skip
        else:
            best = dspex.resume(journal, metric=is_right, lm=lm, supervisor=sup, progress=False)
    found = {"score": best.score, "state": best.program.state, "trials": [shown(trial) for trial in best.trials]}
    Path(f"{journal}.result").write_text(json.dumps(found))


def shown(trial: dict[str, Any]) -> dict[str, Any]:
    """Return what of a trial does not depend on when it was made."""
    return {name: value for name, value in trial.items() if name not in ("seconds", "requests", "cost")}


if __name__ == "__main__":
    main()
