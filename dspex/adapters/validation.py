"""Validate values: inputs checked and made plain, outputs given their Python types (RULES I2, X2).

Both routes pass here, before anything is routed and after anything is answered, so that a value which cannot cross
to a worker is refused natively too, and an enum, model or tuple in the outputs has the same type whoever produced it.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

from dspex_worker.types.annotation_facts import is_rich

from ..errors import AdapterParseError, EncodeError, InvalidInput, UnknownName, UnsafeInput
from ..signatures.annotations import allows_none, is_dspy_type
from ..signatures.field import Field
from ..signatures.signature import Signature
from ..types.markers import START
from ..types.parse_budget import CHARS_MOST, Allowance, begin, end
from .parsing import UNREADABLE, ValueParser
from .rendering import render

_EXACT: Final = frozenset({type(None), bool, float, str, bytes})
_MADE_BY_CALL: Final = ("dspy.Image", "dspy.Audio", "dspy.File")  # `Image(url)`; others have a form of their own


def checked_inputs(sig: Signature, inputs: Mapping[str, Any], *, allow_markers: bool = False) -> dict[str, Any]:
    """Return the inputs in the signature's order, with defaults; values of rich types (models, enums...) validated.

    A missing input is an error unless it has a default or its type allows None (then it is left out, as in DSPy,
    which only warns in the other case). Plain types are taken as they are, as in DSPy: a list may go into a text
    field.

    Raises:
        InvalidInput: an input is missing, is none of the signature's, or does not fit its type.
        UnsafeInput: a text holds DSPy's custom-type marker, unless `allow_markers`.
        EncodeError: a value could not cross to a worker.
    """
    typed, _ = _checked(sig, inputs, allow_markers)
    return typed


def crossed_inputs(
    sig: Signature, inputs: Mapping[str, Any], *, allow_markers: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the checked inputs, and the same as plain data that a worker receives exactly.

    Errors as for `checked_inputs`.
    """
    typed, wire = _checked(sig, inputs, allow_markers)
    for name, check in sig.derive("input_checks", _input_checks).items():
        if check.is_history and wire.get(name) is not None:
            wire[name] = _with_shown(wire[name], typed[name])
    return typed, wire


def open_inputs(inputs: Mapping[str, Any], *, allow_markers: bool = False) -> dict[str, Any]:
    """Return the inputs of a program without a signature as plain data that a worker receives exactly.

    Raises:
        UnsafeInput: a text holds DSPy's custom-type marker, unless `allow_markers`.
        EncodeError: a value could not cross to a worker.
    """
    plain = {name: to_wire(value, name) for name, value in inputs.items()}
    for name, value in plain.items() if not allow_markers else ():
        _refuse_marker(name, value)
    return plain


def typed_outputs(sig: Signature, wire: Mapping[str, Any]) -> dict[str, Any]:
    """Return a worker's outputs under the signature's types, in its order; additions (`reasoning`) follow as they are.

    Raises:
        AdapterParseError: a value does not fit its type.
    """
    readers = sig.derive(
        "readers", lambda made: {name: ValueParser(field) for name, field in made.output_fields.items()}
    )
    allowance = Allowance(CHARS_MOST)
    token = begin(allowance)
    try:
        typed = {name: _typed(reader, wire[name], allowance) for name, reader in readers.items() if name in wire}
    finally:
        end(token)
    return typed | {name: value for name, value in wire.items() if name not in readers}


def _typed(reader: ValueParser, value: Any, allowance: Allowance) -> Any:
    kind = reader.field.annotation
    if value is None or kind is str or _is_worker_type(kind):
        return value
    try:
        return reader.validated(value)
    except UNREADABLE as error:
        why = f": {allowance.refusal}" if allowance.refusal else "."
        raise AdapterParseError(
            f"The worker's output {reader.field.name!r} does not fit its type{why}",
            adapter="wire",
            expected=(reader.field.name,),
        ) from error


def _is_worker_type(kind: Any) -> bool:
    return is_dspy_type(kind) and getattr(kind, "worker_only", False)


# --- inputs -------------------------------------------------------------------------------------------------------


