"""Signatures: inputs, outputs and the instructions between, as one immutable value.

`signature("question -> answer")` reads DSPy's string form; `class QA(Signature)` is the class form, and yields the
same kind of value: `QA` is a `Signature`, not a class. Signatures are shared freely between threads. What can be
derived from one (its compiled prompts) is kept with it. Prompts are made in `adapters/`, the wire form in `wire_form`.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from ..errors import SignatureError, UnknownName
from ..types.dspy_objects import annotation_here, is_signature_class
from .annotations import annotation_text, without_metadata
from .field import Field
from .grammar import check_name, read_fields

SignatureLike = typing.Union["str", "Signature", "type[Signature]"]  # or a class of DSPy's, which has no types
_T = typing.TypeVar("_T")


def signature(
    spec: SignatureLike | Mapping[str, Any],
    instructions: str | None = None,
    *,
    custom_types: Mapping[str, Any] | None = None,
) -> Signature:
    """Return the signature that `spec` describes.

    `spec` is DSPy's string form, a signature, a class derived from `dspy.Signature`, or `{name: InputField(...)}` /
    `{name: (type, OutputField(...))}`. `custom_types` maps the names in a string to enums, pydantic models or other
    classes; nothing is ever imported. Without instructions the text is DSPy's own default.

    Raises:
        SignatureError: it is none; the message has the position, and near names.
    """
    if isinstance(spec, str):
        return (
            _read_string(spec, instructions or "", custom_types)
            if custom_types
            else _read_known(spec, instructions or "")
        )
    if isinstance(spec, Signature):
        return spec if instructions is None else spec.with_instructions(instructions)
    if isinstance(spec, Mapping):
        return Signature._of(dict(_named_fields(spec)), instructions or "")
    if is_signature_class(spec):
        made = _of_dspy_class(spec)
        return made if instructions is None else made.with_instructions(instructions)
    raise SignatureError(f"A signature is a string, a Signature or a mapping of fields, not {type(spec).__name__}.")


def signature_of_fields(fields: Mapping[str, Field], doc: str) -> Signature:
    """Return the signature of fields that are complete already; for `wire_form`."""
    return Signature._of(fields, doc) if doc else _with_exact_doc(fields, doc, "StringSignature")


def _of_dspy_class(cls: Any) -> Signature:
    """Return the signature of a class, which may change: its instructions can be set."""
    from .dspy_signatures import fields_of_class

    return _with_exact_doc(fields_of_class(cls), cls.__doc__ or "", cls.__name__)


@functools.lru_cache(maxsize=1024)
def _read_known(spec: str, doc: str) -> Signature:
    return _read_string(spec, doc, None)  # a signature never changes, so callers may share it and its compiled forms


def _read_string(spec: str, doc: str, custom_types: Mapping[str, Any] | None) -> Signature:
    return Signature._of(read_fields(spec, custom_types), doc)


class _ClassForm(type):
    """Makes `class QA(Signature): ...` yield a Signature value instead of a class."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
        if not bases:
            return super().__new__(mcs, name, bases, namespace)
        return _read_class(name, bases, namespace, sys._getframe(1).f_locals)


