"""DSPy beside: own modules called in plain DSPy, in a process of its own. JSON lines in and out.

A request is {"what", "init", "inputs", "args", "how", "model": {"api_base", "api_key"}, "adapter"}; the answer {"value"} or
{"error": {"type", "message"}}. As in DSPy, an instance is made once and called often: by `what` and `init`.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from typing import Any

import dspy

from tests.support.own_modules.plain_values import plain

_made: dict[str, Any] = {}


def main() -> None:
    """Answer until the input ends; what programs print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), file=answers, flush=True)


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    lm = dspy.LM("openai/fake", cache=False, num_retries=0, **asked["model"])
    adapter = {"chat": dspy.ChatAdapter, "json": dspy.JSONAdapter}[asked.get("adapter") or "chat"]()
    try:
        with dspy.context(lm=lm, adapter=adapter, track_usage=bool(asked.get("track_usage"))):
            return {"value": plain(_called(asked))}
    except BaseException as error:
        return {"error": {"type": type(error).__name__, "message": str(error)}}


def _called(asked: dict[str, Any]) -> Any:
    program = _program(asked)
    args, inputs = asked.get("args") or (), asked.get("inputs") or {}
    if asked.get("how") == "acall":
        return asyncio.run(program.acall(*args, **inputs))
    if asked.get("how") == "batch":
        return program.batch([dspy.Example(**row).with_inputs(*row) for row in inputs["rows"]], num_threads=2)
    return program(*args, **inputs)


def _program(asked: dict[str, Any]) -> Any:
    key = json.dumps([asked["what"], asked.get("init")], sort_keys=True)
    if key not in _made:
        module, _, path = asked["what"].partition(":")
        what: Any = importlib.import_module(module)
        for part in path.split("."):
            what = getattr(what, part)
        _made[key] = what(**asked.get("init") or {})
    return _made[key]


if __name__ == "__main__":
    main()
