"""DSPy's side of a parity check; runs as a process of its own and serves batches of cases until its input ends.

Every answer is DSPy's: its signatures, its adapters, `dspy.Predict` with plain `dspy.LM(engine="lm15")`. Only the
socket is replaced, by one that keeps each request's body and gives the case's replies; sound and files are sent as by
its default client (`default_client`). What DSPex asks of inputs before either route (`docs/internals/parity.md`) is
written here a second time, so that its refusals are expected, not excused.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import sys
import tempfile
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dspy
import pydantic
from dspy._vendor.lm15.transports import StdlibTransport, TransportResponse
from dspy.adapters.json_adapter import _get_structured_outputs_response_format, _has_open_ended_mapping
from dspy.adapters.utils import annotation_allows_none, format_field_value, get_annotation_name
from dspy.clients.legacy_requests import _strict_json_schema
from dspy.utils.constants import IS_TYPE_UNDEFINED
from pydantic_core import PydanticUndefined

from tests.support.parity import default_client, shapes
from tests.support.parity.adapter_cases import dspy_adapter
from tests.support.parity.dspy_stream import streamed
from tests.support.parity.oracle import (
    Case,
    annotation_of,
    class_form,
    forget_types,
    outcome,
    plain,
    plain_logprobs,
    read,
    results,
    values,
    write,
)
from tests.support.parity.strictness import stricter, wider
from tests.support.parity.wire_replies import family_of, reply_of, stream_of, without_usage

_PLAIN = (str, int, float, bool, type(None), list, dict, Any)


class Side:
    """DSPy's answers to the questions that `oracle.results` asks."""

    def make(self, case: Case) -> Any:
        if case["kind"] == "signature":
            return dspy.Signature(case["text"], case["instructions"], custom_types=_custom())
        if case["form"] == "path":
            module, name = case["text"].split(":")
            return getattr(importlib.import_module(module), name)
        if case["form"] == "text":
            # Without custom_types DSPy knows NoneType; with them it does not.
            custom = _custom() if case.get("custom", True) else None
            return dspy.Signature(case["text"], case["instructions"], custom_types=custom)
        if case["form"] == "class":
            return class_form(case, dspy.Signature, _field, dspy)
        made = {field["name"]: (_type(field), _field(field)) for field in case["fields"]}
        return dspy.Signature(made, case["instructions"])

    def describe(self, sig: Any) -> Any:
        return sig.instructions, [_described(name, info) for name, info in sig.fields.items()]

    def operate(self, sig: Any, operation: Any) -> Any:
        name, *rest = operation
        if name == "with_updated_fields":
            return sig.with_updated_fields(rest[0], _annotation(rest[1]), **rest[2])
        if name in ("prepend", "append", "insert"):
            *place, kind, annotation, options = rest
            field = (dspy.InputField if kind == "input" else dspy.OutputField)(**options)
            return getattr(sig, name)(*place, field, _annotation(annotation))
        return getattr(sig, name)(*rest)

    def equal(self, one: Any, other: Any) -> bool:
        """`equals`, but for the mark that a type was not written, which only DSPy's warnings look at."""
        return one.instructions == other.instructions and _said(one) == _said(other)

    def messages(self, sig: Any, case: Case) -> Any:
        return _adapter(case).format(sig, values(case["demos"], dspy), values(case["inputs"], dspy))

    def parse(self, sig: Any, case: Case, text: str) -> Any:
        return _adapter(case).parse(sig, text)

    def response_format(self, sig: Any) -> Any:
        if _has_open_ended_mapping(sig):
            return {"type": "json_object"}
        try:
            model = _get_structured_outputs_response_format(sig)
        except (ValueError, pydantic.PydanticInvalidForJsonSchema, pydantic.PydanticSchemaGenerationError):
            return {"type": "json_object"}
        schema = _strict_json_schema(model.model_json_schema())
        return {"type": "json_schema", "json_schema": {"name": model.__name__, "schema": schema, "strict": True}}

    def call(self, sig: Any, case: Case, call: Mapping[str, Any], program: Any = None) -> dict[str, Any]:
        """The bodies that were sent, and the completions or the error; by a program, or by a new `Predict`."""
        try:
            inputs = admitted(sig, values(case["inputs"], dspy))
        except Refused as refused:
            return {"bodies": [], "outcome": ("error", refused.args[0], str(refused.args[1])), "refused": True}
        endpoint = Endpoint(call)
        with endpoint:
            found = outcome(lambda: _called(sig, case, call, inputs, program))
        return {"bodies": endpoint.bodies, "outcome": found}


