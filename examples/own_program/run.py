"""Your own DSPy program, as it is: called, streamed, evaluated, optimized, saved, and taken back to plain DSPy.

Run it: python examples/own_program/run.py

It plays with a scripted model, so that it is quick and always the same. With DSPEX_LM=local/smollm2, or any provider's
model, it runs on that one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import scripted

import dspex
from dspex.testing import FakeLM

AGES = {"Golden Gate Bridge": 67, "Harbour Bridge": 65, "Opera House": 55, "Menai Bridge": 69, "Forth Bridge": 50}
ASKED = "How old was the designer of the {} when it opened?"
ROWS = [{"question": ASKED.format(name), "answer": str(age)} for name, age in AGES.items()]


def is_right(example, prediction, trace=None, pred_name=None, pred_trace=None):  # type: ignore[no-untyped-def]
    """The metric: it runs in this process. GEPA reads the feedback too."""
    score = float(prediction.answer == example["answer"])
    return {"score": score, "feedback": "Right." if score else f"Say {example['answer']}, and nothing else."}


def main(lm: dspex.LM, folder: Path) -> None:
    ages = dspex.module("program:Ages", hops=2, lm=lm)  # a class of yours, and
    out = ages(question=ASKED.format("Eiffel Tower"))  # a call: in a worker, supervised
    print(f"{out.answer} ({out.route}; {len(out.notes)} notes)")

    parts = ages.stream(question=ROWS[0]["question"])
    print("streamed:", "".join(part.text for part in parts if isinstance(part, dspex.Chunk) and part.field == "answer"))
    print(f"evaluated: {dspex.evaluate(ages, ROWS, is_right).score:.0f} %")

    mipro = dspex.optimize(ages, ROWS[:3], valset=ROWS[3:], metric=is_right, auto=None, num_candidates=2, num_trials=4)
    print(f"MIPROv2: {mipro.baseline_score:.0f} -> {mipro.score:.0f} %")
    gepa = dspex.optimize(ages, ROWS[:3], valset=ROWS[3:], metric=is_right, optimizer="gepa", max_metric_calls=40)
    print(f"GEPA: {gepa.baseline_score:.0f} -> {gepa.score:.0f} %")

    gepa.save(folder / "best.json")
    best = dspex.load(folder / "best.json", program=ages)
    print(f"loaded: {best(question=ASKED.format('Eiffel Tower')).answer}")
    subprocess.run([sys.executable, Path(__file__).parent / "plain.py", folder / "best.json"], check=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, FakeLM(scripted.reply) as fake:
        name = os.environ.get("DSPEX_LM")
        main(dspex.LM(name, max_tokens=120, temperature=0.0) if name else fake, Path(folder))
