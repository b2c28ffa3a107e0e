"""Optimize on a real labelled set with the embedded model, without a key and without a network: MIPROv2, then GEPA.

    python examples/zoo/run.py                      # both, some minutes each
    python examples/zoo/run.py --optimizer gepa --folder /tmp/zoo

For each it writes a page that reports on it, the program as JSON, and the figures; then it loads the JSON and checks
that the program answers the same natively as in a worker, on all examples. ORIGIN.md says where the examples are from.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import dspex

HERE = Path(__file__).parent
MODEL = os.environ.get("DSPEX_LM", "local/smollm2")
KINDS = "mammal, bird, fish, reptile, amphibian, insect or invertebrate"
SIGNATURE = dspex.signature("animal, traits -> kind", f"Say which kind of animal it is: {KINDS}.")
LEARNED, VALIDATED, HELD_OUT = 15, 16, 40  # examples
OPTIONS: dict[str, dict[str, Any]] = {
    "miprov2": {
        "auto": None,
        "num_candidates": 3,
        "num_trials": 3,
        "minibatch": False,
        "max_bootstrapped_demos": 2,
        "max_labeled_demos": 4,
        "program_aware_proposer": False,
        "data_aware_proposer": False,
        "tip_aware_proposer": False,
    },
    "gepa": {"max_metric_calls": 70, "reflection_minibatch_size": 3},
}


def right_kind(example: Any, prediction: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
    """The metric: is it the kind? GEPA reads the feedback, too."""
    said = prediction["kind"].strip().strip(".").lower()
    score = float(said == example["kind"])
    if pred_name is None:
        return score
    wanted = f"The {example['animal']} is a {example['kind']}"
    return {"score": score, "feedback": f"Right. {wanted}." if score else f"{wanted}, not {said[:60]!r}."}


def examples() -> list[dict[str, str]]:
    """All of them, in an order of chance that is always the same."""
    rows = [json.loads(line) for line in (HERE / "zoo.jsonl").read_text(encoding="utf-8").splitlines()]
    random.Random(7).shuffle(rows)
    return rows


def optimized(optimizer: Any, folder: Path, rows: list[dict[str, str]]) -> dict[str, Any]:
    """Optimize, write what there is to see, and return the figures."""
    began = time.monotonic()
    best = dspex.optimize(
        SIGNATURE,
        rows[:LEARNED],
        valset=rows[LEARNED : LEARNED + VALIDATED],
        testset=rows[LEARNED + VALIDATED :][:HELD_OUT],
        optimizer=optimizer,
        metric=right_kind,
        prompt_lm=dspex.LM(MODEL, max_tokens=120, temperature=0.7),  # which writes instructions
        seed=3,
        num_threads=2,
        **OPTIONS[optimizer],
    )
    print(best)
    best.report(folder / f"{optimizer}.html")
    best.save(folder / f"{optimizer}.json")
    loaded = dspex.load(folder / f"{optimizer}.json")
    test = best.test
    assert test is not None
    return {
        "optimizer": optimizer,
        "baseline": best.baseline_score,
        "found": best.found_score,
        "kept_baseline": best.kept_baseline,
        "held_out": test.sentence,
        "held_out_scores": [test.other_score, test.score],
        "trials": len(best.trials),
        "requests": best.job.requests,
        "tokens": best.job.tokens,
        "seconds": round(time.monotonic() - began, 1),
        **same_answers(loaded.program, rows),
    }


def same_answers(program: Any, rows: list[dict[str, str]]) -> dict[str, Any]:
    """Ask the program for all examples, natively and in a worker; count where both say the same.

    The worker's requests go past the cache. Natively it answers what the optimizer has asked already.
    """
    lm = dspex.LM(MODEL, max_tokens=24, temperature=0.0, cache=False)
    native = dspex.evaluate(program.using(implementation="native"), rows, right_kind, num_threads=2)
    worker = dspex.evaluate(program.using(lm=lm, implementation="python"), rows, right_kind, num_threads=2)
    routes = {row.route.split(":")[0] for row in native.rows}, {row.route.split(":")[0] for row in worker.rows}
    same = sum(_answer(one) == _answer(other) for one, other in zip(native.rows, worker.rows, strict=True))
    scores = {"native_score": native.score, "worker_score": worker.score}
    return {"examples": len(rows), "same_answers": same, "routes": [sorted(each) for each in routes], **scores}


def _answer(row: Any) -> str:
    return repr(dict(row.prediction.items())) if row.prediction is not None else f"failed: {type(row.error).__name__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizer", choices=sorted(OPTIONS), action="append", help="one of them only")
    parser.add_argument("--folder", type=Path, default=Path("zoo-results"), help="where the results are written")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    dspex.configure(lm=dspex.LM(MODEL, max_tokens=24, temperature=0.0))
    for optimizer in asked.optimizer or ["miprov2", "gepa"]:
        found = optimized(optimizer, asked.folder, examples())
        print(json.dumps(found, indent=2))
        (asked.folder / f"{optimizer}-figures.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
