"""Name the kinds of programs, and the options that each takes beside how it is called. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import InvalidInput, SettingsError, UnknownName
from ...lm.lm_options import GENERATION_OPTIONS, GenerationOptions
from ...lm.record_checks import require_kinds
from . import program_options
from .program_options import ProgramOptions

KINDS: Mapping[str, str] = {
    "predict": "dspy.Predict",
    "chain_of_thought": "dspy.ChainOfThought",
    "react": "dspy.ReAct",
    "react_v2": "dspy.ReActV2",
    "multi_chain_comparison": "dspy.MultiChainComparison",
    "best_of_n": "dspy.BestOfN",
    "refine": "dspy.Refine",
    "majority": "dspy.majority",
    "assertions": "dspex.Assertions",
    "rag": "dspex.RAG",
}
_GENERATION = GENERATION_OPTIONS | {"n"}  # DSPy's Predict keeps any other keyword as an option of its LM calls
_OWN_OPTIONS: Mapping[str, frozenset[str]] = {
    "dspy.Predict": _GENERATION,
    "dspy.ChainOfThought": _GENERATION,
    "dspy.ReAct": frozenset({"max_iters"}),
    "dspy.ReActV2": frozenset({"max_iters"}),
    "dspy.MultiChainComparison": _GENERATION | {"M"},
    "dspy.BestOfN": frozenset({"reward_fn", "N", "threshold", "fail_count"}),
    "dspy.Refine": frozenset({"reward_fn", "N", "threshold", "fail_count"}),
    "dspy.majority": frozenset({"n", "field", "normalize"}),
    "dspex.Assertions": frozenset({"checks", "attempts", "on_failure"}),
    "dspex.RAG": frozenset({"retriever", "k", "query", "context", "url", "port", "post_requests"}),
}
_STRATEGIES = frozenset({"dspy.BestOfN", "dspy.Refine", "dspy.majority", "dspex.Assertions", "dspex.RAG"})
_TEXTS = ("field", "query", "context", "url")
_COUNTS = ("N", "n", "M", "k", "attempts", "fail_count", "max_iters")


class MadeOptions(ProgramOptions, total=False):
    """How a program is called, and what it may do from the start.

    `allow_markers=True` lets inputs hold DSPy's markers of custom types, which become content blocks of the prompt.
    """

    allow_markers: bool


class StrategyOptions(MadeOptions, total=False):
    """How a program that asks another is called, and which module it asks when it is given a signature."""

    module: str | Mapping[str, Any]
    tools: Sequence[Callable[..., Any]]


class ModuleOptions(MadeOptions, GenerationOptions, total=False):
    """How a module of DSPy's is called, and the LM options that it keeps for its requests."""

    n: int | None


def module_of(kind: Any) -> str:
    """Return the module of a kind, of DSPy's name for it, or of a user's `package.module:Class`.

    Raises:
        UnknownName: it is none of these.
    """
    module = KINDS.get(kind, kind) if isinstance(kind, str) else str(kind)
    if module not in KINDS.values() and ":" not in module:
        raise UnknownName("predictor", module, [*KINDS, *KINDS.values()])
    return module


def require_options(module: str, options: Mapping[str, Any]) -> None:
    """Check the options of a built-in kind by name and count; a user's own module takes what it likes.

    Raises:
        UnknownName: the kind has no such option.
        SettingsError, InvalidInput: a value that cannot be.
    """
    own = _OWN_OPTIONS.get(module)
    if own is None:
        return
    known = own | {"tools", "allow_markers"} | ({"module"} if module in _STRATEGIES else set())
    for name, value in options.items():
        if name not in known:
            raise UnknownName("option", name, known | program_options.NAMES, where=module)
        if value is not None:
            _require_kind(name, value)
    require_kinds(options)


def _require_kind(name: str, value: Any) -> None:
    if name in _COUNTS:
        program_options.require_whole(name, value)
    elif name in _TEXTS and not isinstance(value, str):
        raise InvalidInput(f"{name} is {value!r}; it is a text.", field=name)
    elif name == "threshold" and (isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value)):
        raise InvalidInput(f"threshold is {value!r}; it is a number, or None for the best of all.", field=name)
    elif name == "normalize" and not callable(value):
        raise SettingsError(f"normalize is {value!r}; it is a function of a value.", key=name)
    elif name == "checks" and not isinstance(value, Sequence):
        raise SettingsError(f"checks is {value!r}; it is a list of functions.", key=name)
    elif name == "allow_markers" and not isinstance(value, bool):
        raise SettingsError(f"allow_markers is {value!r}; it is True or False.", key=name)
