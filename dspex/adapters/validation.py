"""Validate values: inputs checked and made plain, outputs given their Python types (RULES I2, X2).

Both routes pass here, before anything is routed and after anything is answered, so that an enum, model or tuple in the
outputs has the same type whoever produced it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from dspex_worker.types.annotation_facts import classes_in, is_rich

from ..errors import AdapterParseError, InvalidInput, UnknownName
from ..signatures.annotations import allows_none, is_dspy_type
from ..signatures.described_types import is_described
from ..signatures.field import MISSING, Field
from ..signatures.signature import Signature
from ..types.dspy_objects import value_here
from ..types.parse_budget import CHARS_MOST, ParseBudget, begin, end
from .conformity import conforms
from .injection import refuse_marked_input
from .output_decoder import KnownClasses, UnreadableForm, plain_of, value_of
from .parsing import UNREADABLE, ValueParser
from .plain_data import holds_dspy_type, is_plain, to_wire
from .rendering import render

_MADE_BY_CALL: Final = ("dspy.Image", "dspy.Audio", "dspy.File")  # `Image(url)`; others have a form of their own


def checked_inputs(sig: Signature, inputs: Mapping[str, Any], *, allow_markers: bool = False) -> dict[str, Any]:
    """Return the inputs in the signature's order, with defaults; values of rich types (models, enums...) validated.

    A missing input is an error unless it has a default or its type allows None (then it is left out, as in DSPy,
    which only warns in the other case). Plain types are taken as they are, as in DSPy: a list may go into a text
    field. Values of DSPy's own classes become those that stand for them here.

    Raises:
        InvalidInput: an input is missing, is none of the signature's, or does not fit its type.
        UnsafeInput: a text holds DSPy's custom-type marker, unless `allow_markers`.
    """
    checks = sig.derive("input_checks", _input_checks)
    if not inputs.keys() <= checks.keys():
        raise _extra(sig, inputs)
    typed: dict[str, Any] = {}
    for name, check in checks.items():
        if name in inputs:
            value = inputs[name]
        elif check.field.has_default:
            value = check.field.make_default()
        elif check.may_be_absent:
            continue
        else:
            raise _missing(sig, inputs)
        typed[name] = found = check.read(value)
        if not allow_markers:
            refuse_marked_input(name, found, check.field.annotation)
    return typed


@dataclasses.dataclass(frozen=True, slots=True)
class CrossedInputs:
    """Checked inputs, and how they reach a worker: `plain` exactly as they are, `carried` as Python objects."""

    typed: dict[str, Any]
    plain: dict[str, Any]
    carried: dict[str, Any]


def crossed_inputs(
    sig: Signature, inputs: Mapping[str, Any], *, allow_markers: bool = False, is_exact: bool = False
) -> CrossedInputs:
    """Return the checked inputs, ready for a worker; with `is_exact` none is made again from plain data there.

    Errors as for `checked_inputs`.
    """
    typed = checked_inputs(sig, inputs, allow_markers=allow_markers)
    checks = sig.derive("input_checks", _input_checks)
    made = CrossedInputs(typed, {}, {})
    for name, value in typed.items():
        if is_plain(value):
            made.plain[name] = value
        elif not is_exact and checks[name].may_cross_as_data(value) and is_plain(data := to_wire(value, name)):
            made.plain[name] = data
        elif checks[name].is_history and is_plain(value.messages):
            made.plain[name] = {"messages": value.messages}
        else:
            made.carried[name] = value
    return made


def open_inputs(inputs: Mapping[str, Any], *, allow_markers: bool = False) -> CrossedInputs:
    """Return the inputs of a program without a signature, ready for a worker.

    Raises:
        UnsafeInput: a text holds DSPy's custom-type marker, unless `allow_markers`.
    """
    typed = {name: value_here(value) for name, value in inputs.items()}
    for name, value in typed.items() if not allow_markers else ():
        refuse_marked_input(name, value, Any)
    plain = {name: value for name, value in typed.items() if is_plain(value)}
    return CrossedInputs(typed, plain, {name: value for name, value in typed.items() if name not in plain})


def typed_outputs(sig: Signature, wire: Mapping[str, Any], objects: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a worker's outputs under the signature's types, in DSPy's order; additions (`reasoning`) are as they came.

    `objects` are the exact forms of those that are not plain data.

    Raises:
        AdapterParseError: a value does not fit its type.
    """
    readers = sig.derive(
        "readers", lambda made: {name: _OutputReader(field) for name, field in made.output_fields.items()}
    )
    given = objects or {}
    budget = ParseBudget(CHARS_MOST)
    token = begin(budget)
    try:
        typed = {
            name: reader.of_form(given[name], budget) if name in given else reader.of_data(wire[name], budget)
            for name, reader in readers.items()
            if name in wire
        }
    finally:
        end(token)
    added = {name: value for name, value in wire.items() if name not in readers}
    whole = typed | added_outputs(added, given) if added else typed
    return {name: whole[name] for name in wire}


