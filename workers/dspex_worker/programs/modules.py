"""Build DSPy programs from specs: once per digest, with their state, shared by the calls that name them.

A spec is {"module", "signature", "options", "state", "demos", "tools"}. Calls get a copy of a program that keeps
things on itself while it runs. Any thread; builds happen under one lock.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dspy

from ..failure import Failure
from . import signature_classes
from .dspy_errors import invalid_input, unknown_name
from .dspy_parts import CLIENT_KEYS
from .host_tools import names_tools, tools_from, tools_in
from .metric_calls import reward_from
from .module_registry import MODULES, MajorityModule, module_class
from .module_state import load_state
from .user_imports import UserImports
from .wire_values import to_input

_OF_RECORD = frozenset({"model", "model_list", "engine", "async_engine"})  # what else an LM's record alone decides
KEPT = 256  # programs kept per worker
_SHARED = frozenset({dspy.Predict, dspy.ChainOfThought, dspy.ReAct, dspy.MultiChainComparison})
REWARDED = frozenset({dspy.BestOfN, dspy.Refine})
_ASKING = REWARDED | {MajorityModule}  # what asks another module
_GIVEN_OTHERWISE = frozenset({"self", "signature", "tools", "callbacks"})
_TAKEN = frozenset({"signature", "new_signature", "demos", "config", "lm"})  # by dspy.Predict, out of its inputs


@dataclass(frozen=True, slots=True)
class BuiltProgram:
    """A program, and its signature's fields: the names of the inputs, the types of all."""

    program: dspy.Module
    inputs: tuple[str, ...]
    annotations: Mapping[str, Any]

    @property
    def swallows_errors(self) -> bool:
        """Whether it returns None, without an error, when all of its attempts failed."""
        return type(self.program) in REWARDED

    @property
    def takes_config(self) -> bool:
        """Whether its call accepts `config=`, as Predict does; other programs get such options through their LM."""
        return type(self.program) in _SHARED

    def arguments(self, inputs: Mapping[str, Any], tool_set: str | None = None) -> dict[str, Any]:
        """Return the inputs as its call takes them; tools among them are called in the parent, under the set's id.

        Raises:
            Failure: InvalidInput.
        """
        for name in _TAKEN.intersection(inputs):
            raise invalid_input(
                f"DSPy's modules take the word {name!r} for themselves, so no input of that name can be given to them.",
                name,
            )
        return {name: given(name, value, self.annotations.get(name, Any), tool_set) for name, value in inputs.items()}

    def separate(self) -> BuiltProgram:
        """Return the same, safe to call beside others: a copy where the program keeps things on itself."""
        if type(self.program) in _SHARED:
            return self
        is_ours = type(self.program) in MODULES.values()
        own = copy.copy(self.program) if is_ours else self.program.deepcopy()
        return BuiltProgram(own, self.inputs, self.annotations)


def given(name: str, value: Any, annotation: Any, tool_set: str | None = None) -> Any:
    """Return the Python value for a field; tools in it can be called only under a tool set's id.

    Raises:
        Failure: InvalidInput.
    """
    return to_input(name, tools_in(value, tool_set) if names_tools(annotation) else value, annotation)


class Modules:
    """The programs of one worker, by their spec's digest."""

    def __init__(self, imports: UserImports) -> None:
        self._imports = imports
        self._lock = threading.Lock()
        self._built: OrderedDict[str, BuiltProgram] = OrderedDict()

    def get(self, spec: Mapping[str, Any]) -> BuiltProgram:
        """Return the program for `spec`, safe to call beside others.

        Raises:
            Failure: UnknownName, InvalidInput.
        """
        digest = digest_of(spec)
        with self._lock:
            built = self._built.get(digest)
            if built is None:
                built = self._built[digest] = self.make(spec)
                if len(self._built) > KEPT:
                    self._built.popitem(last=False)
            self._built.move_to_end(digest)
        return built.separate()

    def make(self, spec: Mapping[str, Any]) -> BuiltProgram:
        """Return a new program for `spec`, shared with nobody.

        Raises:
            Failure: UnknownName, InvalidInput.
        """
        return BuiltProgram(build(spec, self._imports), *_fields(spec, self._imports))


