"""Say in JSON Schema what a program takes and gives; read inputs by it, and write outputs by it. Pure.

Inputs are read strictly: what the schema refuses is refused, though DSPy itself would take it. A field that has a
default, or may be None, may be left out. A program without a signature takes what a worker says of it, and gives
anything.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, NotRequired

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic import Field as SchemaField
from typing_extensions import TypedDict

from ..adapters.plain_data import to_wire
from ..errors import DspexError, EncodeError, InvalidInput, SettingsError
from ..signatures.annotations import allows_none, classes_in, is_dspy_type
from ..types.prediction import Prediction

if TYPE_CHECKING:
    from ..programs.calling.program import Program
    from ..signatures.field import Field

MISFITS_MOST = 20  # fields that an error names
PATH_MOST = 200  # characters of the path to one
OWN_CHECK = "its type's own check refuses it"
_USERS_OWN = frozenset({"value_error", "assertion_error"})  # whose messages may quote what was given


class MisfitInput(InvalidInput):
    """Inputs do not fit the schema; `misfits` are pairs of a path and what is wrong there, without the value."""

    def __init__(self, program: str, misfits: tuple[tuple[str, str], ...]) -> None:
        self.misfits = misfits
        shown = "; ".join(f"{path or 'the whole'}: {what}" for path, what in misfits)
        super().__init__(f"The inputs of {program!r} do not fit: {shown}.", field=misfits[0][0] if misfits else None)


class UnwritableOutput(EncodeError):
    """The program gave what JSON cannot hold."""


@dataclass(frozen=True)
class ProgramShape:
    """What one program takes and gives."""

    name: str
    inputs: TypeAdapter[dict[str, Any]]
    outputs: TypeAdapter[Any]
    writers: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)  # of outputs that have a type

    def read(self, given: Any) -> dict[str, Any]:
        """Return the inputs of a request, typed; those that were left out are not among them.

        Raises:
            MisfitInput: they do not fit.
        """
        try:
            text = json.dumps(given, allow_nan=False)
        except ValueError:  # of 1e999, say
            raise MisfitInput(self.name, (("", "a number is too large"),)) from None
        try:
            return self.inputs.validate_json(text, strict=True)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)[:MISFITS_MOST]
            raise MisfitInput(self.name, tuple(map(_misfit, found))) from None
        except Exception as error:  # a type's own check may raise whatever it likes
            raise MisfitInput(self.name, (("", OWN_CHECK),)) from error

    def write(self, made: Any) -> Any:
        """Return what the program gave as JSON has it.

        Raises:
            UnwritableOutput: JSON cannot hold it.
        """
        try:
            if not isinstance(made, Prediction):
                return to_wire(made)
            return {name: self._written(name, value) for name, value in made.items()}
        except EncodeError as error:
            raise UnwritableOutput(error.path, error.type) from error

    def _written(self, name: str, value: Any) -> Any:
        writer = self.writers.get(name)
        if writer is not None and value is not None:
            with contextlib.suppress(ValueError):  # of a default of another type, say
                return writer(value)
        return to_wire(value, name)


def shape_of(name: str, program: Program[Any]) -> ProgramShape:
    """Return the shape of a program; of one without a signature a worker is asked, which blocks.

    Raises:
        SettingsError: JSON cannot hold the values of one of its fields.
    """
    if program.is_open:
        return _open_shape(name, program.described)
    known = program.taken.input_fields
    more = known.keys() - program.signature.input_fields.keys()  # a conversation to go on with
    names = dict.fromkeys((*program.inputs, *more))  # not what a program fills in itself, such as passages
    taken = {each: _taken(name, known[each]) if each in known else Any for each in names}
    given = program.answered.output_fields
    writers = {each: _writer(found) for each, found in given.items() if not _holds_dspy_type(found.annotation)}
    outputs = {each: _given(name, found) for each, found in given.items()}
    return ProgramShape(
        name,
        _record(f"{name}Inputs", taken, is_closed=True),
        _record(f"{name}Outputs", outputs, is_closed=False),
        writers,
    )


def _open_shape(name: str, described: Mapping[str, Any]) -> ProgramShape:
    required, texts = described["required"], described.get("texts", ())
    taken: dict[str, Any] = {each: str if each in texts and each in required else Any for each in described["inputs"]}
    taken = {each: kind if each in required else NotRequired[kind] for each, kind in taken.items()}
    inputs = _record(f"{name}Inputs", taken, is_closed=not described["takes_any"])
    return ProgramShape(name, inputs, TypeAdapter(Any))


def _taken(name: str, taken: Field) -> Any:
    extra: dict[str, Any] = {}
    if taken.has_default:
        try:
            extra["default"] = to_wire(taken.make_default(), taken.name)
        except DspexError:
            pass  # it has no form in JSON, and is filled in all the same
    rules: dict[str, Any] = {
        "description": taken.shown_desc or None,
        "json_schema_extra": extra or None,
        **(taken.constraints or {}),
    }
    kind = _annotated(taken.annotation, SchemaField(**rules))
    _require_json(name, taken, kind, "validation")
    return NotRequired[kind] if taken.has_default or allows_none(taken.annotation) else kind


def _given(name: str, given: Field) -> Any:
    words = ", ".join(filter(None, (given.shown_desc, given.constraint_text)))  # shown to the model, and not enforced
    kind = _annotated(given.annotation, SchemaField(description=words or None))
    _require_json(name, given, kind, "serialization")
    return kind


def _require_json(name: str, what: Field, kind: Any, mode: Any) -> None:
    try:
        TypeAdapter(kind).json_schema(mode=mode)
    except Exception as error:  # pydantic raises several kinds; each means that the type has no JSON form
        raise SettingsError(
            f"The {what.kind} {what.name!r} of the program {name!r} is of a type that JSON cannot hold "
            f"({type(error).__name__}). Serve a program that wraps it, with a type of plain data.",
            key="programs",
        ) from error


def _record(title: str, fields: Mapping[str, Any], *, is_closed: bool) -> TypeAdapter[Any]:
    # A typed dict, not a model: its keys may be named `copy`, `json` or `model_config`.
    make: Any = TypedDict
    made = make(title, dict(fields))
    made.__pydantic_config__ = ConfigDict(
        extra="forbid" if is_closed else "allow",
        title=title,
        val_json_bytes="base64",
        allow_inf_nan=False,
    )
    return TypeAdapter(made)


def _writer(given: Field) -> Callable[[Any], Any]:
    # A list of it, since a model alone takes no configuration.
    listed: Any = list
    adapter: TypeAdapter[Any] = TypeAdapter(listed[given.annotation], config=ConfigDict(ser_json_bytes="base64"))
    return lambda value: adapter.dump_python([value], mode="json", by_alias=True, warnings=False)[0]


def _annotated(annotation: Any, what: Any) -> Any:
    make: Any = Annotated
    return make[annotation, what]


def _holds_dspy_type(annotation: Any) -> bool:
    return any(map(is_dspy_type, classes_in(annotation)))


def _misfit(found: Any) -> tuple[str, str]:
    what = OWN_CHECK if found["type"] in _USERS_OWN else found["msg"]
    return ".".join(map(str, found["loc"]))[:PATH_MOST], what
