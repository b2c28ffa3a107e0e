"""Choose adapters for calls: DSPy's own by name and options, a user's by import path or as the host sent it.

DSPy's own keep nothing between calls, so one of each serves every call. A call names one by text, or as {"name",
options}; one of the user's is "module:Class" with "arguments", or the name of code that the host sends by value.
"""

from __future__ import annotations

import contextvars
import json
from collections.abc import Callable, Mapping
from typing import Any

import dspy

from .dspy_errors import invalid_input, unknown_name
from .dspy_parts import part

BAML: Any = part("dspy.adapters.baml_adapter", "BAMLAdapter", dspy.JSONAdapter)
_START = "<<CUSTOM-TYPE-START-IDENTIFIER>>"
_KINDS: Mapping[str, Any] = {
    "chat": dspy.ChatAdapter,
    "json": dspy.JSONAdapter,
    "xml": dspy.XMLAdapter,
    "baml": BAML,
}
NAMES = (*_KINDS, "two_step")
_OPTIONS = frozenset(
    ("use_native_function_calling", "parallel_tool_calls", "use_json_adapter_fallback", "native_response_types")
)
_TYPES: Mapping[str, Any] = {
    "Citations": part("dspy.adapters.types.citation", "Citations"),
    "Document": part("dspy.adapters.types.document", "Document"),
    **{name: getattr(dspy, name) for name in ("Reasoning", "Code", "Image", "Audio", "File", "ToolCalls")},
}
_SHARED: Mapping[str, dspy.Adapter] = {name: make() for name, make in _KINDS.items()}
is_extracting: contextvars.ContextVar[bool] = contextvars.ContextVar("dspex_extracting", default=False)

Given = str | Mapping[str, Any] | None
MakeLM = Callable[[Mapping[str, Any]], Any]
MakeOwn = Callable[[Mapping[str, Any]], dspy.Adapter]


class ExtractingAdapter(dspy.TwoStepAdapter):  # type: ignore[misc]
    """DSPy's TwoStepAdapter, which says when its second step runs: only that answer is shown while it arrives."""

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        if _START in completion:
            raise dspy.utils.exceptions.AdapterParseError(
                adapter_name="TwoStepAdapter",
                signature=signature,
                lm_response=completion,
                message="It holds DSPy's custom-type marker, which is not shown to another model.",
            )
        token = is_extracting.set(True)
        try:
            found: dict[str, Any] = super().parse(signature, completion)
            return found
        finally:
            is_extracting.reset(token)


ExtractingAdapter.__name__ = ExtractingAdapter.__qualname__ = "TwoStepAdapter"  # as errors and callbacks show it


def default_adapter(lm: dspy.LM | None, record: Mapping[str, Any] | None) -> dspy.Adapter:
    """Return the adapter of a call that names none: what the user's modules configured, else what the LM suggests."""
    configured = dspy.settings.adapter
    return configured if isinstance(configured, dspy.Adapter) else _SHARED[_suggested(record)]


def adapter_named(
    adapter: Given, lm: dspy.LM | None, record: Mapping[str, Any] | None, make_lm: MakeLM, make_own: MakeOwn
) -> dspy.Adapter:
    """Return the adapter for a call; None means json for an LM with structured outputs, chat for any other.

    Raises:
        Failure: UnknownName; InvalidInput, for options that it does not have, or when two_step has no LM.
    """
    given: Mapping[str, Any] = adapter if isinstance(adapter, Mapping) else {"name": adapter}
    name = given.get("name") or _suggested(record)
    if isinstance(name, str) and ":" in name:
        return make_own(given)
    if name not in NAMES:
        raise unknown_name("adapter", str(name), NAMES)
    options = {option: value for option, value in given.items() if option in _OPTIONS and value is not None}
    if stray := given.keys() - _OPTIONS - {"name", "extraction"}:
        raise unknown_name("option", str(next(iter(stray))), _OPTIONS, where=f"the {name} adapter")
    if "native_response_types" in options:
        options["native_response_types"] = [_type_named(each) for each in options["native_response_types"]]
    if name == "two_step":
        second = make_lm(given["extraction"]) if given.get("extraction") else lm
        if second is None:
            raise invalid_input("The two_step adapter needs an LM to extract the fields with.")
        return _made(ExtractingAdapter, name, {"extraction_model": second, **options})
    return _made(_KINDS[name], name, options) if options else _SHARED[name]


def checked_own(made: Any, label: str) -> dspy.Adapter:
    """Return an adapter of a user's.

    Raises:
        Failure: InvalidInput, when it is none.
    """
    if isinstance(made, dspy.Adapter):
        return made
    raise invalid_input(f"The adapter {label} gave a {type(made).__name__}; it must be, or give, a dspy.Adapter.")


def lms_of(given: Given) -> tuple[Mapping[str, Any], ...]:
    """Return the LM records in what a call says of its adapter."""
    if not isinstance(given, Mapping):
        return ()
    second, held = given.get("extraction"), given.get("held") or {}
    return (*((second,) if second else ()), *(record for records in held.values() for record in records))


def identity_of(given: Mapping[str, Any]) -> str:
    """Return what tells one adapter of a user's from another."""
    return json.dumps(dict(given), sort_keys=True, default=repr)


def _suggested(record: Mapping[str, Any] | None) -> str:
    return "json" if record and record.get("structured_outputs") else "chat"


def _made(kind: Any, name: str, options: Mapping[str, Any]) -> dspy.Adapter:
    try:
        made: dspy.Adapter = kind(**options)
    except (TypeError, ValueError) as error:
        raise invalid_input(f"The {name} adapter does not accept these options: {error}") from error
    return made


def _type_named(name: Any) -> Any:
    found = _TYPES.get(str(name))
    if found is None:
        raise unknown_name("type", str(name), _TYPES, where="native_response_types")
    return found
