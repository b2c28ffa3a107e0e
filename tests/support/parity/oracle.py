"""DSPy itself, in a process of its own, for the parity checks: pickled batches of cases in, pickled results out.

The tests' side is `Oracle`; the process runs `dspy_side.py`. What both sides of a comparison share is here too: how
a case is put to a side, and how values are made comparable. Nothing here imports DSPy.
"""

from __future__ import annotations

import datetime
import decimal
import functools
import operator
import os
import pickle
import struct
import subprocess
import sys
import typing
import uuid
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from tests.support.parity import shapes
from tests.support.paths import ROOT

Case = Mapping[str, Any]
Outcome = Any  # a value, or ("error", class, message)


class Oracle:
    """The oracle's process, from the tests' side."""

    def __init__(self) -> None:
        hidden = ("_API_KEY", "_BASE_URL", "_API_BASE")
        environment = {name: value for name, value in os.environ.items() if not name.endswith(hidden)}
        environment |= {"LITELLM_LOCAL_MODEL_COST_MAP": "true", "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.support.parity.dspy_side"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )

    def give(self, cases: list[Case]) -> None:
        """Cases to work on; `take` gives their results."""
        assert self._process.stdin is not None
        write(self._process.stdin, cases)

    def take(self) -> list[dict[str, Any]]:
        """One result for each case that was given, in order."""
        assert self._process.stdout is not None
        answer: list[dict[str, Any]] = read(self._process.stdout)
        return answer

    def ask(self, cases: list[Case]) -> list[dict[str, Any]]:
        """One result for each case."""
        self.give(cases)
        return self.take()

    def close(self) -> None:
        """End the process and wait for it."""
        self._process.communicate()


def read(source: BinaryIO) -> Any:
    """One pickled message. Raises: EOFError at the end."""
    head = source.read(4)
    if len(head) < 4:
        raise EOFError
    return pickle.loads(source.read(struct.unpack(">I", head)[0]))


def write(target: BinaryIO, what: Any) -> None:
    """One pickled message."""
    data = pickle.dumps(what)
    target.write(struct.pack(">I", len(data)) + data)
    target.flush()


# --- one case, put to one side ------------------------------------------------------------------------------------


def results(case: Case, side: Any) -> dict[str, Any]:
    """What a side makes of a case; each part is a value or an error with its class."""
    forget_types()
    made: dict[str, Any] = {}
    try:
        sig = side.make(case)
    except Exception as error:
        return {"signature": failed(error)}
    made["signature"] = outcome(lambda: side.describe(sig))
    if case["kind"] == "signature":
        return made | {"operations": _operated(case, sig, side)}
    made["messages"] = outcome(lambda: side.messages(sig, case))
    made["format"] = outcome(lambda: side.response_format(sig))
    made["parsed"] = [outcome(lambda text=text: _read_answer(side.parse(sig, case, text))) for text in case["answers"]]
    made["calls"] = [side.call(sig, case, call) for call in case["calls"]]
    return made


def forget_types() -> None:
    """Empty typing's caches, which take Union[a, b] for the Union[b, a] of an earlier case."""
    for forget in typing._cleanups:  # type: ignore[attr-defined]
        forget()


def _read_answer(found: Any) -> Any:
    return plain(found) if isinstance(found, dict) else found


def _operated(case: Case, sig: Any, side: Any) -> list[Outcome]:
    """The signature after each operation; one that fails changes nothing."""
    found: list[Outcome] = []
    for operation in case["operations"]:
        try:
            changed = side.operate(sig, operation)
        except Exception as error:
            found.append(failed(error))
            continue
        found.append((side.describe(changed), side.equal(sig, changed)))
        sig = changed
    return found


def outcome(make: Callable[[], Any]) -> Outcome:
    """The value, or what was raised instead."""
    try:
        return make()
    except Exception as error:
        return failed(error)


def failed(error: BaseException) -> Outcome:
    """An error as it is compared: by its class; the message is for whoever reads a difference."""
    return ("error", type(error).__name__, str(error)[:3000])


