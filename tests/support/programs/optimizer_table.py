"""Every optimizer over three kinds of program, by DSPex and by DSPy itself on endpoints that answer alike.

python -m tests.support.programs.optimizer_table                     prints the table of the guide
python -m tests.support.programs.optimizer_table dspy API_BASE KEY   DSPy's side: jobs on stdin, results on stdout
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from typing import Any

import dspex
from dspex.testing import FakeLM
from tests.support.paths import ROOT
from tests.support.programs.job_tasks import endpoint

ROWS = [{"question": f"What is {number} doubled?", "answer": str(2 * number)} for number in range(12)]
LEARNED, HELD_OUT = ROWS[:6], ROWS[6:]
SEED = 9
_DEMOS = {"max_bootstrapped_demos": 2, "max_labeled_demos": 2}
JOBS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # DSPy's class; its arguments, and those of `compile`
    "labeled": ("LabeledFewShot", {"k": 3}, {}),
    "bootstrap": ("BootstrapFewShot", {**_DEMOS, "max_rounds": 2}, {}),
    "random_search": ("BootstrapFewShotWithRandomSearch", {**_DEMOS, "num_candidate_programs": 2}, {}),
    "optuna": ("BootstrapFewShotWithOptuna", {**_DEMOS, "num_candidate_programs": 3}, {"max_demos": 2}),
    "copro": ("COPRO", {"breadth": 3, "depth": 2}, {}),
    "miprov2": (
        "MIPROv2",
        {**_DEMOS, "auto": None, "num_candidates": 3, "seed": 5},
        {"num_trials": 4, "minibatch": True, "minibatch_size": 3, "minibatch_full_eval_steps": 2},
    ),
    "simba": ("SIMBA", {"bsize": 4, "num_candidates": 2, "max_steps": 2}, {"seed": 1}),
    "gepa": ("GEPA", {"max_metric_calls": 40, "seed": 3}, {}),
    "infer_rules": ("InferRules", {**_DEMOS, "num_candidates": 2}, {}),
    "better_together": ("BetterTogether", {}, {"strategy": "p -> q", "seed": 4}),
}
STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "p": ("bootstrap", {**_DEMOS}),
    "q": ("copro", {"breadth": 2, "depth": 1}),
}
PROGRAMS = ("signature", "agent", "module")


def double(number: int) -> int:
    """Double a number."""
    return 2 * number


def is_right(example: Any, prediction: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> bool:
    """Whether the number is right."""
    return bool(example["answer"] == prediction["answer"])


def answering() -> FakeLM:
    """Return an endpoint that answers for all of the programs; each answer follows from the whole prompt."""
    return endpoint()


def ours(optimizer: str, kind: str, lm: FakeLM, sup: dspex.Supervisor) -> dict[str, Any]:
    """Optimize with DSPex."""
    how: Any = {"lm": lm, "supervisor": sup}
    program: Any = {
        "signature": lambda: dspex.predictor("predict", "question -> answer", **how),
        "agent": lambda: dspex.react("question -> answer", [double], max_iters=2, **how),
        "module": lambda: dspex.module("tests.support.programs.three_steps:ThreeSteps", **how),
    }[kind]()
    _, made, compiled = JOBS[optimizer]
    options = {**made, **compiled}
    if optimizer == "better_together":
        options["optimizers"] = {key: {"optimizer": name, **given} for key, (name, given) in STEPS.items()}
    began = time.monotonic()
    best = dspex.optimize(
        program, LEARNED, valset=HELD_OUT, optimizer=optimizer, metric=is_right, progress=False, **options
    )  # type: ignore[call-overload]
    state = best.program.state or {}
    return {"score": best.score, "baseline": best.baseline_score, "prompts": prompts(state),
            "requests": len(lm.requests), "seconds": time.monotonic() - began}  # fmt: skip


def prompts(state: Any) -> dict[str, Any]:
    """Return the instructions and the demonstrations of each predictor of a state."""
    parts = {"self": state} if "signature" in state else state
    return {
        name: [part["signature"]["instructions"], part["demos"]]
        for name, part in sorted(parts.items())
        if isinstance(part, dict) and "signature" in part
    }


def dspys(lm: FakeLM, optimizer: str, kind: str) -> dict[str, Any]:
    """Optimize with DSPy, in a process of its own."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name, "dspy", lm.api_base, lm.api_key or "", optimizer, kind],
        cwd=ROOT, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "requests": len(lm.requests), "seconds": time.monotonic() - began}


