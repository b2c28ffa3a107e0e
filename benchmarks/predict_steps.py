"""What each step of a prediction costs on either side, in one process: `python -m benchmarks.predict_steps REPEATS`.

Formatting is measured with the signature ready, as a program has it; signatures are new ones each time, for both sides
keep what they have read. It prints a JSON list of rows.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
import timeit
from collections.abc import Callable
from typing import Any

import dspy

import dspex
from benchmarks.report import Row

SIMPLE = "question -> answer"
TYPED = "question: str, context: list[str], limit: int -> answer: str, confidence: float, tags: list[str]"
INPUTS = {"question": "What is the capital of France?"}
TYPED_INPUTS = {"question": "What is the capital of France?", "context": ["Paris.", "Lyon."], "limit": 3}
DEMOS = [{"question": f"What is {i} and {i}?", "answer": str(2 * i)} for i in range(8)]
CHAT_ANSWER = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"
TYPED_ANSWER = (
    '[[ ## answer ## ]]\nParis\n\n[[ ## confidence ## ]]\n0.9\n\n[[ ## tags ## ]]\n["a", "b"]\n\n[[ ## completed ## ]]'
)
JSON_ANSWER = '{"answer": "Paris"}'
TYPED_JSON_ANSWER = '{"answer": "Paris", "confidence": 0.9, "tags": ["a", "b"]}'

Step = tuple[str, Callable[[], Any], Callable[[], Any]]


def main() -> None:
    repeats = int(sys.argv[1])
    rows: list[Row] = []
    for name, ours, theirs in steps():
        mine, dspys = _least_us(ours, repeats), _least_us(theirs, repeats)
        rows.append({"step": name, "dspex µs": mine, "dspy µs": dspys, "dspy : dspex": dspys / mine})
    print(json.dumps(rows))


def steps() -> list[Step]:
    return [*_signatures(), *_formats(), *_parses()]


def _signatures() -> list[Step]:
    number = itertools.count()
    plain, theirs = dspex.signature(SIMPLE), dspy.Signature(SIMPLE)
    return [
        (
            "signature from a string",
            lambda: dspex.signature(f"question{next(number)} -> answer"),
            lambda: dspy.Signature(f"question{next(number)} -> answer"),
        ),
        (
            "signature of 6 typed fields",
            lambda: dspex.signature(f"{TYPED}, more{next(number)}: int"),
            lambda: dspy.Signature(f"{TYPED}, more{next(number)}: int"),
        ),
        (
            "new instructions",
            lambda: plain.with_instructions(f"Answer {next(number)}."),
            lambda: theirs.with_instructions(f"Answer {next(number)}."),
        ),
        (
            "new instructions, ready to format",
            lambda: dspex.compile_signature(plain.with_instructions(f"Answer {next(number)}.")),
            lambda: theirs.with_instructions(f"Answer {next(number)}."),
        ),
    ]


def _formats() -> list[Step]:
    chat, json_ = dspy.ChatAdapter(), dspy.JSONAdapter()
    simple, typed = dspy.Signature(SIMPLE), dspy.Signature(TYPED)
    examples = [dspy.Example(**demo) for demo in DEMOS]
    ours = {(spec, name): dspex.compile_signature(spec, name) for spec in (SIMPLE, TYPED) for name in ("chat", "json")}
    found: list[Step] = []
    for label, spec, theirs, inputs in (("", SIMPLE, simple, INPUTS), (", 6 typed fields", TYPED, typed, TYPED_INPUTS)):
        for name, adapter in (("chat", chat), ("json", json_)):
            found.append((f"format, {name}{label}", *_format(ours[spec, name], adapter, theirs, inputs, [], [])))
    found.append(("format, chat, 8 demos", *_format(ours[SIMPLE, "chat"], chat, simple, INPUTS, DEMOS, examples)))
    return found


def _format(
    ours: Any, adapter: Any, theirs: Any, inputs: dict[str, Any], demos: list[Any], examples: list[Any]
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    if ours.messages(inputs, demos) != adapter.format(theirs, examples, inputs):
        raise RuntimeError("the two sides do not format alike")
    return lambda: ours.messages(inputs, demos), lambda: adapter.format(theirs, examples, inputs)


def _parses() -> list[Step]:
    cases = (
        ("parse, chat", "chat", SIMPLE, CHAT_ANSWER),
        ("parse, chat, 3 typed fields", "chat", TYPED, TYPED_ANSWER),
        ("parse, json", "json", SIMPLE, JSON_ANSWER),
        ("parse, json, 3 typed fields", "json", TYPED, TYPED_JSON_ANSWER),
    )
    return [(name, *_parse(adapter, spec, text)) for name, adapter, spec, text in cases]


def _parse(name: str, spec: str, text: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    ours, theirs = dspex.compile_signature(spec, name), dspy.Signature(spec)
    adapter = dspy.ChatAdapter() if name == "chat" else dspy.JSONAdapter()
    if ours.parse(text) != adapter.parse(theirs, text):
        raise RuntimeError("the two sides do not parse alike")
    return lambda: ours.parse(text), lambda: adapter.parse(theirs, text)


def _least_us(step: Callable[[], Any], repeats: int) -> float:
    """CPU time: the least of several rounds, each of about 20 ms."""
    step()
    once = timeit.timeit(step, timer=time.thread_time, number=20) / 20
    number = max(20, int(0.02 / once))
    return min(timeit.repeat(step, timer=time.thread_time, number=number, repeat=repeats)) / number * 1e6


if __name__ == "__main__":
    main()
