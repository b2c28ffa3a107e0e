"""Running programs: what the commands of the general pool do.

`Programs` is made once per worker, in `boot.setup`; its methods run on the threads that run calls, several at a time.
Every call opens its own `dspy.context`, so nothing of one call is seen by another, and nothing is kept after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any

import dspy

from ..bridge import Context, Failure
from . import metric_calls, optimizers, retrievers, signature_classes
from .adapter_choice import adapter_named
from .call_context import SETTING, TALLY, Noting, Tally
from .dspy_errors import failure_of, invalid_input, translated
from .module_registry import known_modules
from .modules import Built, Modules, check_config
from .user_imports import Imports
from .wire_values import to_wire
from .worker_lm import LMs, options_of

Spec = Mapping[str, Any]
Record = Mapping[str, Any]
Adapter = str | Mapping[str, Any] | None  # see `adapters.adapter_named`
_NO_LM: Record = {"model": "openai/none", "ref": "", "cache": False}
_VERSIONS = ("dspy", "pydantic", "json_repair", "regex", "optuna", "cloudpickle")


@dataclass(frozen=True)
class Programs:
    """The programs and LMs of one worker."""

    imports: Imports
    lms: LMs
    modules: Modules

    @classmethod
    def for_pool(cls, settings: Mapping[str, Any]) -> Programs:
        """What a worker with these settings serves."""
        imports = Imports.of(settings.get("imports"))
        return cls(imports, LMs(), Modules(imports))

    def run(
        self,
        ctx: Context,
        spec: Spec,
        inputs: Mapping[str, Any],
        lm: Record | None = None,
        adapter: Adapter = None,
        config: Mapping[str, Any] | None = None,
        rollout_id: int | None = None,
        tool_set: str | None = None,
    ) -> dict[str, Any]:
        """Call a program once: {"outputs", "usage", "cached"}, and "completions" when there is more than one."""
        built = self.modules.get(spec)
        arguments, options = built.arguments(inputs, tool_set), call_options(config, rollout_id)
        tally = Tally()
        watching = {"callbacks": [Noting(tally)]} if built.swallows_errors else {}
        with self.calling(ctx, lm, adapter, tally, **watching), dspy.track_usage() as usage:
            prediction = call(built, arguments, options)
        if prediction is None:
            raise nothing_came(spec, tally)
        return accounted(prediction, usage, tally)

    def render(
        self,
        ctx: Context,
        spec: Spec,
        inputs: Mapping[str, Any],
        adapter: Adapter = None,
        lm: Record | None = None,
        config: Mapping[str, Any] | None = None,
        tool_set: str | None = None,
    ) -> dict[str, Any]:
        """The messages that the program's first LM call would send; nothing is sent."""
        built = self.modules.get(spec)
        arguments, options = built.arguments(inputs, tool_set), call_options(config, None)
        with self.calling(ctx, lm, adapter, Tally()), dspy.context(lm=self._rendering(lm or _NO_LM)):
            try:
                call(built, arguments, options)
            except _Rendered as rendered:
                return {"messages": to_wire(rendered.messages)}
        raise invalid_input(f"{spec['module']} ended without asking an LM.")

    def signature_of(self, ctx: Context, path: str) -> dict[str, Any]:
        """The wire spec of the signature class that `module:Class` names."""
        found = self.imports.resolve(path, "signature")
        if not (isinstance(found, type) and issubclass(found, dspy.Signature)):
            raise invalid_input(f"{path!r} is not a dspy.Signature class.")
        return signature_classes.describe(found, self.imports)

    def describe(self, ctx: Context) -> dict[str, Any]:
        """What this worker has: the versions that decide about parity, and the names it answers to."""
        return {
            "versions": versions(),
            "modules": sorted(known_modules(self.imports)),
            "optimizers": sorted(optimizers.NAMES),
            "retrievers": sorted(retrievers.NAMES),
            "metrics": sorted(metric_calls.BUILT_IN),
        }

    def _rendering(self, record: Record) -> dspy.LM:
        real = self.lms.get(record)
        assert real is not None
        return _Rendering(str(record["model"]), engine=real.engine, cache=False, num_retries=0, **options_of(record))

    @contextmanager
    def calling(
        self, ctx: Context, lm: Record | None, adapter: Adapter, tally: Tally, **settings: Any
    ) -> Iterator[None]:
        """DSPy's settings for one command, and its errors as failures."""
        ctx.conceal(*secrets_of(lm))
        with translated(secrets_of(lm)):
            found = self.lms.get(lm)
            chosen = adapter_named(adapter, found, lm)
            own = {SETTING: ctx, TALLY: tally}
            # The trace is the call's own and dies with it: BestOfN and Refine extend it, and None has no extend().
            with dspy.context(lm=found, adapter=chosen, trace=[], caller_modules=None, **own, **settings):
                yield


def call(built: Built, arguments: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Call a program with options for its LM calls, in the way that it takes them."""
    if not options:
        return built.program(**arguments)
    if built.takes_config:
        return built.program(**arguments, config=dict(options))
    lm = dspy.settings.lm
    with dspy.context(lm=None if lm is None else lm.copy(**options)):
        return built.program(**arguments)


def call_options(config: Mapping[str, Any] | None, rollout_id: int | None) -> dict[str, Any]:
    """The options of one call's LM requests.

    Raises:
        Failure: InvalidInput, when they would move the LM's endpoint.
    """
    options = check_config(config or {}, "The call's config")
    return options if rollout_id is None else {**options, "rollout_id": rollout_id}


def result_of(prediction: Any) -> dict[str, Any]:
    """The wire form of what a program gave.

    Raises:
        Failure: InvalidInput, when it is neither a prediction nor a mapping.
    """
    if not isinstance(prediction, dspy.Example | Mapping):
        raise invalid_input(
            f"The program gave a {type(prediction).__name__}; it must give a dspy.Prediction or a dict."
        )
    result = {"outputs": to_wire(dict(prediction.items()))}
    completions = getattr(prediction, "completions", None)
    if completions is not None and len(completions) > 1:
        result["completions"] = [to_wire(dict(one.items())) for one in completions]
    return result


def accounted(prediction: Any, usage: Any, tally: Tally) -> dict[str, Any]:
    """A program's result with what it cost: usage by model, and whether the cache answered all of it."""
    tokens = {model: used for model, used in usage.get_total_tokens().items() if used}
    return {**result_of(prediction), "usage": to_wire(tokens), "cached": tally.is_cached}


def nothing_came(spec: Spec, tally: Tally) -> Failure:
    """Why a program gave None: BestOfN and Refine do so when every attempt failed."""
    if tally.last is not None:
        return failure_of(tally.last)
    return Failure("NoPrediction", f"{spec['module']} gave no prediction: no attempt had a reward.")


def secrets_of(record: Record | None) -> tuple[str, ...]:
    """What must not appear in an error of a call with this LM record."""
    if record is None:
        return ()
    own = (str(record["api_key"]),) if record.get("api_key") else ()
    return own + tuple(key for fallback in record.get("fallbacks") or () for key in secrets_of(fallback))


def versions() -> dict[str, str | None]:
    """The versions of what decides about prompts and parsing, None for what is not installed."""
    found: dict[str, str | None] = {}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return {**found, "python": python_version()}


class _Rendered(BaseException):
    """The messages were made; not an Exception, so that no module takes it for a failed attempt."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.messages = messages


class _Rendering(dspy.LM):  # type: ignore[misc]
    """An LM with the abilities of another that stops the program when the first messages are ready."""

    def __call__(self, prompt: Any = None, *, messages: Any = None, **options: Any) -> Any:
        raise _Rendered(messages)
