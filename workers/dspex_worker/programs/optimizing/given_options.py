"""Make an optimizer's options of what the host sent for them: language models, programs, code by name or by value.

A leaf of the options that is no plain data came as a map with one of the keys below.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import dspy

from ..adapter_choice import adapter_named
from ..code.user_imports import UserImports
from ..dspy_errors import invalid_input

LM, PROGRAM, IMPORT, OBJECT = "dspex.lm", "dspex.program", "dspex.import", "dspex.object"


@dataclass(frozen=True, slots=True)
class OptionMaker:
    """Makes options for one job."""

    imports: UserImports
    objects: Mapping[str, Any]  # that came by value
    make_lm: Callable[[Mapping[str, Any]], Any]
    make_program: Callable[[Mapping[str, Any]], dspy.Module]

    def made(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options.

        Raises:
            Failure: UnknownName, InvalidInput, for what cannot be had here.
        """
        if not self.imports.is_open and options.get("log_dir") is not None:
            raise invalid_input("log_dir is a path of the host's; clients of the control socket cannot name one.")
        return {name: self._value(name, value) for name, value in options.items()}

    def _value(self, name: str, value: Any) -> Any:
        if name == "teacher_settings" and isinstance(value, Mapping):
            return self._settings(value)
        if isinstance(value, list):
            return [self._value(name, each) for each in value]
        if not isinstance(value, Mapping):
            return value
        if len(value) == 1:
            ((kind, given),) = value.items()
            if kind == LM:
                return self.make_lm(given)
            if kind == PROGRAM:
                return self.make_program(given)
            if kind == IMPORT:
                return _instance(name, self.imports.resolve_own(str(given), name))
            if kind == OBJECT:
                return _instance(name, self.objects[str(given)])
        return {key: self._value(str(key), each) for key, each in value.items()}

    def _settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        made = {name: self._value(name, value) for name, value in given.items()}
        if isinstance(made.get("adapter"), str):
            record = (given.get("lm") or {}).get(LM)
            made["adapter"] = adapter_named(made["adapter"], made.get("lm"), record, self.make_lm, _no_own)
        return made


def records_in(value: Any) -> list[Mapping[str, Any]]:
    """Return the records of the language models in what the host sent."""
    if isinstance(value, list):
        return [record for each in value for record in records_in(each)]
    if not isinstance(value, Mapping):
        return []
    if len(value) == 1 and LM in value:
        return [value[LM]]
    return [record for each in value.values() for record in records_in(each)]


def _instance(name: str, found: Any) -> Any:
    """Return an object, made of a class if it is one.

    Raises:
        Failure: InvalidInput, when it cannot be made, or would have to be awaited.
    """
    if isinstance(found, type):
        try:
            found = found()
        except TypeError as error:
            raise invalid_input(
                f"{name} names the class {found.__name__}, which is made without arguments: {error}", name
            ) from error
    if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__):
        raise invalid_input(f"{name} is asynchronous; DSPy calls it and does not await it.", name)
    return found


def _no_own(_: Any) -> Any:
    raise invalid_input("teacher_settings takes an adapter of DSPy's by its name.", "teacher_settings")