def is_error(found: Outcome) -> bool:
    return isinstance(found, tuple) and len(found) == 3 and found[0] == "error"


def plain(value: Any) -> Any:
    """The value as a tree of types and texts, equal on both sides exactly when the values are alike."""
    kind = type(value).__name__
    if isinstance(value, dict):
        return (kind, [(plain(key), plain(item)) for key, item in value.items()])
    if isinstance(value, set | frozenset):
        return (kind, sorted(map(plain, value), key=repr))
    if isinstance(value, list | tuple):
        return (kind, [plain(item) for item in value])
    if hasattr(value, "tool_calls"):
        return (kind, [(call.id, call.name, plain(call.args)) for call in value.tool_calls])
    if hasattr(type(value), "model_fields"):
        return (kind, [(name, plain(item)) for name, item in vars(value).items()])
    return (kind, repr(value))


def plain_logprobs(found: Any) -> Any:
    """Log probabilities of one answer: each side has classes of its own for the same members."""
    if isinstance(found, Mapping):
        return [(key, plain_logprobs(item)) for key, item in found.items()]
    return [plain_logprobs(item) for item in found] if isinstance(found, list | tuple) else plain(found)


def annotation_of(text: str, dspy_types: Any) -> Any:
    """The type that a text of the tests' own names."""
    names = {**vars(typing), **shapes.NAMES, "dspy": dspy_types, "typing": typing, "Field": _field()}
    names["Gallery"] = gallery(dspy_types)
    names |= {"datetime": datetime, "decimal": decimal, "uuid": uuid, "NoneType": type(None)}
    return eval(text, names)


@functools.cache
def gallery(dspy_types: Any) -> Any:
    """A model that holds images; one for each side, since each side has its own Image."""
    import pydantic

    return pydantic.create_model("Gallery", images=(list[dspy_types.Image], ...), tags=(list[str], []))


def _field() -> Any:
    import pydantic

    return pydantic.Field


def values(given: Any, dspy_types: Any) -> Any:
    """The values of a case, where ("dspy", name, arguments) stands for one of DSPy's types."""
    if isinstance(given, tuple) and given[:1] == ("dspy",):
        kind, arguments = given[1], values(given[2], dspy_types)
        if kind == "Gallery":
            return gallery(dspy_types)(**arguments)
        if "language" in arguments:
            return dspy_types.Code[arguments.pop("language")](**arguments)
        return _made(kind, dspy_types)(**arguments)
    if isinstance(given, dict):
        return {key: values(item, dspy_types) for key, item in given.items()}
    if type(given) in (list, tuple):
        return type(given)(values(item, dspy_types) for item in given)
    return given


def _made(kind: str, dspy_types: Any) -> Any:
    """The type of that name; in a process without DSPy, plain data stands for types that only workers know."""
    is_host = dspy_types.__name__ != "dspy"
    try:
        return operator.attrgetter(kind)(dspy_types)
    except AttributeError:
        if is_host:
            return dict
    from tests.support.parity import own_signatures

    return getattr(dspy_types.experimental, kind, None) or getattr(own_signatures, kind)


def class_form(case: Case, base: Any, field_of: Callable[[Mapping[str, Any]], Any], dspy_types: Any) -> Any:
    """The case's signature in class form: the first `parents` fields in a class, the others in its subclass."""
    cut, docs = case["parents"], case["instructions"]
    sig = base
    for fields, doc in ((case["fields"][:cut], docs[0]), (case["fields"][cut:], docs[1])):
        if not fields and doc is None:
            continue
        space: dict[str, Any] = {"__module__": shapes.__name__, "__qualname__": "QA", "__annotations__": {}}
        if doc is not None:
            space["__doc__"] = doc
        for field in fields:
            if field["annotation"] is not None:
                space["__annotations__"][field["name"]] = annotation_of(field["annotation"], dspy_types)
            space[field["name"]] = field_of(field)
        bases = (sig,) if isinstance(sig, type) else sig.__mro_entries__((sig,))
        if not isinstance(sig, type):
            space["__orig_bases__"] = (sig,)
        sig = type(base)("QA", bases, space)
    return sig
