"""Runs in a subprocess: DSPy itself makes the calls of `tool_cases.py` that it is told to; the tests import no dspy.

stdin: pickled {"cases": [...], "base": url, "key": key}; stdout: pickled list with each case's outputs or error class.
"""

from __future__ import annotations

import functools
import os
import pickle
import sys
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


def main() -> None:
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import logging

    import dspy

    logging.disable(logging.CRITICAL)
    dspy.configure(disable_history=True, trace=None)
    given = pickle.load(sys.stdin.buffer)
    pickle.dump([_outcome(dspy, case, given["base"], given["key"]) for case in given["cases"]], out)
    out.flush()


def _outcome(dspy: Any, case: dict[str, Any], base: str, key: str) -> Any:
    from tests.support.parity.dspy_stream import streamed
    from tests.support.parity.tool_cases import plain, values

    try:
        sig = dspy.Signature(case["signature"], custom_types={"dspy": dspy})
        lm = dspy.LM(case["model"], api_base=base, api_key=key, cache=False, num_retries=0, engine="lm15")
        make = dspy.ChatAdapter if case["adapter"] == "chat" else dspy.JSONAdapter
        adapter = make() if case["native"] is None else make(use_native_function_calling=case["native"])
        predict = dspy.Predict(sig)
        predict.demos = values(case["demos"], dspy)
        with dspy.context(lm=lm, adapter=adapter):
            ask = functools.partial(predict, **values(case["inputs"], dspy), config=case["config"])
            out = streamed(ask) if case["streamed"] else ask()
        return ("outputs", plain(dict(out.items())))
    except Exception as error:
        return ("error", type(error).__name__, str(error))


if __name__ == "__main__":
    main()
