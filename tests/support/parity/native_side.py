"""DSPex's side of a parity check: the native signatures, adapters and `predict`, with a client that opens no socket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dspex.adapters import CompiledSignature, compile_signature
from dspex.adapters.rendering import type_name
from dspex.adapters.response_format import response_format
from dspex.adapters.unsupported import unsupported_schema
from dspex.adapters.validation import checked_inputs, crossed_inputs
from dspex.errors import DspexError, EncodeError, InvalidInput, SignatureError
from dspex.lm.http.http_message import Head, Reply
from dspex.lm.lm_client import LMClient
from dspex.lm.record import LM
from dspex.programs.native.native_route import NativePredictor
from dspex.signatures.field import MISSING, InputField, OutputField
from dspex.signatures.signature import Signature, signature
from dspex.signatures.wire_form import signature_from_wire, signature_to_wire
from dspex.types import content as native_types
from tests.support.parity import shapes
from tests.support.parity.adapter_cases import native_adapter
from tests.support.parity.oracle import (
    Case,
    annotation_of,
    class_form,
    is_error,
    outcome,
    plain,
    plain_logprobs,
    results,
    values,
)
from tests.support.parity.wire_replies import family_of, reply_of, stream_of


def native_results(case: Case) -> dict[str, Any]:
    """What DSPex makes of the case."""
    return results(case, Side())


class Side:
    """DSPex's answers to the questions that `oracle.results` asks."""

    def make(self, case: Case) -> Signature:
        made = self._make(case)
        compile_signature(made)  # a type without a schema is refused here; in DSPy, when the class is made
        return made

    def _make(self, case: Case) -> Signature:
        if case["kind"] == "signature" or case["form"] == "text":
            return signature(case["text"], case["instructions"], custom_types=shapes.NAMES)
        if case["form"] == "class":
            made: Signature = class_form(case, Signature, _field, native_types)
            return made
        return signature(
            {field["name"]: (_annotation(field["annotation"] or "str"), _field(field)) for field in case["fields"]},
            case["instructions"],
        )

    def describe(self, sig: Signature) -> Any:
        return sig.instructions, [_described(field) for field in sig.fields.values()]

    def operate(self, sig: Signature, operation: Any) -> Signature:
        changed = self._operate(sig, operation)
        compile_signature(changed)
        return changed

    def _operate(self, sig: Signature, operation: Any) -> Signature:
        name, *rest = operation
        if name == "with_updated_fields":
            return sig.with_updated_fields(rest[0], _annotation(rest[1]), **rest[2])
        if name in ("prepend", "append", "insert"):
            *place, kind, annotation, options = rest
            field = (InputField if kind == "input" else OutputField)(**options)
            changed: Signature = getattr(sig, name)(*place, field, _annotation(annotation))
            return changed
        made: Signature = getattr(sig, name)(*rest)
        return made

    def equal(self, one: Signature, other: Signature) -> bool:
        return one == other

    def messages(self, sig: Signature, case: Case) -> Any:
        compiled = _compiled(sig, case)
        if compiled.unsupported:
            return ("routed", compiled.unsupported)
        demos = values(case["demos"], native_types)
        return compiled.messages(values(case["inputs"], native_types), demos, allow_markers=True)

    def parse(self, sig: Signature, case: Case, text: str) -> Any:
        try:
            compiled = _compiled(sig, case)
        except SignatureError as error:  # DSPy only shows no such prompt
            return ("routed", str(error))
        return ("routed", compiled.unsupported) if compiled.unsupported else compiled.parse(text)

    def response_format(self, sig: Signature) -> Any:
        reason = compile_signature(sig, "json").unsupported or unsupported_schema(sig)
        return ("routed", reason) if reason else response_format(sig.output_fields)

    def call(self, sig: Signature, case: Case, call: Mapping[str, Any], served: Any = None) -> dict[str, Any]:
        """The bodies that were sent, and the completions or the error; or why a worker would have been asked.

        `served` is what a saved program makes of the signature, with its demos.
        """
        endpoint = Endpoint(call)
        found = outcome(lambda: _called(sig, case, call, endpoint, served))
        return {"bodies": endpoint.bodies, "outcome": found}


def _compiled(sig: Signature, case: Case) -> CompiledSignature:
    is_native = case.get("options", {}).get("use_native_function_calling", case.get("native_calls"))
    return compile_signature(sig, case["adapter"], use_native_function_calling=is_native)


def _predictor(sig: Signature, case: Case, lm: LM, call: Mapping[str, Any], demos: Any = ()) -> NativePredictor:
    kind = NativePredictor
    if case["adapter"] == "two_step":
        from dspex.programs.native.two_step_route import TwoStepPredictor as kind
    native, config = case.get("native_calls"), call["config"]
    how: dict[str, Any] = {"demos": demos, "config": config, "allow_markers": True}
    made = kind(sig, lm, adapter=native_adapter(case), use_native_function_calling=native, **how)
    if case["adapter"] == "two_step":
        options = {"api_base": "http://127.0.0.1:9/v1", "api_key": "k", "cache": False, "retries": 0}
        made.extraction_lm = LM(call["model"], **options)
    return made