def _in_dspy(base: str, key: str, optimizer: str, kind: str) -> None:
    import dspy
    import dspy.teleprompt
    import optuna

    from tests.support.programs.three_steps import ThreeSteps

    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    lm = dspy.LM("openai/fake", api_base=base, api_key=key, cache=False, num_retries=0)
    dspy.configure(lm=lm)
    made: Any = {
        "signature": lambda: dspy.Predict("question -> answer"),
        "agent": lambda: dspy.ReAct("question -> answer", tools=[double], max_iters=2),
        "module": ThreeSteps,
    }
    program, real = made[kind](), sys.stdout
    sets = [[dspy.Example(**row).with_inputs("question") for row in rows] for rows in (LEARNED, HELD_OUT)]
    sys.stdout = sys.stderr  # DSPy's optimizers print
    evaluate = dspy.Evaluate(devset=sets[1], metric=is_right, num_threads=4, max_errors=1000)
    random.seed(JOBS[optimizer][1].get("seed", JOBS[optimizer][2].get("seed", SEED)))
    best = _compiled(dspy, optuna, optimizer, program, sets, lm)
    state = best.dump_state()
    print(json.dumps({"score": evaluate(best).score, "prompts": prompts(state)}), file=real)


def _compiled(dspy: Any, optuna: Any, optimizer: str, program: Any, sets: list[Any], lm: Any) -> Any:
    def of(name: str, given: dict[str, Any]) -> Any:
        kind = getattr(dspy.teleprompt, JOBS[name][0])
        if name == "gepa":
            given = {**given, "reflection_lm": lm}
        threads = {} if name in ("labeled", "bootstrap", "copro", "better_together") else {"num_threads": 4}
        return kind(**({} if name == "labeled" else {"metric": is_right}), **threads, **given)

    compiled = dict(JOBS[optimizer][2])
    if optimizer == "better_together":
        program.set_lm(lm)
        kind = of(optimizer, {key: of(name, given) for key, (name, given) in STEPS.items()})
        compiled["optimizer_compile_args"] = {"q": {"eval_kwargs": {"num_threads": 4}}}
    else:
        kind = of(optimizer, JOBS[optimizer][1])
    if optimizer == "copro":
        compiled["eval_kwargs"] = {"num_threads": 4}
    if optimizer == "optuna":
        real = optuna.create_study
        optuna.create_study = lambda **given: real(**given, sampler=optuna.samplers.TPESampler(seed=0))
    held_out = {} if optimizer in ("labeled", "bootstrap", "copro", "simba") else {"valset": sets[1]}
    return kind.compile(program, trainset=sets[0], **held_out, **compiled)


def compared(optimizer: str, kind: str, sup: dspex.Supervisor) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return DSPex's result and DSPy's."""
    with answering() as lm:
        mine = ours(optimizer, kind, lm, sup)
    with answering() as lm:
        return mine, dspys(lm, optimizer, kind)


def main() -> None:
    if sys.argv[1:2] == ["dspy"]:
        _in_dspy(*sys.argv[2:])
        return
    env = {"PYTHONPATH": os.environ.get("PYTHONPATH") or str(ROOT)}
    print("| optimizer | program | before | after | DSPy | requests | DSPy's | seconds |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    with dspex.Supervisor(
        pools=[dspex.PoolConfig("dspy", size=1, env=env), dspex.PoolConfig("mipro", size=1, env=env)]
    ) as sup:
        sup.wait_ready()
        for optimizer in JOBS if len(sys.argv) < 2 else sys.argv[1:]:
            for kind in PROGRAMS:
                mine, theirs = compared(optimizer, kind, sup)
                same = "" if mine["prompts"] == theirs["prompts"] else " (another program)"
                print(
                    f"| {optimizer} | {kind} | {mine['baseline']:g} | {mine['score']:g} | {theirs['score']:g}{same} "
                    f"| {mine['requests']} | {theirs['requests']} | {mine['seconds']:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