def _checked(sig: Signature, inputs: Mapping[str, Any], allow_markers: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the inputs as native code takes them, and as plain data, which of plain types is the same."""
    typed: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    checks = sig.derive("input_checks", _input_checks)
    if not inputs.keys() <= checks.keys():
        raise _extra(sig, inputs)
    for name, check in checks.items():
        if name in inputs:
            value = inputs[name]
        elif check.field.has_default:
            value = check.field.make_default()
        elif check.may_be_absent:
            continue
        else:
            raise _missing(sig, inputs)
        typed[name], plain[name] = check.read(value)
        if not allow_markers:
            _refuse_marker(name, plain[name])
    return typed, plain


class _InputCheck:
    """The check of one input; `validate` is None for plain types."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.is_history = is_dspy_type(field.annotation) and field.annotation.dspy_name == "dspy.History"
        self.may_be_absent = allows_none(field.annotation)
        self.validate: Callable[[Any], Any] | None = _validator(field.annotation) if is_rich(field.annotation) else None

    def read(self, value: Any) -> tuple[Any, Any]:
        """Return the value as native code takes it, and as plain data; of a plain type both are the same."""
        name = self.field.name
        if self.validate is None:
            plain = value if type(value) is str else to_wire(value, name)  # a tuple is a list to the worker, so here
            if type(plain) is list and self.field.annotation is str:
                _require_texts(name, plain)
            return plain, plain
        typed = None if value is None else self._typed(value)
        return typed, to_wire(typed, name)

    def _typed(self, value: Any) -> Any:
        assert self.validate is not None
        kind = self.field.annotation
        if is_dspy_type(kind) and not isinstance(value, kind):
            value = {"messages": value} if isinstance(value, list) and self.is_history else value
            make = kind if kind.dspy_name in _MADE_BY_CALL and not isinstance(value, Mapping) else self.validate
        else:
            make = self.validate
        try:
            return _listed(make(value)) if self.is_history else make(value)
        except UNREADABLE as error:
            raise InvalidInput(_misfit(self.field.name, error), field=self.field.name) from error


def _listed(history: Any) -> Any:
    """Return the conversation with lists for tuples and sets, as plain fields have them."""
    turns = history.messages
    if not any(type(value) in (tuple, set, frozenset) for turn in turns for value in turn.values()):
        return history
    plain = [
        {name: list(value) if type(value) in (tuple, set, frozenset) else value for name, value in turn.items()}
        for turn in turns
    ]
    return type(history)(messages=plain)


def _input_checks(sig: Signature) -> dict[str, _InputCheck]:
    return {name: _InputCheck(field) for name, field in sig.input_fields.items()}


def _validator(annotation: Any) -> Callable[[Any], Any]:
    if _is_worker_type(annotation):
        return lambda value: value
    from pydantic import TypeAdapter

    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    return adapter.validate_python


def _require_texts(name: str, items: list[Any]) -> None:
    try:
        render(items, str)
    except TypeError as error:
        message = f"The input {name!r} is a list for a text field, and not all its items are text."
        raise InvalidInput(message, field=name) from error


def _misfit(name: str, error: BaseException) -> str:
    listed = getattr(error, "errors", None)
    if listed is None:
        return f"The input {name!r} does not fit its type ({type(error).__name__})."
    first = listed(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"The input {name!r} does not fit its type: {first['type']}{f' at {place}' if place else ''}."


def _extra(sig: Signature, inputs: Mapping[str, Any]) -> InvalidInput:
    name = next(key for key in inputs if key not in sig.input_fields)
    return InvalidInput(str(UnknownName("input", str(name), sig.input_fields, where=f"'{sig}'")), field=str(name))


def _missing(sig: Signature, inputs: Mapping[str, Any]) -> InvalidInput:
    checks = sig.derive("input_checks", _input_checks)
    missing = [n for n, c in checks.items() if n not in inputs and not c.field.has_default and not c.may_be_absent]
    names, given = ", ".join(map(repr, missing)), ", ".join(map(repr, inputs))
    return InvalidInput(f"The inputs of '{sig}' lack {names}; given: {given or 'none'}.", field=missing[0])


# --- plain data ---------------------------------------------------------------------------------------------------


def to_wire(value: Any, path: str = "value") -> Any:
    """Return the value as None, bool, int of 64 bits, float, str, bytes, list, or dict with str keys.

    Raises:
        EncodeError: a part has no such form; `path` leads to it.
    """
    kind = type(value)
    if kind in _EXACT:
        return value
    if kind is int:
        return _within_64_bits(value, path)
    if kind is list or kind is tuple or kind is set or kind is frozenset:
        return [to_wire(item, f"{path}[{at}]") for at, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {_key(key, path): to_wire(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, enum.Enum):
        return to_wire(value.value, path)
    if is_dspy_type(kind):
        return _dspy_to_wire(value, path)
    return _by_pydantic(value, path)


def _within_64_bits(value: int, path: str) -> int:
    if -(2**63) <= value < 2**64:
        return value
    raise EncodeError(path, "int", "it needs more than 64 bits")


def _key(key: Any, path: str) -> str:
    if type(key) is str:
        return key
    plain = to_wire(key, f"a key of {path}")
    if isinstance(plain, bool) or plain is None:
        return {True: "true", False: "false", None: "None"}[plain]  # what pydantic makes of such keys in JSON
    if isinstance(plain, str | int | float):
        return str(plain)
    raise EncodeError(f"a key of {path}", type(key).__name__)


def demo_to_wire(value: Any, path: str) -> Any:
    """Return a demo as plain data: values of DSPy's types as prompts show them, which is how DSPy itself saves demos.

    Raises:
        EncodeError: as `to_wire`.
    """
    if isinstance(value, Mapping):
        return {_key(key, path): demo_to_wire(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [demo_to_wire(item, f"{path}[{at}]") for at, item in enumerate(value)]
    return to_wire(value.serialize_model() if hasattr(value, "serialize_model") else value, path)


def _dspy_to_wire(value: Any, path: str) -> Any:
    """Return the value's members, with the places of tool calls in a conversation: a mapping may look like them."""
    if value.dspy_name == "dspy.History":
        places = [[at, name] for at, turn in enumerate(value.messages) for name in turn if _is_calls(turn[name])]
        plain = {"messages": to_wire(value.messages, f"{path}.messages")}
        return plain | ({"tool_calls": places} if places else {})
    members = value.to_wire() if hasattr(value, "to_wire") else dict(value)
    return to_wire(members, path)


def _with_shown(plain: dict[str, Any], history: Any) -> dict[str, Any]:
    """Return a conversation's plain form, with images and their like in its turns as prompts show them, as in demos."""
    shown = [
        {name: turn[name] if _is_calls(value) else demo_to_wire(value, name) for name, value in given.items()}
        for turn, given in zip(plain["messages"], history.messages, strict=True)
    ]
    return plain | {"messages": shown}


def _is_calls(value: Any) -> bool:
    return is_dspy_type(type(value)) and bool(value.dspy_name == "dspy.ToolCalls")


def _by_pydantic(value: Any, path: str) -> Any:
    from pydantic import TypeAdapter

    kind: Any = type(value)
    try:
        plain = TypeAdapter(kind).dump_python(value, mode="json")
    except Exception as error:  # pydantic raises several kinds; each means that the value has no JSON form
        raise EncodeError(path, kind.__name__) from error
    if type(plain) is kind:
        raise EncodeError(path, kind.__name__)
    return to_wire(plain, path)


def _refuse_marker(name: str, plain: Any) -> None:
    if START in plain if type(plain) is str else any(START in text for text in texts_in(plain)):
        raise UnsafeInput(
            f"The input {name!r} holds DSPy's custom-type marker, which would become a content block "
            f"(a URL for the provider to fetch, for instance). Remove it, or pass allow_markers=True.",
            field=name,
        )


def texts_in(plain: Any) -> typing.Iterator[str]:
    """Yield every text in plain data, keys included."""
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, list):
        for item in plain:
            yield from texts_in(item)
    elif isinstance(plain, dict):
        yield from plain
        for item in plain.values():
            yield from texts_in(item)