class Signature(metaclass=_ClassForm):
    """Named input and output fields, with instructions; immutable, hashable, equal by content.

    Subclass it to write a signature in class form: the docstring is the instructions, annotations are the types, and
    every field is an `InputField(...)` or `OutputField(...)`. Subclassing a signature inherits its fields.
    """

    __slots__ = ("_derived", "_doc", "_fields", "_inputs", "_outputs", "name")
    name: str
    _doc: str
    _derived: dict[str, Any]
    _fields: Mapping[str, Field]
    _inputs: Mapping[str, Field]
    _outputs: Mapping[str, Field]

    @classmethod
    def _of(cls, fields: Mapping[str, Field], doc: str, name: str = "StringSignature") -> Signature:
        """Return a signature of these parts: the one constructor. An empty `doc` stands for DSPy's default text."""
        self = object.__new__(Signature)
        inputs = {key: field for key, field in fields.items() if field.kind == "input"}
        outputs = {key: field for key, field in fields.items() if field.kind == "output"}
        put = object.__setattr__
        put(self, "name", name)
        put(self, "_inputs", MappingProxyType(inputs))
        put(self, "_outputs", MappingProxyType(outputs))
        put(self, "_fields", MappingProxyType({**inputs, **outputs}))
        put(self, "_doc", doc or _default_instructions(inputs, outputs))
        put(self, "_derived", {})
        return self

    # --- reading ---

    @property
    def fields(self) -> Mapping[str, Field]:
        """All fields by name, inputs before outputs."""
        return self._fields

    @property
    def input_fields(self) -> Mapping[str, Field]:
        """The inputs by name, in order."""
        return self._inputs

    @property
    def output_fields(self) -> Mapping[str, Field]:
        """The outputs by name, in order."""
        return self._outputs

    @property
    def instructions(self) -> str:
        """The instructions, with the indentation of a docstring taken off."""
        return inspect.cleandoc(self._doc)

    @property
    def doc(self) -> str:
        """The instructions as they were written; `instructions` is what prompts use."""
        return self._doc

    def derive(self, key: str, make: Callable[[Signature], _T]) -> _T:
        """Return `make(self)`, computed once and kept with the signature (two threads may both compute it)."""
        try:
            return typing.cast(_T, self._derived[key])
        except KeyError:
            return typing.cast(_T, self._derived.setdefault(key, make(self)))

    # --- changing: each returns a new signature ---

    def with_instructions(self, instructions: str) -> Signature:
        """Return a copy with other instructions; an empty string stands for DSPy's default text."""
        return Signature._of(self._fields, instructions, self.name)

    def append_instructions(self, instructions: str) -> Signature:
        """Return a copy with the instructions, a blank line, then these."""
        return self.with_instructions(f"{self.instructions}\n\n{instructions}")

    def with_updated_fields(self, name: str, type_: Any = None, **changes: Any) -> Signature:
        """Return one field with another type, or another `desc`, `constraints`, `default` or `default_factory`.

        Raises:
            UnknownName: a field or attribute that does not exist.
        """
        if name not in self._fields:
            raise UnknownName("field", name, self._fields)
        for key in changes:
            if key not in _CHANGEABLE:
                raise UnknownName("field attribute", key, _CHANGEABLE)
        if type_ is not None:
            changes["annotation"] = _own_type(name, type_)
        fields = {**self._fields, name: self._fields[name].replace(**changes)}
        return Signature._of(fields, self.instructions, self.name)

    def prepend(self, name: str, field: Any, type_: Any = None) -> Signature:
        """Return a copy with `field` (an InputField or OutputField) before the others of its side."""
        return self.insert(0, name, field, type_)

    def append(self, name: str, field: Any, type_: Any = None) -> Signature:
        """Return a copy with `field` after the others of its side."""
        return self.insert(-1, name, field, type_)

    def insert(self, index: int, name: str, field: Any, type_: Any = None) -> Signature:
        """Return a copy with `field` at this place of its side; -1 is the end. A name that exists keeps its field.

        Raises:
            SignatureError: an index out of range, or a name that DSPy cannot bear.
        """
        new = _named(name, field, type_)
        sides = {"input": list(self._inputs.items()), "output": list(self._outputs.items())}
        side = sides[new.kind]
        place = index + len(side) + 1 if index < 0 else index
        if not 0 <= place <= len(side):
            raise SignatureError(f"There is no place {index} among {len(side)} {new.kind} fields.")
        side.insert(place, (name, new))
        return Signature._of(dict([*sides["input"], *sides["output"]]), self.instructions, self.name)

    def delete(self, name: str) -> Signature:
        """Return a copy without this field; a name that is not there changes nothing."""
        rest = {key: field for key, field in self._fields.items() if key != name}
        return Signature._of(rest, self.instructions, self.name)

    # --- being a value ---

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Signature):
            return NotImplemented
        return self._doc == other._doc and list(self._fields.values()) == list(other._fields.values())

    def __hash__(self) -> int:
        return hash((self._doc, tuple(self._fields)))

    def __repr__(self) -> str:
        return f"Signature({str(self)!r})"

    def __str__(self) -> str:
        """Return the string form: names and types, without instructions and descriptions."""
        return f"{_side_text(self._inputs)} -> {_side_text(self._outputs)}"

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"A signature is immutable; {name!r} cannot be set. Use with_updated_fields and the like.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"A signature is immutable; {name!r} cannot be deleted.")

    def __copy__(self) -> Signature:
        return self

    def __deepcopy__(self, memo: Any) -> Signature:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (dict(self._fields), self._doc, self.name)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (Signature,)  # so that `class Narrower(QA): ...` works although QA is a value


# What `make_signature` of DSPy takes for a type; `typing.List` alone is none of these.
_TYPE_FORMS: Any = (
    type,
    getattr(typing, "_GenericAlias"),  # noqa: B009 - private, as in DSPy
    getattr(typing, "_SpecialForm"),  # noqa: B009
    types.GenericAlias,
    types.UnionType,
)
_CHANGEABLE = ("annotation", "constraints", "default", "default_factory", "desc")


def _rebuilt(fields: dict[str, Field], doc: str, name: str) -> Signature:
    return Signature._of(fields, doc, name)


def _default_instructions(inputs: Mapping[str, Field], outputs: Mapping[str, Field]) -> str:
    given = ", ".join([f"`{name}`" for name in inputs])
    wanted = ", ".join([f"`{name}`" for name in outputs])
    return f"Given the fields {given}, produce the fields {wanted}."


def _side_text(fields: Mapping[str, Field]) -> str:
    return ", ".join(
        name if field.annotation is str else f"{name}: {_shown_type(field.annotation)}"
        for name, field in fields.items()
    )


