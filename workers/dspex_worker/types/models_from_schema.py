"""Rebuild a pydantic model from the JSON schema that pydantic made of another.

What a schema does not say (validators, methods) is lost. A rebuilt model must describe itself with exactly the schema
that it was built from, because prompts quote it and answers depend on it; else it is refused. Rebuilding runs and
imports nothing that the schema names.
"""

from __future__ import annotations

import datetime
import enum
import keyword
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Final, ForwardRef, Literal, Union

import pydantic

from .enum_specs import enum_class

_REF: Final = "#/$defs/"
_PLAIN: Final = {"string": str, "integer": int, "number": float, "boolean": bool, "null": type(None)}
_FORMATS: Final = {
    "date-time": datetime.datetime,
    "date": datetime.date,
    "time": datetime.time,
    "duration": datetime.timedelta,
    "uuid": uuid.UUID,
    "binary": bytes,
}
_CONSTRAINTS: Final = {
    "exclusiveMinimum": "gt",
    "minimum": "ge",
    "exclusiveMaximum": "lt",
    "maximum": "le",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
    "multipleOf": "multiple_of",
    "pattern": "pattern",
}
_FAILURES: Final = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    NameError,
    RecursionError,
    pydantic.errors.PydanticUserError,
)


class Unbuildable(ValueError):
    """No model can be made; the text ends "The model cannot be rebuilt ..."."""


def model_from_schema(
    schema: Mapping[str, Any], name: str = "", known: Mapping[str, Any] | None = None
) -> type[pydantic.BaseModel]:
    """Return a model with exactly this JSON schema; `known` holds classes that references prefer where they fit.

    Raises:
        Unbuildable: the schema uses something that cannot be rebuilt exactly.
    """
    name = name or str(schema.get("$ref", schema.get("title", "Model"))).removeprefix(_REF)
    if known:
        try:
            return _model_from_schema(schema, name, known)
        except Unbuildable:  # it means other classes by these names
            pass
    return _model_from_schema(schema, name, {})


def _model_from_schema(schema: Mapping[str, Any], name: str, known: Mapping[str, Any]) -> type[pydantic.BaseModel]:
    try:
        made: type[pydantic.BaseModel] = _Builder(schema, name, known).whole()
        again = made.model_json_schema()
        is_same = again == schema and list(again.get("properties", ())) == list(schema.get("properties", ()))
    except _FAILURES as error:
        raise Unbuildable(f"from its schema: {error}") from error
    if not is_same:  # the order of members is that of prompts
        raise Unbuildable("exactly from its schema")
    return made