def _called(sig: Any, case: Case, call: Mapping[str, Any], inputs: Mapping[str, Any], program: Any) -> Any:
    lm = dspy.LM(
        call["model"], api_base="http://127.0.0.1:9/v1", api_key="k", cache=False, engine="lm15", num_retries=0,
        **call["lm"],
    )  # fmt: skip
    given = {"demos": values(case["demos"], dspy)} if call["demos"] and program is None else {}
    # DSPy's own check of the inputs only warns, but raises TypeError for every TypedDict; workers have it off.
    with dspy.context(lm=lm, adapter=_adapter_for(case, call["model"]), warn_on_type_mismatch=False):
        ask = functools.partial(program or dspy.Predict(sig), **inputs, **given, config=dict(call["config"]))
        found = streamed(ask) if call.get("streamed") else ask()
    made = [dict(found.completions[at].items()) for at in range(len(found.completions))]
    known = [each.pop("logprobs", None) for each in made] if "logprobs" not in sig.output_fields else []
    asked = {**call["lm"], **call["config"]}.get("logprobs")
    return [*map(plain, made), *(plain_logprobs(each) for each in known if asked)]


class Endpoint:
    """Stands for the endpoint: keeps what is sent, gives the case's replies in turn, the last one for ever."""

    def __init__(self, call: Mapping[str, Any]) -> None:
        self.bodies: list[bytes] = []
        self._replies = list(call["replies"])
        self._family = family_of(call["model"])
        self._media = default_client.sent(call["model"])
        self._streams = bool(call.get("streamed"))

    def __enter__(self) -> None:
        self._real = StdlibTransport.stream
        StdlibTransport.stream = lambda _transport, request: self._answer(request)
        self._blocks = self._media.__enter__()

    def __exit__(self, *_: object) -> None:
        StdlibTransport.stream = self._real
        self._media.__exit__(None, None, None)

    def _answer(self, request: Any) -> Any:
        reply = self._replies[min(len(self.bodies), len(self._replies) - 1)]
        self.bodies.append(default_client.filled(bytes(request.body), self._blocks))
        status, body = (stream_of if self._streams else reply_of)(without_usage(reply), self._family)
        return TransportResponse(
            status=status,
            reason="",
            headers=[("content-type", "text/event-stream" if self._streams else "application/json")],
            http_version="HTTP/1.1",
            chunks=iter([body]),
            release=lambda _consumed: None,
        )


# --- what DSPex asks of inputs, on either route -------------------------------------------------------------------


class Refused(Exception):
    """DSPex refuses these inputs: (its error's class, why)."""


