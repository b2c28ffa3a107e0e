"""Runs in a subprocess: has DSPy itself make the calls it is told to, so that the tests never import dspy.

stdin: one JSON {"cases": [{"lm": {...}, "messages": [...], "config": {...}, "engine"?: str}]}; stdout: one JSON
list with, per case, {"outputs", "usage"} or {"error", "status", "provider_code", "retry_after"}.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import dspy
from dspy.utils.exceptions import DSPyError


def run(case: dict[str, Any]) -> dict[str, Any]:
    lm = dspy.LM(cache=False, engine=case.get("engine", "lm15"), num_retries=0, **case["lm"])
    try:
        outputs = lm(messages=case["messages"], **case.get("config", {}))
    except DSPyError as error:
        return {
            "error": type(error).__name__,
            "status": error.status,
            "provider_code": error.provider_code,
            "provider": error.provider,
            "retry_after": error.retry_after,
            "request_id": error.request_id,
        }
    return {"outputs": outputs, "usage": lm.history[-1]["usage"]}


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    cases = json.load(sys.stdin)["cases"]
    if cases and cases[0].get("facts"):
        json.dump([facts(case["lm"]) for case in cases], out)
    else:
        json.dump([run(case) for case in cases], out, default=dict)
    out.flush()


def facts(settings: dict[str, Any]) -> dict[str, Any]:
    lm = dspy.LM(cache=False, **settings)
    return {
        "response_schema": lm.supports_response_schema,
        "function_calling": lm.supports_function_calling,
        "reasoning": lm.supports_reasoning,
    }


if __name__ == "__main__":
    main()