class _Builder:
    """Builds the classes of one schema; `$defs` become classes once each."""

    def __init__(self, schema: Mapping[str, Any], name: str, known: Mapping[str, Any]) -> None:
        definitions = dict(schema.get("$defs", {}))
        if not (name in definitions and "$ref" in schema):
            definitions[name] = {key: value for key, value in schema.items() if key != "$defs"}
        self.name = name
        self.definitions = definitions
        self.known = known
        self.built: dict[str, Any] = {}
        self.open: set[str] = set()
        self.is_recursive = False

    def whole(self) -> Any:
        """Return the class, with every class that it needs complete."""
        self.built[self.name] = made = self.definition(self.name)
        models = [kind for kind in self.built.values() if not issubclass(kind, enum.Enum)]
        for model in models if self.is_recursive else ():
            model.model_rebuild(force=True, _types_namespace={**self.known, **self.built})
        return made

    def definition(self, name: str) -> Any:
        self.open.add(name)
        schema = self.definitions[name]
        made = _enum(name, schema) if "enum" in schema else self.model(name, schema)
        self.open.discard(name)
        return made

    def reference(self, path: str) -> Any:
        name = path.removeprefix(_REF)
        if name in self.open:
            self.is_recursive = True  # completed by `whole`, when every class has its name
            return ForwardRef(name)
        if name in self.known and name not in self.built:
            return self.known[name]
        if name not in self.built:
            self.built[name] = self.definition(name)
        return self.built[name]

    def model(self, name: str, schema: Mapping[str, Any]) -> type[pydantic.BaseModel]:
        if schema.get("type") != "object":
            raise ValueError(f"{name} is neither a model nor an enum")
        required = set(schema.get("required", ()))
        properties = schema.get("properties", {})
        members = {member: self.member(member, part, member in required) for member, part in properties.items()}
        extra = {True: "allow", False: "forbid", None: None}[schema.get("additionalProperties")]
        title = {} if schema.get("title") == name else {"title": schema.get("title")}
        config: Any = {**title, **({"extra": extra} if extra else {})}
        create: Any = pydantic.create_model
        made: type[pydantic.BaseModel] = create(
            name, __config__=config or None, __doc__=schema.get("description"), **members
        )
        return made

    def member(self, name: str, schema: Mapping[str, Any], is_required: bool) -> tuple[Any, Any]:
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
            raise ValueError(f"the member {name!r} has no Python name")
        options = _options(schema) | {key: schema[key] for key in ("description", "examples") if key in schema}
        if schema.get("title", _title(name)) != _title(name):
            options["title"] = schema["title"]
        if not is_required and "default" not in schema:
            return self.type(schema), pydantic.Field(default_factory=lambda: None, **options)
        kind = self.type(schema)
        return kind, pydantic.Field(... if is_required else _default(kind, schema["default"]), **options)

    def type(self, schema: Any) -> Any:
        if schema is True or not schema.keys() - {"title", "description", "default", "examples"}:
            return Any
        if "$ref" in schema:
            return self.reference(schema["$ref"])
        if "anyOf" in schema:
            return Union[tuple(self.constrained(part) for part in schema["anyOf"])]  # noqa: UP007 - built from a list
        if "allOf" in schema and len(schema["allOf"]) == 1:
            return self.type(schema["allOf"][0])
        if "const" in schema:
            return Literal[schema["const"]]
        if "enum" in schema:
            return Literal[tuple(schema["enum"])]
        return self.plain(schema)

    def plain(self, schema: Mapping[str, Any]) -> Any:
        kind = schema["type"]
        if kind == "array":
            return self.array(schema)
        if kind == "object":
            values = schema.get("additionalProperties")
            return dict if values is None else _generic(dict, (str, self.constrained(values)))
        if kind == "string" and "format" in schema:
            return _FORMATS[schema["format"]]
        return _PLAIN[kind]

    def array(self, schema: Mapping[str, Any]) -> Any:
        if "prefixItems" in schema:
            return _generic(tuple, tuple(self.constrained(part) for part in schema["prefixItems"]))
        base = set if schema.get("uniqueItems") else list
        return _generic(base, self.constrained(schema["items"])) if "items" in schema else base

    def constrained(self, schema: Any) -> Any:
        """Return the type of a nested schema, with its constraints as metadata."""
        made = self.type(schema)
        options = {} if schema is True else _options(schema)
        if not options:
            return made
        annotated: Any = pydantic.Field(**options)
        return Annotated[made, annotated]


def _options(schema: Mapping[str, Any]) -> dict[str, Any]:
    if "prefixItems" in schema:
        return {}  # a tuple's own minItems and maxItems follow from its type
    return {option: schema[key] for key, option in _CONSTRAINTS.items() if key in schema}


def _default(kind: Any, shown: Any) -> Any:
    """Return the default of which a schema shows the JSON form: an enum's member, a date, a model."""
    if shown is None or type(shown) is kind:
        return shown
    try:
        adapter: Any = pydantic.TypeAdapter(kind)
        made = adapter.validate_python(shown)
        return made if adapter.dump_python(made, mode="json") == shown else shown
    except _FAILURES:  # a class that is not complete yet, or a default that does not fit its type
        return shown


def _enum(name: str, schema: Mapping[str, Any]) -> Any:
    """Member names are not in a schema; values are what prompts show."""
    members = {f"member_{at}": value for at, value in enumerate(schema["enum"])}
    return enum_class(schema.get("title", name), members, schema.get("description"))


def _generic(base: Any, arguments: Any) -> Any:
    return base[arguments]


def _title(name: str) -> str:
    return name.title().replace("_", " ").strip()
