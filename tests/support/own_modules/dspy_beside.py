"""DSPy beside: own modules called in plain DSPy, in a process of its own. JSON lines in and out.

A request is {"what", "init", "inputs", "args", "how", "load", "model": {"api_base", "api_key"}, "adapter"}; the answer
{"value"} or {"error": {"type", "message"}}. As in DSPy, an instance is made once
(by `what` and `init`) and called often.
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
        with dspy.context(lm=lm, adapter=adapter, track_usage=asked.get("how") == "usage"):
            return {"value": plain(_called(asked))}
    except BaseException as error:
        return {"error": {"type": type(error).__name__, "message": str(error)}}


def _called(asked: dict[str, Any]) -> Any:
    program = _program(asked)
    args, inputs, how = asked.get("args") or (), asked.get("inputs") or {}, asked.get("how") or "call"
    if asked.get("load"):
        program = program.deepcopy()
        program.load(asked["load"])
    if how == "acall":
        return asyncio.run(program.acall(*args, **inputs))
    if how == "gather":
        return asyncio.run(_gathered(program, inputs["rows"]))
    if how == "batch":
        rows = [dspy.Example(**row).with_inputs(*row) for row in inputs["rows"]]
        return program.batch(rows, num_threads=2, disable_progress_bar=True, max_errors=100)
    if how == "usage":
        return program(*args, **inputs).get_lm_usage()
    if how == "stream":
        return _streamed(program, inputs)
    if how == "save":
        program.deepcopy().save(inputs["path"])
        return None
    return program(*args, **inputs)


async def _gathered(program: Any, rows: list[dict[str, Any]]) -> list[Any]:
    return list(await asyncio.gather(*(program.acall(**row) for row in rows)))


def _streamed(program: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """The text of each predictor's outputs as DSPy's own listeners give it, and the prediction at the end."""
    listeners = [
        dspy.streaming.StreamListener(field, predict=predictor, predict_name=name)
        for name, predictor in program.named_predictors()
        for field in predictor.signature.output_fields
    ]
    texts: dict[str, str] = {}
    final = None
    for part in dspy.streamify(program, stream_listeners=listeners, async_streaming=False)(**inputs):
        if isinstance(part, dspy.streaming.StreamResponse):
            key = f"{part.predict_name}.{part.signature_field_name}"
            texts[key] = texts.get(key, "") + part.chunk
        elif isinstance(part, dspy.Prediction):
            final = part
    return {"texts": texts, "final": final}


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
