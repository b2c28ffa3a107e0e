"""A pydantic model from the JSON schema that pydantic made of another: how a saved program gets its types back.

What a schema does not say (validators, methods) is lost. A rebuilt model whose own schema differs is
refused, since prompts and answers depend on it. Rebuilding runs nothing that the schema names.
"""

from __future__ import annotations

import datetime
import enum
import keyword
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Final, ForwardRef, Literal, Union

import pydantic

from ..errors import SignatureError

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
_UNBUILDABLE: Final = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    RecursionError,
    pydantic.errors.PydanticUserError,
)


def model_from_schema(schema: Mapping[str, Any]) -> type[pydantic.BaseModel]:
    """A model with exactly this JSON schema.

    Raises: SignatureError when the schema uses something that cannot be rebuilt exactly.
    """
    title = str(schema.get("title", "a model"))
    try:
        builder = _Builder(schema)
        made = builder.root()
        again = made.model_json_schema()
    except _UNBUILDABLE as error:
        raise SignatureError(f"The model {title!r} cannot be rebuilt from its schema: {error}.") from error
    if again != schema:
        raise SignatureError(f"The model {title!r} cannot be rebuilt exactly from its schema; pass it in custom_types.")
    return made


class _Builder:
    """Builds the classes of one schema; `$defs` become classes once each."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema
        self.definitions: Mapping[str, Any] = schema.get("$defs", {})
        self.built: dict[str, Any] = {}
        self.open: set[str] = set()
        self.is_recursive = False

    def root(self) -> type[pydantic.BaseModel]:
        refers = "$ref" in self.schema
        made: type[pydantic.BaseModel] = self.reference(self.schema["$ref"]) if refers else self.model(self.schema)
        models = [kind for kind in (*self.built.values(), made) if not issubclass(kind, enum.Enum)]
        for model in models if self.is_recursive else ():
            model.model_rebuild(force=True, _types_namespace=self.built)
        return made

    def model(self, schema: Mapping[str, Any]) -> type[pydantic.BaseModel]:
        required = set(schema.get("required", ()))
        members = {name: self.member(name, part, name in required) for name, part in schema["properties"].items()}
        extra = schema.get("additionalProperties")
        config = pydantic.ConfigDict(extra="forbid" if extra is False else "allow") if extra is not None else None
        create: Any = pydantic.create_model
        made: type[pydantic.BaseModel] = create(
            schema["title"], __config__=config, __doc__=schema.get("description"), **members
        )
        return made

    def member(self, name: str, schema: Mapping[str, Any], is_required: bool) -> tuple[Any, Any]:
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
            raise ValueError(f"the member {name!r} has no Python name")
        options = _options(schema)
        if "description" in schema:
            options["description"] = schema["description"]
        if schema.get("title", _title(name)) != _title(name):
            options["title"] = schema["title"]
        default = ... if is_required else schema.get("default")
        if not is_required and "default" not in schema:
            return self.type(schema), pydantic.Field(default_factory=lambda: None, **options)
        return self.type(schema), pydantic.Field(default, **options)

    def type(self, schema: Any) -> Any:
        if schema is True or not schema.keys() - {"title", "description", "default"}:
            return Any
        if "$ref" in schema:
            return self.reference(schema["$ref"])
        if "anyOf" in schema:
            return Union[tuple(self.constrained(part) for part in schema["anyOf"])]  # noqa: UP007 - built from a list
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
        if "items" not in schema:
            return set if schema.get("uniqueItems") else list
        inner = self.constrained(schema["items"])
        return _generic(set if schema.get("uniqueItems") else list, inner)

    def constrained(self, schema: Any) -> Any:
        """The type of a nested schema, with its constraints as metadata."""
        made = self.type(schema)
        options = {} if schema is True else _options(schema)
        if not options or "prefixItems" in schema:
            return made
        annotated: Any = pydantic.Field(**options)
        return Annotated[made, annotated]

    def reference(self, path: str) -> Any:
        name = path.removeprefix("#/$defs/")
        if name in self.open:
            self.is_recursive = True  # completed by `root`, when every class has its name
            return ForwardRef(name)
        if name not in self.built:
            self.open.add(name)
            schema = self.definitions[name]
            self.built[name] = _enum(schema) if "enum" in schema else self.model(schema)
            self.open.discard(name)
        return self.built[name]


def _options(schema: Mapping[str, Any]) -> dict[str, Any]:
    if "prefixItems" in schema:
        return {}  # a tuple's own minItems and maxItems follow from its type
    return {option: schema[key] for key, option in _CONSTRAINTS.items() if key in schema}


def _enum(schema: Mapping[str, Any]) -> Any:
    make: Any = enum.Enum
    made = make(schema["title"], {f"member_{at}": value for at, value in enumerate(schema["enum"])})
    made.__doc__ = schema.get("description")  # member names are not in a schema; values are what prompts show
    return made


def _generic(base: Any, arguments: Any) -> Any:
    return base[arguments]


def _title(name: str) -> str:
    return name.title().replace("_", " ").strip()
