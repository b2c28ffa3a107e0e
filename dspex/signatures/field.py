"""One field of a signature: its name, side, type, description, constraints and default.

A `Field` is a frozen record that any thread may share. `InputField` and `OutputField` make one without a name, for
the class form of a signature. Nothing here knows type syntax (`annotations.py`) nor prompts (`adapters/`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from dspex_worker.types.type_names import CONSTRAINT_WORDS

from ..errors import SignatureError, UnknownName

Kind = Literal["input", "output"]

_OPTIONS: Final = ("desc", "description", "default", "default_factory", *CONSTRAINT_WORDS)
_WITHOUT_EFFECT: Final = ("prefix", "format", "parser")


class _Missing:
    """The type of `MISSING`: no default was given (None is a default like any other)."""

    def __repr__(self) -> str:
        return "MISSING"

    def __reduce__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """One input or output; `untyped` says that no type was written (it is then `str`)."""

    name: str
    kind: Kind
    annotation: Any = str
    untyped: bool = False
    desc: str | None = None
    constraints: Mapping[str, Any] | None = None
    default: Any = MISSING
    default_factory: Callable[[], Any] | None = None

    @property
    def has_default(self) -> bool:
        """Whether a missing value is filled without the annotation's help."""
        return self.default is not MISSING or self.default_factory is not None

    @property
    def shown_desc(self) -> str:
        """The description as prompts show it: DSPy hides its own placeholder `${name}`."""
        return "" if self.desc is None or self.desc == f"${{{self.name}}}" else self.desc

    @property
    def constraint_text(self) -> str:
        """The constraints in words, in the order in which they were given; empty without any."""
        return ", ".join(f"{CONSTRAINT_WORDS[key]}{value}" for key, value in (self.constraints or {}).items())

    def make_default(self) -> Any:
        """Return a default value; call it only when `has_default`."""
        return self.default if self.default_factory is None else self.default_factory()

    def replace(self, **changes: Any) -> Field:
        """Return a copy with these attributes changed."""
        return dataclasses.replace(self, **changes)


def InputField(**options: Any) -> Any:
    """Return an input of a class-style signature.

    Options: desc (or description), default, default_factory, and the constraints gt, ge, lt, le, min_length,
    max_length, multiple_of, allow_inf_nan, which the prompt shows and nothing enforces.

    Raises:
        UnknownName: any other option.
        SignatureError: prefix, format and parser, which have no effect in DSPy.
    """
    return _unnamed("input", options)


def OutputField(**options: Any) -> Any:
    """Return an output of a class-style signature; options and errors as for `InputField`."""
    return _unnamed("output", options)


def _unnamed(kind: Kind, options: Mapping[str, Any]) -> Field:
    for option in options:
        if option in _WITHOUT_EFFECT:
            raise SignatureError(f"{option}= has no effect in DSPy 3.4 and is not accepted; leave it out.")
        if option not in _OPTIONS:
            raise UnknownName("field option", option, _OPTIONS)
    if "default" in options and "default_factory" in options:
        raise SignatureError("A field takes default= or default_factory=, not both.")
    default = options.get("default", MISSING)
    return Field(
        name="",
        kind=kind,
        annotation=None,
        desc=options.get("desc", options.get("description")),
        constraints={key: value for key, value in options.items() if key in CONSTRAINT_WORDS} or None,
        default=MISSING if default is ... else default,
        default_factory=options.get("default_factory"),
    )
