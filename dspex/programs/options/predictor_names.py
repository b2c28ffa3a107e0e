"""Name the predictors in DSPy's own modules, as `named_predictors()` gives them, and check LMs by these names. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ... import defaults
from ...errors import SettingsError, UnknownName

if TYPE_CHECKING:
    from ...lm.record import LM

PREDICTORS: Mapping[str, tuple[str, ...]] = {
    "dspy.Predict": ("self",),
    "dspy.ChainOfThought": ("predict",),
    "dspy.ReAct": ("react", "extract.predict"),
    "dspy.ReActV2": ("react",),
    "dspy.MultiChainComparison": ("predict",),
}
ONLY_PREDICTORS = {module: names[0] for module, names in PREDICTORS.items() if len(names) == 1}
WITHIN = "module"  # what asks another module has it under this name


def predictor_lms(given: Any) -> dict[str, LM | str]:
    """Return LMs by predictor.

    Raises:
        SettingsError: it is no mapping from predictors' names to LMs.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise SettingsError(
            f"lms is {given!r}; it is a mapping from predictors' names to language models, such as "
            f"{{'generate_query.predict': 'openai/gpt-4o-mini'}}.",
            key="lms",
        )
    return {name: _lm_of(name, lm) for name, lm in given.items()}


def require_predictors(module: str, lms: Mapping[str, Any]) -> None:
    """Check that DSPy's own module has these predictors; a user's module is asked in its worker.

    Raises:
        UnknownName: it has no such predictor.
    """
    known = PREDICTORS.get(module, ())
    for name in lms if known else ():
        if name not in known:
            raise UnknownName("predictor", name, known, where=module)


def within(lms: Mapping[str, Any]) -> dict[str, Any]:
    """Return LMs by the predictors' names in a module that asks theirs."""
    return {WITHIN if name == "self" else f"{WITHIN}.{name}": lm for name, lm in lms.items()}


def without(lms: Mapping[str, Any]) -> dict[str, Any]:
    """Return LMs by the names in the module that is asked, however they were given."""
    return {"self" if name == WITHIN else name.removeprefix(f"{WITHIN}."): lm for name, lm in lms.items()}


def _lm_of(name: str, lm: Any) -> LM | str:
    if lm is None:
        raise SettingsError(f"lms[{name!r}] is None; leave a predictor out that asks the program's own LM.", key="lms")
    return defaults.as_lm_or_name(lm)