def added_outputs(
    wire: Mapping[str, Any], objects: Mapping[str, Any], packages: Collection[str] = ()
) -> dict[str, Any]:
    """Return outputs that no signature types; classes of `packages` that are loaded here are made again.

    Raises:
        AdapterParseError: what came is no form of a value.
    """
    known = KnownClasses(None, packages)
    try:
        return {name: value_of(objects[name], known) if name in objects else value for name, value in wire.items()}
    except UnreadableForm as error:
        raise AdapterParseError(f"The worker's outputs cannot be read: {error}.", adapter="wire") from error


class _OutputReader:
    """Gives one output of a worker its type."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self._parser = ValueParser(field)

    @functools.cached_property
    def _known(self) -> KnownClasses | None:
        """The classes of the type; None where its schema says all, and what comes is validated as data."""
        annotation = self.field.annotation
        return None if is_described(annotation) else KnownClasses(annotation)

    def of_data(self, value: Any, budget: ParseBudget) -> Any:
        """Return the value of plain data.

        Raises:
            AdapterParseError: it does not fit.
        """
        if value is None or self.field.annotation is str or self._is_default(value):
            return value
        try:
            if conforms(value, self.field.annotation):  # True for Literal[1], say, is what DSPy gives
                return value
            return self._parser.validated(value)
        except UNREADABLE as error:
            raise self._misfit(budget) from error

    def of_form(self, form: Any, budget: ParseBudget) -> Any:
        """Return the value of an exact form: made, not validated a second time, where validators are the user's.

        Raises:
            AdapterParseError: it does not fit.
        """
        try:
            if self._known is None:
                return self.of_data(plain_of(form), budget)
            value = value_of(form, self._known)
            if (conforms(value, self.field.annotation) and not _is_json(form)) or self._is_default(value):
                return value
            made = self._parser.validated(value)
            if not conforms(made, self.field.annotation):  # pydantic takes an object of the class as it is
                raise self._misfit(budget)
            return made
        except UNREADABLE as error:
            raise self._misfit(budget) from error

    def _is_default(self, value: Any) -> bool:
        """Whether this is what an answer that left the field out gives: of whatever type, as in DSPy."""
        default = self.field.default
        return default is not MISSING and type(value) is type(default) and bool(value == default)

    def _misfit(self, budget: ParseBudget) -> AdapterParseError:
        why = f": {budget.refusal}" if budget.refusal else "."
        return AdapterParseError(
            f"The worker's output {self.field.name!r} does not fit its type{why}",
            adapter="wire",
            expected=(self.field.name,),
        )


def _is_json(form: Any) -> bool:
    """Whether a value, or an item of it, came as JSON alone; members of models were seen to."""
    if isinstance(form, Mapping) and len(form) == 1:
        ((kind, inside),) = form.items()
        return kind == "json" or (kind in ("list", "tuple", "set", "frozenset", "dict") and _is_json(inside))
    return isinstance(form, list) and any(map(_is_json, form))


# --- inputs -------------------------------------------------------------------------------------------------------


class _InputCheck:
    """The check of one input; `validate` is None for plain types."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.is_history = is_dspy_type(field.annotation) and field.annotation.dspy_name == "dspy.History"
        self.may_be_absent = allows_none(field.annotation)
        self.validate: Callable[[Any], Any] | None = _validator(field.annotation) if is_rich(field.annotation) else None

    def read(self, value: Any) -> Any:
        """Return the value as native code takes it."""
        if type(value) is str and self.validate is None:
            return value
        value = value_here(value)
        if self.validate is not None:
            return None if value is None else self._typed(value)
        if self.field.annotation is str and isinstance(value, list):
            _require_texts(self.field.name, value)
        return value

    @functools.cached_property
    def crosses_as_data(self) -> bool:
        """Whether a worker makes the very value again from its plain form: its classes say all in their schemas."""
        return self.validate is not None and not self._holds_history and is_described(self.field.annotation)

    def may_cross_as_data(self, value: Any) -> bool:
        """Whether this value may: a value of DSPy's types where the type names none would be read as plain data."""
        return self.crosses_as_data and (self._names_dspy_types or not holds_dspy_type(value))

    @functools.cached_property
    def _names_dspy_types(self) -> bool:
        return any(map(is_dspy_type, classes_in(self.field.annotation)))

    @property
    def _holds_history(self) -> bool:
        """Whether conversations are among its values: any value may be in their turns."""
        return any(getattr(kind, "dspy_name", "") == "dspy.History" for kind in classes_in(self.field.annotation))

    def _typed(self, value: Any) -> Any:
        assert self.validate is not None
        kind = self.field.annotation
        make = self.validate
        if is_dspy_type(kind) and not isinstance(value, kind):
            value = {"messages": value} if isinstance(value, list) and self.is_history else value
            make = kind if kind.dspy_name in _MADE_BY_CALL and not isinstance(value, Mapping) else self.validate
        try:
            return make(value)
        except UNREADABLE as error:
            raise InvalidInput(_misfit(self.field.name, error), field=self.field.name) from error


def _input_checks(sig: Signature) -> dict[str, _InputCheck]:
    return {name: _InputCheck(field) for name, field in sig.input_fields.items()}


def _validator(annotation: Any) -> Callable[[Any], Any]:
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