def _called(sig: Signature, case: Case, call: Mapping[str, Any], endpoint: Endpoint, served: Any) -> Any:
    inputs = values(case["inputs"], native_types)
    checked_inputs(sig, inputs, allow_markers=True)  # before any route is taken
    lm = LM(call["model"], api_base="http://127.0.0.1:9/v1", api_key="k", cache=False, retries=0, **call["lm"])
    predictor = _predictor(sig, case, lm, call)
    reason = predictor.unsupported()
    if reason:
        return ("routed", reason)
    demos = values(case["demos"], native_types) if call["demos"] else ()
    if served is not None:
        sig, demos = served.signature, served.demos
    predictor = _predictor(sig, case, lm, call, demos)
    if call.get("streamed"):
        *_, found = predictor.stream(endpoint.client, inputs)
    else:
        found = predictor.predict(endpoint.client, inputs)
    return [*(plain(dict(each)) for each in found.completions), *map(plain_logprobs, found.all_logprobs)]


class Endpoint:
    """Stands for the endpoint: keeps what is sent, gives the case's replies in turn, the last one for ever."""

    def __init__(self, call: Mapping[str, Any]) -> None:
        self.bodies: list[bytes] = []
        self._replies = list(call["replies"])
        self._family = family_of(call["model"])
        self.client = LMClient()
        self.client._blocking.http = self  # type: ignore[assignment]

    def send(self, target: Any, head: bytes, body: bytes, timeout: float, *_: Any) -> Reply:
        """What the HTTP layer does, without a socket."""
        status, text = reply_of(self._next(body), self._family)
        return Reply(Head(f"HTTP/1.1 {status} X\r\ncontent-type: application/json", status), text)

    def stream(self, target: Any, head: bytes, body: bytes, timeout: float, *_: Any) -> StreamedReply:
        """The same for a stream."""
        status, text = stream_of(self._next(body), self._family)
        return StreamedReply(Head(f"HTTP/1.1 {status} X\r\ncontent-type: text/event-stream", status), text)

    def _next(self, body: bytes) -> Mapping[str, Any]:
        self.bodies.append(bytes(body))
        return self._replies[min(len(self.bodies), len(self._replies)) - 1]

    def close(self) -> None:
        """Nothing was opened."""

    def close_idle(self, *_: Any) -> None:
        """Nothing was kept."""


class StreamedReply:
    """A response in pieces, as the HTTP layer gives them."""

    def __init__(self, head: Head, body: bytes) -> None:
        self.head = head
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield from (self._body[at : at + 50] for at in range(0, len(self._body), 50))

    def parts(self) -> Iterator[bytes]:
        """The pieces; may be called once."""
        return iter(self)

    def whole(self) -> Reply:
        """All of it."""
        return Reply(self.head, self._body)

    def close(self) -> None:
        """Nothing was opened."""


# --- the wire -----------------------------------------------------------------------------------------------------


def wire_case(case: Case) -> tuple[dict[str, Any], Any] | None:
    """The case as a worker gets it, and the native messages; None where the inputs or types do not cross."""
    sig = Side().make(case)
    try:
        inputs = values(case["inputs"], native_types)
        inputs.pop("augmented", None)
        wire, crossed = signature_to_wire(sig), crossed_inputs(sig, inputs, allow_markers=True)
        checked = checked_inputs(sig, inputs, allow_markers=True)
        messages = compile_signature(sig, case["adapter"]).messages(checked, allow_markers=True)
    except (InvalidInput, EncodeError, SignatureError):
        return None
    if crossed.carried:
        return None  # Python objects, which only calls take along: see test_own_types.py
    return {"kind": "wire", "wire": wire, "inputs": crossed.plain, "adapter": case["adapter"]}, messages


def imported(case: Case, exported: Mapping[str, Any]) -> Any:
    """The native messages for a signature class of the user's, by what a worker says of it; or the error's class."""
    if is_error(exported["spec"]):
        return ("routed", exported["spec"][2])
    try:
        sig = signature_from_wire(exported["spec"], custom_types=case["custom_types"])
        return Side().messages(sig, case)
    except DspexError as error:
        return ("error", type(error).__name__, str(error))


# --- pieces -------------------------------------------------------------------------------------------------------


def _annotation(text: str | None) -> Any:
    return None if text is None else annotation_of(text, native_types)


def _field(field: Mapping[str, Any]) -> Any:
    return (InputField if field["kind"] == "input" else OutputField)(**field["options"])


def _described(field: Any) -> tuple[Any, ...]:
    default = () if field.default is MISSING else (plain(field.default),)
    return field.name, field.kind, type_name(field.annotation), field.shown_desc, field.constraint_text, default
