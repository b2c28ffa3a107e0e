"""Name the kinds of programs, and the options that each takes beside how it is called. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import InvalidInput, UnknownName
from ..lm.lm_options import GENERATION_OPTIONS, GenerationOptions
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
        InvalidInput: a count or a threshold that is none.
    """
    own = _OWN_OPTIONS.get(module)
    if own is None:
        return
    known = own | {"tools", "allow_markers"} | ({"module"} if module in _STRATEGIES else set())
    for name, value in options.items():
        if name not in known:
            raise UnknownName("option", name, known | program_options.NAMES, where=module)
        if name in _COUNTS and value is not None:
            program_options.require_whole(name, value)
    threshold = options.get("threshold")
    if threshold is not None and (not isinstance(threshold, int | float) or math.isnan(threshold)):
        raise InvalidInput(
            f"threshold is {threshold!r}; it is a number, or None for the best of all.", field="threshold"
        )