def _shown_type(annotation: Any) -> str:
    try:
        return annotation_text(annotation)
    except SignatureError:  # a callable, say: it runs natively
        return str(annotation)


def _named_fields(spec: Mapping[str, Any]) -> Iterator[tuple[str, Field]]:
    for name, value in spec.items():
        if not isinstance(name, str):
            raise SignatureError(f"The name of a field is a string, not {name!r}.")
        type_, field = value if isinstance(value, tuple) and len(value) == 2 else (None, value)
        _require_type(name, type_)
        yield name, _named(name, field, type_)


def _require_type(name: str, type_: Any) -> None:
    """Check what a mapping gives as a type, as DSPy does (`make_signature`): a NewType or a text is none.

    Raises:
        SignatureError: it is none.
    """
    if type_ is None or isinstance(type_, _TYPE_FORMS):
        return
    raise SignatureError(f"The type of the field {name!r} is {type_!r}, which is no type.")


def _named(name: str, field: Any, type_: Any) -> Field:
    """Return the field under its name, with its type settled; the checks that every way of adding a field shares."""
    if not isinstance(field, Field):
        raise SignatureError(f"The field {name!r} must be an InputField(...) or OutputField(...), not {field!r}.")
    check_name(name)
    annotation = _own_type(name, field.annotation if type_ is None else type_)
    untyped = annotation is None
    named = field.replace(name=name, annotation=str if untyped else annotation, untyped=untyped or field.untyped)
    if named.constraints:
        _check_constraints(named)
    return named


def _own_type(name: str, type_: Any) -> Any:
    type_ = annotation_here(type_)
    if typing.ClassVar in (type_, typing.get_origin(type_)):
        raise SignatureError(f"{name!r} is a ClassVar, which is no field: DSPy would leave it out of the prompt.")
    if typing.get_origin(type_) is typing.Annotated:
        for item in type_.__metadata__:  # pydantic's Field(default=...), say, which DSPy takes for the field's own
            if hasattr(item, "is_required") and not item.is_required():
                raise SignatureError(
                    f"Give the default of {name!r} to InputField or OutputField, not inside Annotated."
                )
    return without_metadata(type_)


def _check_constraints(field: Field) -> None:
    from pydantic import Field as PydanticField
    from pydantic import TypeAdapter

    try:
        constrained: Any = typing.Annotated[field.annotation, PydanticField(**dict(field.constraints or {}))]
        TypeAdapter(constrained)
    except Exception as error:  # TypeError for a wrong kind of type, SchemaError for a wrong kind of bound
        raise SignatureError(f"The constraints of {field.name!r} do not fit its type: {error}") from None


# --- the class form -----------------------------------------------------------------------------------------------


def _read_class(name: str, bases: tuple[type, ...], namespace: dict[str, Any], around: Mapping[str, Any]) -> Signature:
    parents = [base for base in namespace.get("__orig_bases__", bases) if isinstance(base, Signature)]
    annotations = namespace.get("__annotations__", {})
    fields: dict[str, Field] = {}
    for parent in reversed(parents):
        fields.update(parent.fields)
    for key, value in namespace.items():
        if key.startswith("__") and key.endswith("__"):
            continue
        if not isinstance(value, Field):
            raise SignatureError(f"{key!r} in the signature {name} is not an InputField(...) or OutputField(...).")
        fields[key] = _named(key, value, _resolved(annotations.get(key), key, namespace, around))
    for key in annotations:
        if key not in namespace:
            raise SignatureError(
                f"The field {key!r} of the signature {name} needs = InputField(...) or OutputField(...)."
            )
    doc = namespace.get("__doc__")
    if doc is None:
        doc = parents[0]._doc if parents else _default_instructions(*_sides(fields))
    return _with_exact_doc(fields, doc, name)


def _resolved(annotation: Any, key: str, namespace: Mapping[str, Any], around: Mapping[str, Any]) -> Any:
    """Return the type behind an annotation that `from __future__ import annotations`, or quotes, made a string."""
    if not isinstance(annotation, str):
        return annotation
    module = sys.modules.get(namespace.get("__module__", ""))
    try:
        # The text is the class body's own source, so this runs nothing that the class statement would not have run.
        return eval(annotation, dict(vars(module)) if module else {}, dict(around))
    except Exception as error:  # any code may run in an annotation
        raise SignatureError(f"The type {annotation!r} of the field {key!r} cannot be resolved: {error}.") from error


def _sides(fields: Mapping[str, Field]) -> tuple[dict[str, Field], dict[str, Field]]:
    inputs = {key: field for key, field in fields.items() if field.kind == "input"}
    return inputs, {key: field for key, field in fields.items() if field.kind == "output"}


def _with_exact_doc(fields: Mapping[str, Field], doc: str, name: str) -> Signature:
    made = Signature._of(fields, doc, name)
    if not doc:  # an empty docstring means empty instructions in the class form, and DSPy's default elsewhere
        object.__setattr__(made, "_doc", "")
    return made
