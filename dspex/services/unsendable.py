"""Find what in an object cannot be pickled, and say what to send in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any, Final

from ..errors import EncodeError

_DEPTH_MOST: Final = 20
_LOOKED_AT_MOST: Final = 2_000  # parts, each of which is pickled for the question


def unsendable(thing: Any, label: str, error: Exception, is_sendable: Callable[[Any], bool]) -> EncodeError:
    """Return the error for a thing that could not be pickled: it leads to the part, and says what to do."""
    path, part = _culprit(thing, label, is_sendable)
    why = f"cloudpickle says {type(error).__name__}: {error}"
    return EncodeError(path, type(part).__name__, why, advice=_advice(thing, label, part))


def _culprit(thing: Any, label: str, is_sendable: Callable[[Any], bool]) -> tuple[str, Any]:
    path, part, budget = label, thing, _LOOKED_AT_MOST
    seen = {id(thing)}
    for _ in range(_DEPTH_MOST):
        for below, inner in _parts(part, path):
            budget -= 1
            if budget < 0:
                return path, part
            if id(inner) not in seen and not is_sendable(inner):
                seen.add(id(inner))
                path, part = below, inner
                break
        else:
            break
    return path, part


def _parts(thing: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, FunctionType):
        yield from _of_function(thing, path)
        return
    if isinstance(thing, Mapping):
        yield from ((f"{path}[{key!r:.40}]", value) for key, value in list(thing.items()))
    elif isinstance(thing, list | tuple | set | frozenset):
        yield from ((f"{path}[{at}]", value) for at, value in enumerate(list(thing)))
    bound = getattr(thing, "__self__", None)  # of a method
    if bound is not None and hasattr(thing, "__func__"):
        yield path, bound
    try:
        members = dict(vars(thing))
    except TypeError:  # it has none
        return
    for name, value in members.items():
        yield f"{path}.{name}", value
    if not isinstance(thing, type):
        yield type(thing).__qualname__, type(thing)


def _of_function(function: FunctionType, path: str) -> Iterator[tuple[str, Any]]:
    names = function.__code__.co_names
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f"{path}, variable {name}", cell.cell_contents
        except ValueError:  # it has no value yet
            continue
    for name in names:
        if name in function.__globals__:
            yield f"{path}, global {name}", function.__globals__[name]
    for at, value in enumerate(function.__defaults__ or ()):
        yield f"{path}, default {at}", value


def _advice(thing: Any, label: str, part: Any) -> str:
    if isinstance(thing, type):
        return "Put the class into a module that workers can import, or make that where it is used."
    if isinstance(thing, FunctionType):
        return (
            "Make it inside the function, or put the function into a module and name it: "
            "dspex.function('package.module:function')."
        )
    if hasattr(thing, "forward") or hasattr(thing, "aforward"):
        name = type(thing).__name__
        return (
            f"Give the class instead of the object, and each worker makes its own: dspex.module({name}), with the "
            f"constructor's arguments as keywords."
        )
    if part is not thing:
        return "Leave that out, or send what the worker can make it of (a path, an address)."
    return "Send what the worker can make it of (a path, an address, data)."
