"""A program that was built from its spec: how it takes its inputs, and whether calls share it. Any thread."""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import dspy

from ...types.annotation_facts import takes_text
from ..dspy_errors import invalid_input
from ..values.host_tools import names_tools, tools_in
from ..values.wire_values import to_input
from .call_arguments import placed, positions
from .module_registry import MODULES
from .program_loop import ProgramLoop
from .user_modules import FunctionModule, method_of, signature_of

_SHARED = frozenset({dspy.Predict, dspy.ChainOfThought, dspy.ReAct, dspy.MultiChainComparison})
_COPIED = frozenset(MODULES.values()) - _SHARED  # they keep things on themselves while they run
REWARDED = frozenset({dspy.BestOfN, dspy.Refine})
_TAKEN = frozenset({"signature", "new_signature", "demos", "config", "lm"})  # by dspy.Predict, out of its inputs


@dataclass(frozen=True, slots=True)
class BuiltProgram:
    """A program, and its signature's fields: the names of the inputs, the types of all.

    Without a signature it is open: its inputs are what it is called with, its outputs what it returns.
    """

    program: dspy.Module
    inputs: tuple[str, ...]
    annotations: Mapping[str, Any]
    name: str = ""
    is_open: bool = False
    is_isolated: bool = False
    taken: inspect.Signature | None = None  # how a user's is called; None where that is its own affair
    loop: ProgramLoop = field(default_factory=ProgramLoop, compare=False)  # of its awaited calls

    @property
    def swallows_errors(self) -> bool:
        """Whether it returns None, without an error, when all of its attempts failed."""
        return type(self.program) in REWARDED

    @property
    def takes_config(self) -> bool:
        """Whether its call accepts `config=`, as Predict does; other programs get such options through their LM."""
        return type(self.program) in _SHARED

    @property
    def is_own(self) -> bool:
        """Whether it is the user's: no module of DSPy's."""
        return type(self.program) not in MODULES.values() and not type(self.program).__module__.startswith("dspy.")

    # -- its inputs --

    def arguments(
        self, inputs: Mapping[str, Any], tool_set: str | None = None, objects: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the inputs as its call takes them; tools among them are called in the parent, under the set's id.

        `objects` are inputs that came as what they are.

        Raises:
            Failure: InvalidInput.
        """
        whole = {**inputs, **(objects or {})}
        if self.is_own:
            self._require_taken(whole)
        for name in _TAKEN.intersection(whole) if not self.is_own else ():
            raise invalid_input(
                f"DSPy's modules take the word {name!r} for themselves, so no input of that name can be given to them.",
                name,
            )
        made = {name: given(name, value, self.annotations.get(name, Any), tool_set) for name, value in inputs.items()}
        return {name: made[name] if name in made else whole[name] for name in whole}

    def _require_taken(self, inputs: Mapping[str, Any]) -> None:
        """Check that its method takes these inputs, before it runs and asks anybody."""
        taken = self.taken
        if taken is None:
            return
        names = list(taken.parameters)
        if not any(one.kind is one.VAR_KEYWORD for one in taken.parameters.values()):
            for name in inputs.keys() - taken.parameters.keys():
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(names) or 'nothing'}."
                raise invalid_input(f"{self.name} takes no input {name!r}; {hint}", name)
        try:
            arguments, named = placed(taken, inputs)
            taken.bind(*arguments, **named)
        except TypeError as error:
            raise invalid_input(f"{self.name} takes {', '.join(names)}: {error}.") from None

    def describe(self) -> dict[str, Any]:
        """Return its inputs' names, which must be given, which are text, how they may be given, and its predictors."""
        taken, names, required, takes_any = self.taken, list(self.inputs), list(self.inputs), True
        texts = [name for name in names if takes_text(self.annotations.get(name, Any))]
        if self.is_open and taken is not None:
            parameters = [one for one in taken.parameters.values() if one.kind is not one.VAR_POSITIONAL]
            takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
            named = [one for one in parameters if one.kind is not one.VAR_KEYWORD]
            names, required = [one.name for one in named], [one.name for one in named if one.default is one.empty]
            texts = [one.name for one in named if takes_text(one.annotation)]
        if takes_any and not names:
            fields = _fields_of(self.program)
            names = required = list(fields)
            texts = [name for name, field in fields.items() if takes_text(field.annotation)]
        predictors = [name for name, _ in self.program.named_predictors()]
        found = {"inputs": names, "required": required, "texts": texts, "predictors": predictors}
        by_position, rest = positions(taken) if self.is_own and taken is not None else (names, None)
        return {**found, "takes_any": takes_any, "positional": by_position, "rest": rest}

    # -- beside other calls --

    def separate(self) -> BuiltProgram:
        """Return the same, or a copy: of a user's that is isolated, and of DSPy's that keep things on themselves."""
        if self.is_isolated:
            return replace(self, program=self.program.deepcopy(), loop=ProgramLoop())
        if type(self.program) in _COPIED:
            return replace(self, program=copy.copy(self.program))
        return self


def taken_by(program: Any) -> inspect.Signature | None:
    """Return how a module is called; None where that is its own affair."""
    if isinstance(program, FunctionModule):
        return signature_of(program.function)
    if type(program).__call__ is not dspy.Module.__call__:
        return signature_of(program.__call__)
    method = method_of(program, "forward") or method_of(program, "aforward")
    return None if method is None else signature_of(method)


def given(name: str, value: Any, annotation: Any, tool_set: str | None = None) -> Any:
    """Return the Python value for a field; tools in it can be called only under a tool set's id.

    Raises:
        Failure: InvalidInput.
    """
    return to_input(name, tools_in(value, tool_set) if names_tools(annotation) else value, annotation)


def _fields_of(program: Any) -> Mapping[str, Any]:
    """Return the inputs of the one signature that a module has, as DSPy's own have: they take any keyword."""
    signature = getattr(program, "signature", None)
    if signature is None and len(predictors := program.predictors()) == 1:
        signature = predictors[0].signature
    fields: Mapping[str, Any] = getattr(signature, "input_fields", {})
    return fields