def admitted(sig: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs as DSPex lets them through. Raises: Refused."""
    extra = [name for name in inputs if name not in sig.input_fields]
    if extra:
        raise Refused("InvalidInput", f"extra {extra}")
    found: dict[str, Any] = {}
    for name, info in sig.input_fields.items():
        if name in inputs:
            value = inputs[name]
        elif info.default is not PydanticUndefined:
            value = info.default
        elif annotation_allows_none(info.annotation):
            continue
        else:
            raise Refused("InvalidInput", f"{name} is missing")
        found[name] = _admitted(name, info, value)
    return found


def _admitted(name: str, info: Any, value: Any) -> Any:
    if not _is_rich(info.annotation):
        if info.annotation is str and isinstance(value, list):
            try:
                format_field_value(info, value)
            except TypeError as error:
                raise Refused("InvalidInput", f"{name}: {error}") from error
        return value
    if value is None:
        return None
    if isinstance(value, dspy.Code):  # DSPy makes another class of Code["java"] each time
        value = value.code
    try:
        value = pydantic.TypeAdapter(info.annotation).validate_python(value)
    except (ValueError, TypeError) as error:
        raise Refused("InvalidInput", f"{name}: {type(error).__name__}") from error
    return value


def _is_rich(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin is None:
        return annotation not in _PLAIN
    if origin is typing.Literal:
        return False
    if origin is typing.Annotated:  # constraints are shown to the model, not enforced
        return _is_rich(typing.get_args(annotation)[0])
    return origin in (tuple, set, frozenset) or any(_is_rich(part) for part in typing.get_args(annotation))


# --- pieces -------------------------------------------------------------------------------------------------------


def _custom() -> dict[str, Any]:
    return {**shapes.NAMES, "dspy": dspy}


def _adapter_for(case: Case, model: str) -> Any:
    second = dspy.LM(model, api_base="http://127.0.0.1:9/v1", api_key="k", cache=False, engine="lm15", num_retries=0)
    return dspy_adapter(case, second)


def _adapter(case: Case) -> Any:
    return dspy_adapter(case)


def _type(field: Mapping[str, Any]) -> Any:
    return str if field["annotation"] is None else annotation_of(field["annotation"], dspy)


def _annotation(text: str | None) -> Any:
    return None if text is None else annotation_of(text, dspy)


def _field(field: Mapping[str, Any]) -> Any:
    return (dspy.InputField if field["kind"] == "input" else dspy.OutputField)(**field["options"])


def _described(name: str, info: Any) -> tuple[Any, ...]:
    extra = info.json_schema_extra
    desc = "" if extra["desc"] == f"${{{name}}}" else extra["desc"]
    default = () if info.default is PydanticUndefined else (plain(info.default),)
    side = extra["__dspy_field_type"]
    return name, side, get_annotation_name(info.annotation), desc, extra.get("constraints") or "", default


def _said(sig: Any) -> dict[str, Any]:
    return {name: {**info.json_schema_extra, IS_TYPE_UNDEFINED: None} for name, info in sig.fields.items()}


def rebuilt(case: Case) -> Any:
    """The messages of the signature that a worker builds from the case's wire form, for its wire inputs."""
    from dspex_worker.programs.code.user_imports import UserImports
    from dspex_worker.programs.modules import signature_classes
    from dspex_worker.programs.values.wire_values import to_input

    sig = signature_classes.build(case["wire"], UserImports((shapes.__name__,)))
    inputs = {name: to_input(name, value, sig.fields[name].annotation) for name, value in case["inputs"].items()}
    return _adapter(case).format(sig, [], inputs)


def exported(case: Case) -> dict[str, Any]:
    """What a worker tells the parent of a signature class of the user's, with DSPy's messages for it."""
    from dspex_worker.programs.code.user_imports import UserImports
    from dspex_worker.programs.modules import signature_classes

    side = Side()
    sig = side.make(case)
    spec = outcome(lambda: signature_classes.describe(sig, UserImports((shapes.__name__,))))
    return {"spec": spec, "messages": outcome(lambda: side.messages(sig, case))}


def saved(case: Case) -> dict[str, Any]:
    """A module with the case's demos, saved and loaded by DSPy: its file, and what it then sends."""
    side, sig = Side(), Side().make(case)
    kind = dspy.ChainOfThought if case["module"] == "chain_of_thought" else dspy.Predict
    first, second = kind(sig), kind(sig)
    first.predictors()[0].demos = values(case["demos"], dspy)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "program.json")
        first.save(path)
        second.load(path)
        document = path.read_text(encoding="utf-8")
    return {"document": document, "calls": [side.call(sig, case, call, second) for call in case["calls"]]}


def own(case: Case) -> Any:
    """DSPy's messages for a class of its own, and DSPex's for the same class and values, in this very process."""
    import dspex
    from dspex.adapters import compile_signature
    from dspex.adapters.validation import checked_inputs

    side = Side()
    sig = side.make(case)
    try:
        inputs = admitted(sig, values(case["inputs"], dspy))
    except Refused as refused:
        return ("error", refused.args[0], str(refused.args[1]))

    def native() -> Any:
        compiled = compile_signature(dspex.signature(sig), case["adapter"])
        if compiled.unsupported:
            return ("routed", compiled.unsupported)
        checked = checked_inputs(compiled.signature, inputs, allow_markers=True)
        return compiled.messages(checked, values(case["demos"], dspy), allow_markers=True)

    theirs = outcome(lambda: _adapter(case).format(sig, values(case["demos"], dspy), inputs))
    return {"dspy": theirs, "native": outcome(native)}


def _served(case: Case) -> Any:
    forget_types()
    if case["kind"] == "wire":
        return {"messages": outcome(lambda: rebuilt(case))}
    if case["kind"] == "own":
        return outcome(lambda: own(case))
    if case["kind"] in ("export", "saved"):
        return outcome(lambda: exported(case) if case["kind"] == "export" else saved(case))
    made = results(case, Side())
    if case["text"] is not None:
        made["stricter"], made["wider"] = stricter(case["text"]), wider(case["text"])
    return made


def _batches(source: Any) -> Iterator[list[Case]]:
    while True:
        try:
            yield read(source)
        except EOFError:
            return


def main() -> None:
    """Serve until the input ends; descriptor 1 is kept clean, since DSPy and its dependencies print."""
    private = os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    for cases in _batches(sys.stdin.buffer):
        write(private, [_served(case) for case in cases])


if __name__ == "__main__":
    main()