def digest_of(spec: Mapping[str, Any]) -> str:
    """Return the name of a spec's program."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def build(spec: Mapping[str, Any], imports: UserImports) -> dspy.Module:
    """Return a new program for `spec`.

    Raises:
        Failure: UnknownName, InvalidInput.
    """
    name = str(spec["module"])
    cls = module_class(name, imports)
    options = dict(spec.get("options") or {})
    parts: dict[str, Any] = {}
    if cls in _ASKING:
        parts["module"] = build(_inner_spec(spec, options.pop("module", None)), imports)
    elif spec.get("signature") is not None:
        parts["signature"] = signature_classes.build(spec["signature"], imports)
    if cls in REWARDED:
        parts["reward_fn"] = reward_from(options.pop("reward_fn", None) or {}, imports)
    if spec.get("tools") is not None and cls not in _ASKING:
        parts["tools"] = tools_from(spec["tools"])
    program = _construct(cls, name, parts, options)
    if cls is dspy.Refine:
        # Refine shows the reward's source to the model; ours would only say that it is called elsewhere.
        program.reward_fn_code = _source_of_reward(spec, imports)  # pyright: ignore[reportAttributeAccessIssue] - Refine has it
    if spec.get("state") is not None:
        load_state(program, spec["state"])
    if spec.get("demos"):
        _give_demos(program, name, spec["demos"])
    return program


def _give_demos(program: dspy.Module, name: str, demos: list[dict[str, Any]]) -> None:
    predictors = program.predictors()
    if len(predictors) != 1:
        raise invalid_input(f"demos are for modules with one predictor; {name} has {len(predictors)}.")
    predictors[0].demos = [dict(demo) for demo in demos]


def check_config(config: Mapping[str, Any], where: str, *, kind: str = "LMConfigurationError") -> dict[str, Any]:
    """Return options of an LM call, without any that would move its endpoint or key.

    Raises:
        Failure: of this kind; for a call's config that of the native route.
    """
    moved = sorted((CLIENT_KEYS | _OF_RECORD).intersection(config) - {"timeout"})
    if moved:
        message = f"{where} may not set {', '.join(moved)}: an LM's connection is set by its record alone."
        raise Failure(kind, message)
    return dict(config)


def _fields(spec: Mapping[str, Any], imports: UserImports) -> tuple[tuple[str, ...], dict[str, Any]]:
    if spec.get("signature") is None:
        return (), {}
    signature = signature_classes.build(spec["signature"], imports)
    return tuple(signature.input_fields), {name: info.annotation for name, info in signature.fields.items()}


# --- constructing -------------------------------------------------------------------------------------------------


def _construct(cls: Any, name: str, given: dict[str, Any], options: dict[str, Any]) -> dspy.Module:
    parameters = inspect.signature(cls.__init__).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = {key for key, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}
    allowed = named - _GIVEN_OTHERWISE - given.keys()
    for option, value in options.items():
        if option in _GIVEN_OTHERWISE or (option not in allowed and not takes_any):
            raise unknown_name("option", option, allowed, where=name)
        if option in allowed and not _is_plain_option(parameters[option]):
            raise unknown_name("option", option, allowed - {option}, where=name)
        _check_plain(option, value)
    if takes_any:
        own = {key: value for key, value in options.items() if key not in allowed}
        check_config(own, f"Options of {name}", kind="InvalidInput")
    for key in given.keys() - named if not takes_any else ():
        raise invalid_input(f"{name} takes no {key}.")
    try:
        return cls(**given, **options)
    except (TypeError, ValueError, AttributeError) as error:
        raise invalid_input(f"{name} does not accept these options: {error}") from error


def _is_plain_option(parameter: inspect.Parameter) -> bool:
    # Factories, callbacks, fields and types are code, and no data that crosses could stand for them.
    return parameter.name not in {
        "interpreter_factory",
        "interpreter",
        "rationale_field",
        "rationale_field_type",
        "sub_lm",
    }


def _check_plain(option: str, value: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _check_plain(option, item)
    elif isinstance(value, dict):
        for item in value.values():
            _check_plain(option, item)
    elif not isinstance(value, bool | int | float | str | None):
        raise invalid_input(f"The option {option!r} must be plain data, not {type(value).__name__}.")


def _inner_spec(spec: Mapping[str, Any], inner: Any) -> dict[str, Any]:
    """Return the inner program's spec: a module by name, or {"module", "options"}, same signature and tools."""
    described = {"module": inner or "dspy.Predict"} if not isinstance(inner, dict) else dict(inner)
    return {"signature": spec.get("signature"), "tools": spec.get("tools"), **described}


def _source_of_reward(spec: Mapping[str, Any], imports: UserImports) -> str:
    reward = (spec.get("options") or {}).get("reward_fn") or {}
    if "source" in reward:
        return str(reward["source"])
    if "import" in reward:
        try:
            return inspect.getsource(imports.resolve(str(reward["import"]), "reward function"))
        except (OSError, TypeError):
            pass
    return f"The source is not available. The reward function is {reward.get('name') or 'a function of the host'}."
