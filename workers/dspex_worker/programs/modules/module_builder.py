"""Build a DSPy program from its spec, with its state, demos, tools and language models. Any thread."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import dspy

from ...failure import Failure
from ..code import class_sources
from ..code.call_references import HostReferences
from ..code.host_code import MakeLM, is_by_value, loaded, no_lm
from ..code.host_values import values_from
from ..code.user_imports import UserImports
from ..dspy_errors import invalid_input, unknown_name
from ..dspy_parts import CLIENT_KEYS
from ..metrics.metric_calls import reward_from
from ..values.host_tools import tools_from
from . import signature_classes
from .built_program import REWARDED
from .module_registry import MODULES, MajorityModule, module_named
from .module_state import load_state
from .user_modules import FunctionModule, noting, program_from

Settings = AbstractContextManager[None]
_OF_RECORD = frozenset({"model", "model_list", "engine", "async_engine"})  # what else an LM's record alone decides
_ASKING = REWARDED | {MajorityModule}  # what asks another module
_GIVEN_OTHERWISE = frozenset({"self", "signature", "tools", "callbacks"})


def lms_in(spec: Mapping[str, Any] | None) -> Mapping[str, Mapping[str, Any]]:
    """Return the LM records of a spec, by predictor."""
    found: Mapping[str, Mapping[str, Any]] = (spec or {}).get("lms") or {}
    return found


def label_of(spec: Mapping[str, Any]) -> str:
    """Return the name of a spec's program, for people."""
    return str(spec.get("label") or spec["module"])


def build(
    spec: Mapping[str, Any],
    imports: UserImports,
    make_lm: MakeLM = no_lm,
    within: Callable[[], Settings] = nullcontext,
) -> dspy.Module:
    """Return a new program for `spec`. What its module configures of DSPy when it is imported holds for the process.

    Raises:
        Failure: UnknownName, InvalidInput.
    """
    name = str(spec["module"])
    is_sent = imports.is_open and is_by_value(name)
    named = imports.at(str(spec.get("version") or ""))
    with noting(f"while {label_of(spec)} was imported"):
        found = _loaded(spec, name, imports, make_lm) if is_sent else module_named(name, named)
    with within(), noting(f"while {label_of(spec)} was made"):
        program = (
            _of_dspy(found, name, spec, imports, make_lm)
            if name in MODULES
            else _of_user(found, spec, imports, make_lm)
        )
    if spec.get("state") is not None:
        load_state(program, spec["state"])
    if spec.get("demos") or spec.get("carried_demos"):
        _give_demos(program, label_of(spec), _demos(spec, imports))
    return program


def _of_dspy(cls: Any, name: str, spec: Mapping[str, Any], imports: UserImports, make_lm: MakeLM) -> dspy.Module:
    options = dict(spec.get("options") or {})
    parts: dict[str, Any] = {}
    if cls in _ASKING:
        parts["module"] = build(_inner_spec(spec, options.pop("module", None)), imports, make_lm)
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
    return program


def give_lms(program: dspy.Module, name: str, records: Mapping[str, Mapping[str, Any]], make_lm: MakeLM) -> None:
    """Give predictors the LMs that the call names for them; before anything is asked."""
    predictors = dict(program.named_predictors()) if records else {}
    for predictor, record in records.items():
        if predictor not in predictors:
            raise unknown_name("predictor", predictor, predictors, where=name)
        predictors[predictor].lm = make_lm(record)
    if records and type(program) in REWARDED and len({id(each.lm) for each in predictors.values()}) > 1:
        raise invalid_input(
            f"{name} asks all predictors of its module with one language model: give the program lm= instead of lms=, "
            f"or each of {', '.join(predictors)} the same."
        )


def _of_user(found: Any, spec: Mapping[str, Any], imports: UserImports, make_lm: MakeLM) -> dspy.Module:
    """Return the user's program; its constructor gets what it takes of the signature and the host's tools."""
    init = dict(spec.get("options") or {})
    for option, value in init.items():
        _check_plain(option, value)
    if imports.is_open and spec.get("given"):
        init |= _loaded(spec, str(spec["given"]), imports, make_lm)
    parts: dict[str, Any] = {}
    if spec.get("signature") is not None:
        parts["signature"] = signature_classes.build(spec["signature"], imports)
    if spec.get("tools") is not None:
        parts["tools"] = tools_from(spec["tools"])
    program = program_from(found, label_of(spec), parts, init, is_function=bool(spec.get("function")))
    if imports.is_open and isinstance(spec.get("source"), str) and type(program) is not FunctionModule:
        class_sources.keep(type(program), spec["source"])
    is_changed = spec.get("state") is not None or spec.get("demos") or lms_in(spec)
    is_shared_by_name = program is found and is_changed
    return program.deepcopy() if is_shared_by_name else program


def _loaded(spec: Mapping[str, Any], name: str, imports: UserImports, make_lm: MakeLM) -> Any:
    records = (spec.get("held") or {}).get(name, ())
    return loaded(name, label_of(spec), HostReferences(imports), records, make_lm)


def _demos(spec: Mapping[str, Any], imports: UserImports) -> list[dict[str, Any]]:
    """Return the demos; of those that came as Python objects, in text since a spec is named by its JSON."""
    demos = [dict(demo) for demo in spec.get("demos") or ()]
    sent = spec.get("carried_demos")
    if sent is not None:
        demos += values_from(base64.b64decode(sent), imports, (spec.get("tools") or [{}])[0].get("id"))["demos"]
    return demos


def _give_demos(program: dspy.Module, name: str, demos: list[dict[str, Any]]) -> None:
    predictors = program.predictors()
    if len(predictors) != 1:
        raise invalid_input(f"demos are for modules with one predictor; {name} has {len(predictors)}.")
    predictors[0].demos = demos


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


def fields_of(spec: Mapping[str, Any], imports: UserImports) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the inputs of a spec's signature, and the types of all its fields; none without a signature."""
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
            return inspect.getsource(imports.resolve_own(str(reward["import"]), "reward function"))
        except (OSError, TypeError):
            pass
    return f"The source is not available. The reward function is {reward.get('name') or 'a function of the host'}."
