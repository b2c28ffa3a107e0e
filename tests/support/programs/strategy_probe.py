"""Rewards, and DSPy itself using them: run as a script it makes the calls of `CASES` against the model at argv[1:3].

stdout: JSON, for each case its answer or the class of its error. The tests import the rewards, and no dspy.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

ORDER = ("refine", "refine_fails", "best_of_n", "best_of_n_fails", "majority")


def long_enough(args: Any, pred: Any) -> float:
    """At least three letters."""
    return 1.0 if len(pred.answer) >= 3 else len(pred.answer) / 10


def never(args: Any, pred: Any) -> float:
    return -1.0


def replies(messages: list[dict[str, Any]]) -> Any:
    """The model: short first, longer when it is given a hint; unreadable where the question wants that."""
    if "program_trajectory" in messages[0]["content"]:
        return {"discussion": "It was “short”.", "advice": {"self": "write more", "predict": "write more"}}
    asked = messages[-1]["content"]
    if "fails" in asked:
        return "nothing to read"
    return {"reasoning": "so", "answer": "longer" if "hint_" in asked else "s"}


def main() -> None:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import dspy

    from tests.support.programs.strategy_probe import long_enough, never  # by name, so that DSPy finds their source

    dspy.configure(
        lm=dspy.LM("openai/fake", api_base=sys.argv[1], api_key=sys.argv[2], cache=False, num_retries=0, engine="lm15")
    )
    qa, cot = dspy.Predict("question -> answer"), dspy.ChainOfThought("question -> answer")
    made: dict[str, Any] = {
        "refine": lambda: dspy.Refine(cot, N=3, reward_fn=long_enough, threshold=1.0)(question="refine"),
        "refine_fails": lambda: dspy.Refine(qa, N=3, reward_fn=never, threshold=1.0)(question="it fails"),
        "best_of_n": lambda: dspy.BestOfN(qa, N=3, reward_fn=long_enough, threshold=1.0)(question="best"),
        "best_of_n_fails": lambda: dspy.BestOfN(qa, N=3, reward_fn=never, threshold=1.0)(question="it fails"),
        "majority": lambda: dspy.majority(cot(question="majority", config={"n": 3})),
    }
    json.dump([outcome(made[name]) for name in ORDER], out)
    out.flush()


def outcome(call: Any) -> Any:
    """What a case came to."""
    try:
        return call().answer
    except Exception as error:
        return type(error).__name__


if __name__ == "__main__":
    main()
