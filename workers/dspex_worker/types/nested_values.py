"""Write what a module returns as plain data that says which containers it was made of, and read it again. Pure.

None, bool, int, float, str and bytes stand for themselves. A container is a map with one entry, its kind:
{"list": [...]}, {"tuple": [...]}, {"set": [...]}, {"frozenset": [...]}, {"dict": [[key, value], ...]},
{"prediction": {name: value}}.
Whatever else a value holds is written by the caller's `leaf`: {"data": plain}, which comes back as plain data, or
{"exact": form}, which the reader's `exact` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

DEPTH_MOST: Final = 100
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})
_SEQUENCES: Final[dict[type, str]] = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset"}
_MAKERS: Final[dict[str, Callable[[list[Any]], Any]]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}


class UnreadableValue(ValueError):
    """What is read is none of the forms above."""


def write(value: Any, leaf: Callable[[Any], Any], depth: int = 0) -> Any:
    """Return the form of a value; `leaf` writes what is neither plain nor a container.

    Raises:
        ValueError: it is nested too deeply, or within itself.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value if _fits(value) else leaf(value)
    if depth > DEPTH_MOST:
        raise ValueError(f"it is nested over {DEPTH_MOST} levels deep")
    if kind in _SEQUENCES:
        return {_SEQUENCES[kind]: [write(item, leaf, depth + 1) for item in value]}
    if kind is dict:
        return {"dict": [[write(key, leaf, depth + 1), write(item, leaf, depth + 1)] for key, item in value.items()]}
    if hasattr(value, "toDict"):  # a dspy.Prediction or a dspy.Example
        return {"prediction": {str(name): write(item, leaf, depth + 1) for name, item in value.items()}}
    return leaf(value)


def _fits(value: Any) -> bool:
    """Whether a message can hold it: half a surrogate pair and an integer over 64 bits cannot be sent."""
    if type(value) is int:
        return bool(-(2**63) <= value < 2**64)
    if type(value) is not str:
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def read(form: Any, prediction: Callable[[dict[str, Any]], Any], exact: Callable[[Any], Any], depth: int = 0) -> Any:
    """Return the value of a form; `prediction` makes one of its outputs, `exact` a value of its exact form.

    Raises:
        UnreadableValue: it is no form, or is nested too deeply.
    """
    if type(form) in _PLAIN:
        return form
    if not isinstance(form, Mapping) or len(form) != 1 or depth > DEPTH_MOST:
        raise UnreadableValue(f"a {type(form).__name__} is no form of a value")
    ((kind, inside),) = form.items()
    try:
        if kind in _MAKERS:
            return _MAKERS[kind]([read(item, prediction, exact, depth + 1) for item in inside])
        if kind == "dict":
            return {
                read(key, prediction, exact, depth + 1): read(item, prediction, exact, depth + 1)
                for key, item in inside
            }
        if kind == "prediction":
            return prediction({str(name): read(item, prediction, exact, depth + 1) for name, item in inside.items()})
    except UnreadableValue:
        raise
    except (TypeError, AttributeError, ValueError) as error:  # it is of another shape inside, or no key can be made
        raise UnreadableValue(f"a {kind} cannot be made of a {type(inside).__name__}") from error
    if kind == "data":
        return inside
    if kind == "exact":
        return exact(inside)
    raise UnreadableValue(f"{kind!r} is no kind of value")
