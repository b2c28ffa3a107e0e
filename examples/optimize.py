"""Optimize a program in a worker, save it as JSON, and serve it natively.

Run it: python examples/optimize.py
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import dspex

SIGNATURE = dspex.signature("message -> person", "Give the name of the person who is mentioned.")
EXAMPLES = [
    {"message": "Please send the invoice to Maria in Lisbon.", "person": "Maria"},
    {"message": "Tomorrow Peter comes to the meeting.", "person": "Peter"},
    {"message": "The blue car is Susan's, not ours.", "person": "Susan"},
    {"message": "In Paris we met Louis by accident.", "person": "Louis"},
    {"message": "Who gave Ahmed the wrong address?", "person": "Ahmed"},
    {"message": "The report by Ingrid is still missing.", "person": "Ingrid"},
    {"message": "On Monday Carlos flies to Berlin.", "person": "Carlos"},
    {"message": "Ask Yuki about the tickets for Rome.", "person": "Yuki"},
]


def is_right(example: Any, prediction: Any, trace: Any = None) -> bool:
    """The metric: a function of this process, which the optimizer calls from its worker."""
    return bool(prediction["person"].strip() == example["person"])


def show(report: dict[str, Any]) -> None:
    print(f"  {report.get('stage')}: {report.get('examples', 0)} examples run", flush=True)


def main() -> None:
    dspex.configure(lm=dspex.LM(os.environ.get("DSPEX_LM", "local/smollm2"), max_tokens=60, temperature=0.0))
    best = dspex.optimize(
        SIGNATURE, EXAMPLES[:4], valset=EXAMPLES[4:], metric=is_right, optimizer="bootstrap", on_progress=show
    )
    print(f"{best.baseline_score:.0f} % right before, {best.score:.0f} % after")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "person.json"
        best.save(path)  # DSPy can load it too
        program = dspex.load(path)
        out = program(message="The keys are with Olga, at the front desk.")
        print(f"{out.person} ({out.route}; {path.stat().st_size} bytes of JSON)")


if __name__ == "__main__":
    main()
