"""DSPy itself, in a process of its own, for the parity tests: pickled batches of cases in, pickled results out.

`python native_oracle.py` serves until its input ends. The test process never imports dspy; it uses `Oracle`.
"""

from __future__ import annotations

import datetime
import decimal
import os
import pickle
import struct
import subprocess
import sys
import typing
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import native_shapes

Case = Mapping[str, Any]


class Oracle:
    """The oracle's process, from the tests' side."""

    def __init__(self) -> None:
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "true", "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def give(self, cases: list[Case]) -> None:
        """Cases to work on; `take` gives their results."""
        assert self._process.stdin is not None
        _write(self._process.stdin, cases)

    def take(self) -> list[dict[str, Any]]:
        """One result for each case that was given, in order."""
        assert self._process.stdout is not None
        answer: list[dict[str, Any]] = _read(self._process.stdout)
        return answer

    def ask(self, cases: list[Case]) -> list[dict[str, Any]]:
        """One result for each case."""
        self.give(cases)
        return self.take()

    def close(self) -> None:
        """End the process and wait for it."""
        self._process.communicate()


def results(case: Case, make: Any, adapter: Any) -> dict[str, Any]:
    """What one side makes of a case; `make(case)` gives the signature, `adapter` the side's own verbs."""
    made: dict[str, Any] = {}
    for forget in typing._cleanups:  # typing's caches take Union[a, b] for Union[b, a] of an earlier case
        forget()
    try:
        sig = make(case)
        made["instructions"] = sig.instructions
        made["text"] = adapter.text(sig)
    except Exception as error:
        return {"signature": "error", "why": f"{type(error).__name__}: {error}"}
    made["messages"] = _outcome(lambda: adapter.messages(sig, case))
    made["format"] = _outcome(lambda: adapter.response_format(sig))
    made["parsed"] = [_outcome(lambda text=text: plain(adapter.parse(sig, case, text))) for text in case["answers"]]
    return made


def rebuilt(case: Case) -> Any:
    """The messages of the signature that a worker builds from the case's wire form, for its wire inputs."""
    import dspy

    from dspex_worker.programs import signatures
    from dspex_worker.programs.imports import Imports
    from dspex_worker.programs.values import to_input

    sig = signatures.build(case["wire"], Imports(()))
    inputs = {name: to_input(name, value, sig.fields[name].annotation) for name, value in case["inputs"].items()}
    adapter = dspy.ChatAdapter() if case["adapter"] == "chat" else dspy.JSONAdapter()
    return adapter.format(sig, [], inputs)


def _outcome(make: Any) -> Any:
    try:
        return make()
    except Exception as error:
        return ("error", type(error).__name__, str(error)[:300])


def plain(value: Any) -> Any:
    """The value as a tree of types and texts, equal on both sides exactly when the values are alike."""
    kind = type(value).__name__
    if isinstance(value, dict):
        return (kind, [(plain(key), plain(item)) for key, item in value.items()])
    if isinstance(value, set | frozenset):
        return (kind, sorted(map(plain, value), key=repr))
    if isinstance(value, list | tuple):
        return (kind, [plain(item) for item in value])
    if hasattr(type(value), "model_fields"):
        return (kind, [(name, plain(item)) for name, item in vars(value).items()])
    return (kind, repr(value))


def annotations(case: Case, dspy_types: Any) -> dict[str, Any]:
    """The types of a case's fields; the texts are the tests' own."""
    names = {**vars(typing), **native_shapes.NAMES, "dspy": dspy_types}
    names |= {"datetime": datetime, "decimal": decimal, "uuid": uuid, "NoneType": type(None)}
    return {field["name"]: eval(field["annotation"], names) for field in case["fields"] if field["annotation"]}


def values(given: Any, dspy_types: Any) -> Any:
    """The values of a case, where ("dspy", name, arguments) stands for one of DSPy's types."""
    if isinstance(given, tuple) and given[:1] == ("dspy",):
        kind, arguments = given[1], values(given[2], dspy_types)
        made = dspy_types.Code[arguments.pop("language")] if "language" in arguments else getattr(dspy_types, kind)
        return made(**arguments)
    if isinstance(given, dict):
        return {key: values(item, dspy_types) for key, item in given.items()}
    if type(given) in (list, tuple):
        return type(given)(values(item, dspy_types) for item in given)
    return given


def _read(source: BinaryIO) -> Any:
    head = source.read(4)
    if len(head) < 4:
        raise EOFError
    return pickle.loads(source.read(struct.unpack(">I", head)[0]))


def _write(target: BinaryIO, what: Any) -> None:
    data = pickle.dumps(what)
    target.write(struct.pack(">I", len(data)) + data)
    target.flush()


# --- DSPy's side --------------------------------------------------------------------------------------------------


def _serve() -> None:
    private = os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)
    import logging
    import warnings

    warnings.simplefilter("ignore")
    import dspy
    from dspy.adapters.json_adapter import _get_structured_outputs_response_format, _has_open_ended_mapping
    from dspy.clients.legacy_requests import _strict_json_schema

    logging.disable(logging.CRITICAL)

    def make(case: Case) -> Any:
        if case["text"] is not None:
            # Without custom_types DSPy knows NoneType; with them it does not.
            custom = {**native_shapes.NAMES, "dspy": dspy} if case.get("custom", True) else None
            return dspy.Signature(case["text"], case["instructions"], custom_types=custom)
        types = annotations(case, dspy)
        spec = {field["name"]: (types.get(field["name"], str), _field(dspy, field)) for field in case["fields"]}
        return dspy.Signature(spec, case["instructions"])

    class Side:
        def text(self, sig: Any) -> str:
            return str(sig.signature)

        def messages(self, sig: Any, case: Case) -> Any:
            demos = values(case["demos"], dspy)
            return _adapter(case).format(sig, demos, values(case["inputs"], dspy))

        def parse(self, sig: Any, case: Case, text: str) -> Any:
            return _adapter(case).parse(sig, text)

        def response_format(self, sig: Any) -> Any:
            if _has_open_ended_mapping(sig):
                return {"type": "json_object"}
            try:
                model = _get_structured_outputs_response_format(sig)
            except Exception:
                return {"type": "json_object"}
            schema = _strict_json_schema(model.model_json_schema())
            return {"type": "json_schema", "json_schema": {"name": model.__name__, "schema": schema, "strict": True}}

    def _adapter(case: Case) -> Any:
        return dspy.ChatAdapter() if case["adapter"] == "chat" else dspy.JSONAdapter()

    while True:
        try:
            cases = _read(sys.stdin.buffer)
        except EOFError:
            return
        _write(private, [_served(case, make, Side()) for case in cases])


def _served(case: Case, make: Any, side: Any) -> Any:
    return {"messages": _outcome(lambda: rebuilt(case))} if "wire" in case else results(case, make, side)


def _field(side: Any, field: Mapping[str, Any]) -> Any:
    options = dict(field["options"])
    return (side.InputField if field["kind"] == "input" else side.OutputField)(**options)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    _serve()
