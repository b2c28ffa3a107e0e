"""Look up the names that a call may use for DSPy's modules: in a table, never by an attribute walk (RULES X1).

Many dotted paths under `dspy.` end in `os` or `subprocess`, so a name is looked up among these classes or among the
pool's `imports`, and nowhere else. What runs generated code (PythonInterpreter, LocalInterpreter, ProgramOfThought,
CodeAct, RLM), `load` and `LM` are not callable by name. Read only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dspy

from ..code.user_imports import UserImports
from ..dspy_errors import invalid_input, unknown_name


class MajorityModule(dspy.Module):  # type: ignore[misc]
    """`dspy.majority` as a module, so that a call can name it: the commonest of its module's `n` answers."""

    def __init__(self, module: dspy.Module, field: str | None = None) -> None:
        super().__init__()
        self.module = module
        self.field = field

    def forward(self, **inputs: Any) -> Any:
        return dspy.majority(self.module(**inputs), field=self.field)


MODULES: dict[str, type[dspy.Module]] = {  # pyright: ignore[reportAssignmentType] - a decorated class looks like a function
    f"dspy.{cls.__name__}": cls
    for cls in (
        dspy.Predict,
        dspy.ChainOfThought,
        dspy.ReAct,
        dspy.ReActV2,
        dspy.MultiChainComparison,
        dspy.BestOfN,
        dspy.Refine,
    )
} | {"dspy.majority": MajorityModule}
"""DSPy's modules by the names that calls use."""


def module_named(name: str, imports: UserImports) -> Any:
    """Return what `name` means: a class of `MODULES`, or the user's; for the host also a factory, a function, a module.

    Raises:
        Failure: UnknownName, for any other name; InvalidInput, when the user's object is no dspy.Module class.
    """
    if name in MODULES:
        return MODULES[name]
    if ":" not in name:
        raise unknown_name("module", name, known_modules(imports))
    found = imports.resolve(name, "module")
    if imports.is_open:
        return found
    if not (isinstance(found, type) and issubclass(found, dspy.Module)):
        raise invalid_input(f"{name!r} is not a class derived from dspy.Module.")
    if found.__module__.partition(".")[0] == "dspy":
        # The user's module may hold DSPy's classes by import; those answer to their own names only.
        raise unknown_name("module", name, known_modules(imports))
    return imports.resolve_own(name, "module")


def known_modules(imports: UserImports) -> Iterable[str]:
    """Return every name that `module_named` accepts, with `module:...` for the user's."""
    return [*MODULES, *(f"{name}:..." for name in sorted(imports.modules))]
