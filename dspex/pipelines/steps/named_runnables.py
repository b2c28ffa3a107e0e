"""Find what a step runs in a worker: a program, or DSPy's module, retriever or optimizer of a name."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...errors import SettingsError, UnknownName
from ...programs.calling.program import Program
from ...programs.factories.program_factories import predictor
from ...programs.modules.module import module
from ...programs.options.program_kinds import KINDS
from ...programs.saving.optimized import Optimized
from .module_runnable import ModuleRunnable
from .optimizer_runnable import OPTIMIZERS, OptimizerRunnable
from .retriever_runnable import RETRIEVERS, RetrieverRunnable
from .runnable import Runnable

_BY_USING = ("demos", "rollout_id", "use_native_function_calling")  # call options that `dspex.module` does not take


def runnable_of(what: Any, sig: Any, options: dict[str, Any]) -> Runnable:
    """Return what a step runs in a worker, for a name, a program or an object with a `run` and an `arun`.

    Raises:
        UnknownName, SettingsError, SignatureError: it is none of these, or its options cannot be right.
    """
    if isinstance(what, str):
        return named_runnable(what, signature=sig, **options)
    if sig is not None or options:
        given = "signature" if sig is not None else next(iter(options))
        raise SettingsError(f"{given}= goes with a name; this {type(what).__name__} has its own already.", key=given)
    if isinstance(what, Optimized | Program):
        return ModuleRunnable(what.program if isinstance(what, Optimized) else what)
    if callable(getattr(what, "run", None)) and callable(getattr(what, "arun", None)) and hasattr(what, "inputs"):
        made: Runnable = what
        return made
    raise SettingsError(
        f"dspex.python takes a name such as 'dspy.ChainOfThought', or a program, not a {type(what).__name__}."
    )


def own_program(what: Any, sig: Any, options: dict[str, Any]) -> Program | None:
    """Return the program of a user's own module, class or name; None if it is none of these.

    Raises:
        SettingsError, UnknownName, EncodeError: it cannot be made.
    """
    if isinstance(what, Optimized):
        what = what.program
    if isinstance(what, Program):
        return what if what.is_open and sig is None and not options else None
    is_name = isinstance(what, str) and ":" in what
    if not is_name and not hasattr(what, "named_predictors"):  # of a dspy.Module, or its class
        return None
    how: Any = {name: options.pop(name) for name in _BY_USING if name in options}
    made = module(what, signature=sig, **options)
    return made.using(**how) if how else made


def named_runnable(name: str, *, signature: Any = None, **options: Any) -> Runnable:
    """Return what runs DSPy's `name`: a module, a retriever or an optimizer.

    Raises:
        UnknownName: no module, retriever or optimizer of that name can be called.
        SettingsError, SignatureError: its options or signature cannot be right.
    """
    if name in RETRIEVERS:
        return RetrieverRunnable(name, **options)
    if signature is None:
        _require_known(name)
        raise SettingsError(f"The step {name} needs a signature, such as 'question -> answer'.", key="signature")
    if name in OPTIMIZERS:
        return OptimizerRunnable(name, signature, **options)
    _require_known(name)
    return ModuleRunnable(predictor(name, signature, **options))


def _require_known(name: str) -> None:
    if name not in KINDS.values() and ":" not in name and name not in OPTIMIZERS:
        raise UnknownName("DSPy module", name, [*KINDS.values(), *RETRIEVERS, *OPTIMIZERS])


def as_stateful(made: Any) -> Runnable:
    """Return the same, said to keep something in the session.

    Raises:
        SettingsError: it says itself whether it does.
    """
    if dataclasses.is_dataclass(made) and not isinstance(made, type) and hasattr(made, "is_stateful"):
        changed: Runnable = dataclasses.replace(made, is_stateful=True)  # type: ignore[assignment]
        return changed
    raise SettingsError(f"A {type(made).__name__} says itself whether it is stateful.", key="stateful")


def label_of(made: Any) -> str:
    """Return what a step of it is called where nothing names it."""
    program = getattr(made, "program", None)
    return program.name_shown if program is not None else type(made).__name__
