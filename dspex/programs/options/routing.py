"""Decide where a program runs, natively or in which pool, and why; before a byte is sent (I1).

Pure decisions over a program's description; it opens nothing and calls nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Literal

from ...errors import SettingsError
from ...lm.installed_dspy import dspy_version, unlike_here

Implementation = Literal["auto", "native", "python"]

GENERAL_POOL = "dspy"
OPTIMIZER_POOL = "mipro"
NATIVE_MODULES = frozenset({"dspy.Predict", "dspy.ChainOfThought"})
TESTED_DSPY = ((3, 4, 1), (3, 5))  # what the native side was compared with: from, below


class Reason(StrEnum):
    """The reason for a route; the value is its sentence."""

    NATIVE = "everything it uses is in the native table"
    ASKED_FOR = "implementation= asked for it"
    MODULE = "this module has no native form"
    TOOLS = "it uses tools, which agents in workers call"
    ADAPTER = "an adapter of your own runs in workers only"
    SIGNATURE = "the signature uses something that only DSPy formats"
    LANGUAGE_MODEL = "this language model can only be called from a worker"
    VERSIONS = "the installed versions are not those that the native side was compared with"
    PREFIX = "DSPy renders this program's prompt differently"
    FEEDBACK = "DSPy's Refine has a model read DSPy's own source code, which only workers hold"
    REWARD = "its reward function is one that workers hold"
    RETRIEVER = "its retriever runs in workers only"
    OPTIMIZER = "optimizers run in their own pool"
    STATE = "the saved state has no native form"


@dataclass(frozen=True, slots=True)
class Decision:
    """A route: `implementation` is "native" or "python"; `pool` is None for native; `detail` says more."""

    implementation: Literal["native", "python"]
    pool: str | None
    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        place = "native" if self.pool is None else f"python, pool {self.pool!r}"
        return f"{place}: {self.reason.value}{f' ({self.detail})' if self.detail else ''}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """The facts that a decision depends on."""

    module: str
    unsupported: str | None  # why the signature and adapter have no native form, from `CompiledSignature.unsupported`
    own_adapter: str | None  # the name of an adapter of the user's own
    has_tools: bool
    lm_obstacle: str | None  # why only workers can ask the language model
    prefix_differs: bool = False
    state_problem: str | None = None
    obstacle: tuple[Reason, str] | None = None  # what else makes the native route impossible
    preference: tuple[Reason, str] | None = None  # why "auto" takes a worker although "native" is a choice
    worker_python: str | None = None  # the general pool's interpreter, where it is not this one


def decide(candidate: Candidate, implementation: str = "auto") -> Decision:
    """Return the route.

    Raises:
        SettingsError: `implementation` is unknown, or "native" was asked for and is impossible.
    """
    if implementation not in ("auto", "native", "python"):
        raise SettingsError(
            f"implementation is {implementation!r}; it is one of 'auto', 'native', 'python'.", key="implementation"
        )
    if implementation == "python":
        return Decision("python", GENERAL_POOL, Reason.ASKED_FOR)
    obstacle = _obstacle(candidate)
    if obstacle is None and implementation == "native":
        return Decision("native", None, Reason.ASKED_FOR)
    if obstacle is None and candidate.preference is not None:
        return Decision("python", GENERAL_POOL, *candidate.preference)
    if obstacle is None:
        return Decision("native", None, Reason.NATIVE)
    if implementation == "native":
        raise SettingsError(
            f"implementation='native' is not possible for {candidate.module}: {obstacle.reason.value}"
            f"{f' ({obstacle.detail})' if obstacle.detail else ''}. Use 'auto' or 'python'.",
            key="implementation",
        )
    return obstacle


def _obstacle(candidate: Candidate) -> Decision | None:
    def python(reason: Reason, detail: str = "") -> Decision:
        return Decision("python", GENERAL_POOL, reason, detail)

    if candidate.obstacle is not None:
        return python(*candidate.obstacle)
    if candidate.module not in NATIVE_MODULES:
        return python(Reason.TOOLS if candidate.has_tools else Reason.MODULE, candidate.module)
    if candidate.own_adapter is not None:
        return python(Reason.ADAPTER, candidate.own_adapter)
    if candidate.unsupported:
        return python(Reason.SIGNATURE, candidate.unsupported)
    if candidate.lm_obstacle is not None:
        return python(Reason.LANGUAGE_MODEL, candidate.lm_obstacle)
    if candidate.state_problem:
        return python(Reason.STATE, candidate.state_problem)
    if candidate.prefix_differs:
        return python(Reason.PREFIX)
    versions = version_problem() or (unlike_here(candidate.worker_python) if candidate.worker_python else "")
    return python(Reason.VERSIONS, versions) if versions else None


@cache
def version_problem() -> str:
    """Return what is wrong with the installed DSPy, if the native side was not compared with it; "" if all is well.

    dspy is not imported. Where dspy is not installed there is nothing to differ from.
    """
    installed = dspy_version()
    if installed is None:
        return ""
    numbers = tuple(int(part) for part in installed.split(".")[:3] if part.isdigit())
    first, below = TESTED_DSPY
    return "" if first <= numbers < below else f"dspy {installed}"
