"""Make programs of what a user wrote: classes derived from dspy.Module, factories, live modules, plain functions.

The constructor and the methods are the user's and stay as they are; what they raise is raised.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import dspy
from dspy.utils import exceptions as dspy_errors

from ...failure import Failure
from ..dspy_errors import invalid_input, is_lm_missing, unknown_name

_NO_OPTIONS = frozenset({"self", "callbacks"})


class FunctionModule(dspy.Module):  # type: ignore[misc]
    """A plain function as a program: what it is given, it gets; what it returns is the result."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *arguments: Any, **inputs: Any) -> Any:
        return self.function(*arguments, **inputs)


@contextmanager
def noting(when: str) -> Generator[None]:
    """Have the errors of the user's code that leave the block say when they came."""
    try:
        yield
    except Failure:
        raise
    except Exception as error:  # the user's code may raise anything
        error.add_note(when)
        raise


def program_from(
    found: Any, name: str, parts: Mapping[str, Any], init: Mapping[str, Any], *, is_function: bool = False
) -> dspy.Module:
    """Return the program that `found` is, or makes of its arguments `init`, and of `parts`, where it takes them.

    `parts` are the signature and the host's tools. A function makes the program if it says so (by what it returns), if
    arguments came for it, or if it needs none; otherwise it is the program. With `is_function` it always is.

    Raises:
        Failure: InvalidInput, when it is nothing that can be called; UnknownName for an argument that it does not take.
    """
    is_class = isinstance(found, type)
    if is_class and not (issubclass(found, dspy.Module) and not is_function):
        wanted = "a function" if is_function else "a class derived from dspy.Module"
        what_to_do = ""
        if issubclass(found, dspy.Signature):
            what_to_do = f" It is a signature: dspex.predictor('predict', {name!r}) asks for it."
        raise invalid_input(f"{name} is not {wanted}.{what_to_do}")
    if isinstance(found, dspy.Module):
        _require_nothing(name, "a module that is made already", parts, init)
        return found
    if not callable(found):
        raise invalid_input(f"{name} is a {type(found).__name__}, not a dspy.Module, a class of one, or a function.")
    if is_class:
        return constructed(found, name, parts, init)
    if is_function or not _is_factory(found, parts, init):
        _require_nothing(name, "a function that runs itself", parts, init)
        return FunctionModule(found)
    made = constructed(found, name, parts, init)
    if not isinstance(made, dspy.Module):
        raise invalid_input(
            f"{name} returned a {type(made).__name__}, where a factory returns a dspy.Module. If the function itself "
            f"is what is to run, make it a program with dspex.function(...)."
        )
    return made


def constructed(make: Callable[..., Any], name: str, parts: Mapping[str, Any], init: Mapping[str, Any]) -> Any:
    """Return what a class or factory makes of its arguments.

    Raises:
        Failure: UnknownName for an argument that it does not take, InvalidInput for one that it lacks.
    """
    signature = signature_of(make)
    if signature is None:
        return _made(make, name, {**parts, **init})
    takes_any = any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())
    known = {key for key, one in signature.parameters.items() if one.kind is not one.VAR_KEYWORD} - _NO_OPTIONS
    given = {key: value for key, value in parts.items() if key in known or (key == "tools" and takes_any)}
    if "tools" in parts and "tools" not in given:
        raise invalid_input(f"{name} takes no tools: its constructor has no parameter of that name.")
    for key in init:
        if key not in known and not takes_any:
            raise unknown_name("option", key, known - parts.keys(), where=name)
    try:
        signature.bind(**given, **init)
    except TypeError as error:
        raise invalid_input(f"{name} cannot be made of these arguments: {error}.") from None
    return _made(make, name, {**given, **init})


def _made(make: Callable[..., Any], name: str, arguments: Mapping[str, Any]) -> Any:
    """Call a constructor; what it raises says which one, for nobody called it by name."""
    try:
        return make(**arguments)
    except (Failure, MemoryError, dspy_errors.LMError, dspy_errors.AdapterParseError):
        raise  # the host has classes for these
    except Exception as error:  # a constructor may raise anything
        if is_lm_missing(error):
            raise
        kind = type(error)
        said = f"{name} could not be made: {error}"
        raise Failure(_full_name(kind), said, type=_full_name(kind)) from error


def _full_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def method_of(program: dspy.Module, name: str) -> Callable[..., Any] | None:
    """Return a method of a module, bound; DSPy looks at the stack of whoever asks the module itself for `forward`."""
    own = vars(program).get(name)
    if own is not None:
        return own  # type: ignore[no-any-return]
    found = getattr(type(program), name, None)
    return None if found is None else types.MethodType(found, program)


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return how a class or function is called, without `self`; None where it cannot be known."""
    try:
        if not isinstance(function, type):
            return inspect.signature(function)
        whole = inspect.signature(_constructor(function))
    except (TypeError, ValueError):
        return None
    return whole.replace(parameters=list(whole.parameters.values())[1:])


def _constructor(cls: Any) -> Any:
    return cls.__init__  # DSPy's metaclass hides it from `inspect.signature`


def _is_factory(function: Callable[..., Any], parts: Mapping[str, Any], init: Mapping[str, Any]) -> bool:
    if init or "tools" in parts:
        return True
    if isinstance(function, functools.partial):
        made = function.func
        return (isinstance(made, type) and issubclass(made, dspy.Module)) or _is_factory(made, parts, init)
    if (returned := _returned_type(function)) is not None:
        return isinstance(returned, type) and issubclass(returned, dspy.Module)
    signature = signature_of(function)
    if signature is None or inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return False
    return all(one.default is not one.empty for one in signature.parameters.values())


def _returned_type(function: Callable[..., Any]) -> Any:
    """Return the type that a function says to return; None if it says nothing, or nothing that can be read here."""
    try:
        return typing.get_type_hints(function).get("return")
    except Exception:  # any code may run in an annotation
        return None


def _require_nothing(name: str, what: str, parts: Mapping[str, Any], init: Mapping[str, Any]) -> None:
    for key in (*init, *(key for key in parts if key == "tools")):
        raise invalid_input(f"{name} is {what}: it takes no {key}= for a constructor.")
