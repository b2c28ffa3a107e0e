"""Send an optimizer's options to a worker: plain data as it is, models, programs and code by what names them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex_worker.user_calls import name_of

from ... import defaults
from ...adapters.plain_data import is_json
from ...errors import InvalidInput, SettingsError, UnknownName
from ...services.code import import_path_of
from ..calling.program import Program
from ..factories.given_program import given_program
from ..factories.loading import load
from .optimizer_options import require_optimizer

if TYPE_CHECKING:
    from ...lm.record import LM
    from ...services.services import Services

_CODE = frozenset({"component_selector", "instruction_proposer", "code_proposer"})
_PLACES: Mapping[str, tuple[str, ...]] = {  # what code is called with by position; by name where DSPy does so
    "component_selector": ("state", "trajectories", "subsample_scores", "candidate_idx", "candidate"),
}
_NAMED: Mapping[str, tuple[str, ...]] = {
    "instruction_proposer": ("candidate", "reflective_dataset", "components_to_update"),
}
_TEACHING = ("lm", "adapter")


@dataclass(slots=True)
class SentOptimizerOptions:
    """The options in a worker's form, and what goes beside them; complete once `of` has returned."""

    student: Program[Any]
    services: Services
    wire: dict[str, Any] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)  # by the names under which the options hold them
    programs: list[Program[Any]] = field(default_factory=list)  # whose tools and types are the job's too
    named: dict[str, Any] = field(default_factory=dict)  # what is in a journal of the options that no file holds

    @classmethod
    def of(cls, options: Mapping[str, Any], student: Program[Any], services: Services) -> SentOptimizerOptions:
        """Return the options as they are sent.

        Raises:
            InvalidInput, SettingsError, UnknownName: one cannot be.
        """
        made = cls(student, services)
        made.wire = made._all(options)
        return made

    def _all(self, options: Mapping[str, Any], path: str = "") -> dict[str, Any]:
        return {name: self._value(name, f"{path}{name}", value) for name, value in options.items()}

    def _value(self, name: str, path: str, value: Any) -> Any:
        if value is None:
            return None
        if name == "teacher":
            return self._teacher(path, value)
        if name == "teacher_settings":
            return self._settings(path, value)
        if name == "optimizers":
            return self._steps(value)
        if name == "gepa_kwargs" and isinstance(value, Mapping):
            return {key: self._held(f"{path}.{key}", each) for key, each in value.items()}
        if name in _CODE:
            return self._code(name, path, value)
        if isinstance(value, os.PathLike) or (name == "log_dir" and isinstance(value, str) and value.strip()):
            return str(Path(value).expanduser().absolute())
        if isinstance(value, tuple | range):
            value = list(value)
        if not is_json(value):
            raise InvalidInput(f"{path} must be plain data, not {type(value).__name__}.", field=name)
        return value

    def _code(self, name: str, path: str, value: Any) -> Any:
        """Return code: by its import path, or by value; a text without a colon names what DSPy has built in."""
        if isinstance(value, str):
            return self._noted(path, {"dspex.import": value}, value) if ":" in value else value
        if not callable(value):
            raise InvalidInput(
                f"{path} is called by the optimizer, and a {type(value).__name__} cannot be: give a function, or its "
                f"import path 'module:name'.",
                field=name,
            )
        if not isinstance(value, type):
            _require_callable(name, path, value)
        return self._held(path, value)

    def _held(self, path: str, value: Any) -> Any:
        if value is None or is_json(value):
            return value
        where = import_path_of(value)
        if where is not None:
            return self._noted(path, {"dspex.import": where}, where)
        self.objects[path] = value
        return self._noted(path, {"dspex.object": path}, name_of(value))

    def _teacher(self, path: str, value: Any) -> dict[str, Any]:
        program = self._program(path, value)
        lm = None if program.lm is None else self._lm(program.lm)
        self.programs.append(program)
        spec = {**program.to_wire(), **program.wire_lms(self.services)}
        record = None if lm is None else self.services.lm_record(lm)
        return self._noted(path, {"dspex.program": {"spec": spec, "lm": record}}, program.name_shown)

    def _program(self, path: str, value: Any) -> Program[Any]:
        if isinstance(value, os.PathLike) or (isinstance(value, str) and value.endswith(".json")):
            return load(value, tools=[*self.student.tools] or None).program
        found = given_program(value, self.student.supervisor)
        if found is None:
            raise InvalidInput(
                f"{path} is a {type(value).__name__}; a teacher is a program, a signature, or a saved program's path.",
                field="teacher",
            )
        return found

    def _settings(self, path: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise InvalidInput(f"{path} is a {type(value).__name__}; it is a dict of lm and adapter.", field=path)
        for key in value:
            if key not in _TEACHING:
                raise UnknownName("setting", str(key), _TEACHING, where=path)
        made: dict[str, Any] = {}
        if (lm := value.get("lm")) is not None:
            found = self._lm(lm)
            made["lm"] = self._noted(f"{path}.lm", {"dspex.lm": self.services.lm_record(found)}, found.model)
        if (adapter := value.get("adapter")) is not None:
            if not isinstance(adapter, str):
                raise InvalidInput(f"{path} takes an adapter of DSPy's by its name, not {adapter!r}.", field=path)
            made["adapter"] = adapter
        return made

    def _steps(self, value: Any) -> dict[str, Any]:
        """Return BetterTogether's optimizers, each as a dict of its name and its options."""
        if not isinstance(value, Mapping) or not value:
            raise InvalidInput(
                "optimizers is a dict of names to optimizers, as {'p': 'bootstrap'}.", field="optimizers"
            )
        made: dict[str, Any] = {}
        for key, given in value.items():
            step = {"optimizer": given} if isinstance(given, str) else given
            if not isinstance(step, Mapping) or "optimizer" not in step:
                raise InvalidInput(
                    f"optimizers[{key!r}] is {given!r}; it is an optimizer's name, or {{'optimizer': name, ...}}.",
                    field="optimizers",
                )
            own = {name: each for name, each in step.items() if name != "optimizer"}
            require_optimizer(step["optimizer"], own)
            made[str(key)] = {"optimizer": step["optimizer"], **self._all(own, f"optimizers.{key}.")}
        return made

    def _lm(self, given: Any) -> LM:
        return defaults.as_lm(given, self.student.supervisor)

    def _noted(self, path: str, sent: dict[str, Any], named: str) -> dict[str, Any]:
        self.named[path] = named
        return sent


def _require_callable(name: str, path: str, value: Callable[..., Any]) -> None:
    """Check that code can be called as DSPy calls it.

    Raises:
        SettingsError: it cannot, or would have to be awaited.
    """
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise SettingsError(f"{path} is asynchronous; DSPy calls it and does not await it.", key=name)
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # a builtin's cannot be known
        return
    by_position, by_name = _PLACES.get(name, ()), _NAMED.get(name, ())
    if not by_position and not by_name:
        return
    try:
        signature.bind(*by_position, **dict.fromkeys(by_name))
    except TypeError as error:
        told = ", ".join((*by_position, *by_name))
        raise SettingsError(f"{path} ({name_of(value)}) cannot be called with ({told}): {error}.", key=name) from error
