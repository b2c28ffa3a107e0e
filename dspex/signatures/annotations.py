"""Read and write types as text on the host: `dspex_worker.types` with stand-ins for DSPy's own types."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from inspect import isclass
from typing import Any

from dspex_worker.types import annotation_reader, annotation_writer
from dspex_worker.types.annotation_facts import allows_none, classes_in, without_metadata
from dspex_worker.types.annotation_reader import Unreadable, Vocabulary
from dspex_worker.types.annotation_writer import Unwritable

from ..errors import SignatureError, UnknownName

__all__ = [
    "allows_none",
    "annotation_text",
    "classes_in",
    "is_dspy_type",
    "read_annotation",
    "read_canonical",
    "without_metadata",
]


def read_annotation(text: str, custom_types: Mapping[str, Any] | None = None) -> Any:
    """Return the type that a user's text names, e.g. `list[Literal['a', 'b']] | None`.

    Raises:
        SignatureError: it is no type; the error has the offset in `text`, and the near names of one that is not known.
    """
    return _read(text, custom_types) if custom_types else _read_known(text)


def read_canonical(text: str, custom_types: Mapping[str, Any]) -> Any:
    """Return the type whose text `annotation_text` made.

    Raises:
        SignatureError: it is no such text.
    """
    vocabulary = _vocabulary(custom_types)
    try:
        return annotation_reader.read_canonical(text, vocabulary)
    except Unreadable as error:
        raise _refusal(text, error, vocabulary) from None


def annotation_text(annotation: Any) -> str:
    """Return the canonical source text of a type, from which workers read the same one.

    Raises:
        SignatureError: text cannot name the type (a callable's signature, a type variable).
    """
    try:
        return annotation_writer.annotation_text(annotation, _name_of)
    except Unwritable as error:
        raise SignatureError(str(error)) from None


def is_dspy_type(annotation: Any) -> bool:
    """Whether this class stands for one of DSPy's own types (`dspex.types.content`)."""
    loaded = sys.modules.get("dspex.types.custom_type")  # never import pydantic only to say no
    return loaded is not None and isclass(annotation) and hasattr(annotation, "dspy_name")


@functools.lru_cache(maxsize=4096)
def _read_known(text: str) -> Any:
    return _read(text, {})


def _read(text: str, custom_types: Mapping[str, Any]) -> Any:
    vocabulary = _vocabulary(custom_types)
    try:
        return annotation_reader.read_annotation(text, vocabulary)
    except Unreadable as error:
        raise _refusal(text, error, vocabulary) from None


def _vocabulary(custom_types: Mapping[str, Any]) -> Vocabulary:
    return Vocabulary(_dspy_type, _code_of, custom_types)


def _refusal(text: str, error: Unreadable, vocabulary: Vocabulary) -> SignatureError:
    message = f"{error}."
    if error.name is not None:
        hint = UnknownName("type", error.name, vocabulary.known())
        message = f"{hint} Names of your own are given by custom_types={{...}}."
    return SignatureError(message, text=text, position=error.position)


def _dspy_type(name: str) -> Any:
    from ..types import content

    return content.by_name(name)


def _code_of(language: str) -> Any:
    from ..types import content

    return content.code_of(language)


def _name_of(kind: type) -> str:
    return str(getattr(kind, "dspy_name")) if is_dspy_type(kind) else kind.__name__  # noqa: B009 - pydantic brings it
