"""Native function calling as in DSPy's adapters: which fields leave the prompt, and what replaces them.

Follows `_call_preprocess` and `_call_postprocess` of dspy/adapters/base.py (3.4.1). Pure. The JSON adapter offers tools
to the model itself by default, the chat adapter writes them into the prompt by default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args, get_origin

from ..errors import InvalidInput
from ..signatures.annotations import allows_none, is_dspy_type
from ..signatures.field import Field
from ..signatures.signature import Signature
from .adapter_names import OBJECT_ADAPTERS

_OPTIONS: Final = ("tools", "tool_choice", "parallel_tool_calls")


@dataclass(frozen=True, slots=True)
class ToolFields:
    """The input that holds the tools and the output that takes the calls; None where there is none."""

    tools: str | None
    calls: str | None


def tool_fields(sig: Signature) -> ToolFields:
    """Return the first `Tool` or `list[Tool]` input, and the first `ToolCalls` output."""
    return sig.derive("tool_fields", _tool_fields)


def is_native_by_default(adapter: str) -> bool:
    """Return whether this adapter of DSPy's uses native function calling by default."""
    return adapter in OBJECT_ADAPTERS


def asked_signature(sig: Signature, lm: Any, is_native: bool) -> Signature:
    """Return the signature that the prompt is made of: without the tools and their calls where the model is given them.

    Raises:
        InvalidInput: an output of calls without an input of tools, where function calling is native.
    """
    found = tool_fields(sig)
    if not is_native or found.calls is None:
        return sig
    if found.tools is None:
        raise InvalidInput(
            f"The output {found.calls!r} takes tool calls, but no input holds tools: add one of type list[dspy.Tool].",
            field=found.calls,
        )
    return sig.derive("without_tools", _without_tools) if lm.supports_tools else sig


def call_options(
    sig: Signature,
    lm: Any,
    is_native: bool,
    settings: dict[str, Any],
    inputs: Mapping[str, Any],
    is_parallel: bool | None = None,
) -> None:
    """Put the tools into the options of a request, or take everything about tools out of them, in place.

    `is_parallel` is the adapter's own word on calls at the same time; the request's goes before it.
    """
    found = tool_fields(sig)
    if not is_native or (found.calls is not None and not lm.supports_tools):
        for option in _OPTIONS:
            settings.pop(option, None)
    elif found.calls is not None:
        given = inputs[found.tools or ""]
        settings["tools"] = [tool.as_function() for tool in (given if isinstance(given, list) else [given])]
        if is_parallel is not None and settings.get("parallel_tool_calls") is None:
            settings["parallel_tool_calls"] = is_parallel
    if settings.get("parallel_tool_calls") is not None:
        settings.setdefault("tool_choice", "auto")


def with_calls(sig: Signature, values: dict[str, Any], calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the outputs with the fields that the prompt did not ask for: the model's calls, defaults, None."""
    found = tool_fields(sig)
    known = {name: field for name, field in sig.output_fields.items() if name in values or _is_optional(field)}
    whole = {name: values[name] if name in values else _absent(field) for name, field in known.items()}
    for name in sig.output_fields:
        whole.setdefault(name, None)
    if calls and found.calls is not None:
        whole[found.calls] = sig.output_fields[found.calls].annotation.from_dict_list(calls)
    return whole


def is_tool_calls(annotation: Any) -> bool:
    """Return whether this is the type `ToolCalls` itself."""
    return _is(annotation, "dspy.ToolCalls")


def _is_optional(field: Field) -> bool:
    return field.has_default or allows_none(field.annotation)


def _absent(field: Field) -> Any:
    return field.make_default() if field.has_default else None


def _tool_fields(sig: Signature) -> ToolFields:
    tools = (name for name, field in sig.input_fields.items() if _holds_tools(field.annotation))
    calls = (name for name, field in sig.output_fields.items() if is_tool_calls(field.annotation))
    return ToolFields(next(tools, None), next(calls, None))


def _holds_tools(annotation: Any) -> bool:
    is_listed = get_origin(annotation) is list and _is(get_args(annotation)[0], "dspy.Tool")
    return is_listed or _is(annotation, "dspy.Tool")


def _is(annotation: Any, name: str) -> bool:
    return is_dspy_type(annotation) and annotation.dspy_name == name


def _without_tools(sig: Signature) -> Signature:
    found = tool_fields(sig)
    return sig.delete(found.calls or "").delete(found.tools or "")
