"""The commands of the general pool: run, stream, render and describe programs.

`Programs` is made once per worker, in `dspy_setup.setup`; its methods run on the threads that run calls, several at a
time. Every call opens its own `dspy.context`, so nothing of one call is seen by another, and nothing is kept after it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dspy

from ..context import Context
from . import retrievers
from .adapter_choice import adapter_named, default_adapter, lms_of
from .calls.call_context import HISTORIES, SETTING, USAGE, CallUsage
from .calls.marker_guard import guarded
from .code.host_imports import HostImports, SentTypeCache
from .code.host_values import values_from
from .code.user_imports import UserImports
from .dspy_errors import invalid_input, translated
from .lms.lm_lookup import LMS, CallLMs, Descriptions
from .lms.prompt_capture import CAPTURE, PromptCapture, PromptCaptured
from .lms.worker_lm import LMCache, secrets_of
from .metrics import field_metrics
from .modules import signature_classes
from .modules.built_program import BuiltProgram
from .modules.module_builder import lms_in
from .modules.module_cache import Modules
from .modules.module_registry import known_modules
from .modules.module_state import dump_state
from .modules.own_adapters import OwnAdapters
from .modules.program_calls import Adapter, Record, Spec, accounted, call, call_options, watching
from .observing.call_observer import observer_of
from .optimizers import known_optimizers
from .package_versions import versions
from .values.wire_values import to_wire

_NO_LM: Record = {"model": "openai/none", "ref": "", "cache": False}


@dataclass(frozen=True)
class Programs:
    """The programs and LMs of one worker."""

    imports: UserImports
    lms: LMCache
    modules: Modules
    own_adapters: OwnAdapters
    described: Descriptions = field(default_factory=Descriptions)
    sent_types: SentTypeCache = field(default_factory=SentTypeCache)

    @classmethod
    def for_pool(cls, settings: Mapping[str, Any]) -> Programs:
        """Return what a worker with these settings serves."""
        imports = UserImports.of(settings.get("imports"))
        lms = LMCache()
        return cls(imports, lms, Modules(lms.get), OwnAdapters(lms.get))

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
        awaits: bool = False,
        want: Mapping[str, Any] | None = None,
        carried: bytes | None = None,
    ) -> dict[str, Any]:
        """Call a program once: {"outputs", "usage", "cached"}, and "completions" when there is more than one.

        What an open program returns that is no prediction is {"value"} in the place of the outputs. With `awaits` a
        module's `aforward` is called, where it has one. `carried` are inputs as Python objects, of the host's own
        calls; the outputs of these are given back exactly too ("exact"). With `want` (see `CallObserver`) come also
        "finish_reason", "truncated", and "trace" if that is wanted.
        """
        built = self.built(ctx, spec, lm, adapter)
        arguments = self.arguments(ctx, built, inputs, tool_set, carried)
        options = call_options(config, rollout_id)
        call_usage, observer = CallUsage(), observer_of(ctx, built.program, want)
        with self.calling(ctx, lm, adapter, call_usage, spec=spec, **watching(built, call_usage, observer)):
            prediction = call(built, arguments, options, awaits=awaits)
        return accounted(built, prediction, call_usage, want, observer, is_exact=ctx.is_trusted)

    def arguments(
        self, ctx: Context, built: BuiltProgram, inputs: Mapping[str, Any], tool_set: str | None, carried: bytes | None
    ) -> dict[str, Any]:
        """Return the inputs as a program's call takes them; `carried` are those that came as Python objects.

        Raises:
            Failure: InvalidInput.
        """
        return built.arguments(inputs, tool_set, values_from(carried, self.imports_of(ctx), tool_set))

    def render(
        self,
        ctx: Context,
        spec: Spec,
        inputs: Mapping[str, Any],
        adapter: Adapter = None,
        lm: Record | None = None,
        config: Mapping[str, Any] | None = None,
        tool_set: str | None = None,
        carried: bytes | None = None,
    ) -> dict[str, Any]:
        """Return the messages that the program's first LM call would send; nothing is sent."""
        built = self.built(ctx, spec, lm, adapter)
        arguments = self.arguments(ctx, built, inputs, tool_set, carried)
        options = call_options(config, None)
        capture = {CAPTURE: True, "callbacks": [*(dspy.settings.callbacks or []), PromptCapture()]}
        with self.calling(ctx, lm or _NO_LM, adapter, CallUsage(), spec=spec, **capture):
            try:
                call(built, arguments, options)
            except PromptCaptured as captured:
                return {"messages": to_wire(captured.messages)}
        raise invalid_input(f"{spec['module']} ended without asking an LM.")

    def signature_of(self, ctx: Context, path: str) -> dict[str, Any]:
        """Return the wire spec of the signature class that `module:Class` names."""
        imports = self.imports_of(ctx)
        found = imports.resolve(path, "signature")
        if not (isinstance(found, type) and issubclass(found, dspy.Signature)):
            raise invalid_input(f"{path!r} is not a dspy.Signature class.")
        return signature_classes.describe(found, imports)

    def describe_program(self, ctx: Context, spec: Spec) -> dict[str, Any]:
        """Return the inputs and predictors of a program; see `BuiltProgram.describe`."""
        return self.built(ctx, spec).describe()

    def state_of(self, ctx: Context, spec: Spec) -> dict[str, Any]:
        """Return a program's state with its demos, as DSPy saves it, and what saved it: {"state", "versions"}."""
        return {"state": dump_state(self.built(ctx, spec).program), "versions": versions()}

    def built(self, ctx: Context, spec: Spec, lm: Record | None = None, adapter: Adapter = None) -> BuiltProgram:
        """Return a program; a constructor of the user's runs with DSPy configured as for the call."""
        return self.modules.get(
            spec, self.imports_of(ctx), lambda: self.calling(ctx, lm, adapter, CallUsage(), spec=spec)
        )

    def imports_of(self, ctx: Context) -> UserImports:
        """Return what a call may name: for the host's own anything, for others the modules of the pool's `imports`."""
        return HostImports(self.imports.modules, self.sent_types) if ctx.is_trusted else self.imports

    def describe(self, ctx: Context) -> dict[str, Any]:
        """Return what this worker has: the versions that decide about parity, and the names it answers to."""
        return {
            "versions": versions(),
            "modules": sorted(known_modules(self.imports)),
            "optimizers": sorted(known_optimizers.NAMES),
            "retrievers": sorted(retrievers.NAMES),
            "metrics": sorted(field_metrics.BUILT_IN),
        }

    @contextmanager
    def calling(
        self,
        ctx: Context,
        lm: Record | None,
        adapter: Adapter,
        call_usage: CallUsage,
        *,
        spec: Spec | None = None,
        **settings: Any,
    ) -> Generator[None]:
        """Enter DSPy's settings for one command, and translate its errors into failures.

        Without an LM and an adapter, those hold that the user's modules configured when they were imported.
        """
        records = tuple(record for record in (lm, *lms_in(spec).values(), *lms_of(adapter)) if record is not None)
        secrets = tuple(secret for record in records for secret in secrets_of(record))
        ctx.conceal(*secrets)
        with translated(secrets):
            found = self.lms.get(lm) if lm is not None else dspy.settings.lm
            chosen = self._adapter(ctx, adapter, found, lm)
            own = {SETTING: ctx, USAGE: call_usage, LMS: CallLMs(records, self.lms, self.described)}
            own |= guarded(spec)
            # The trace is the call's own and dies with it: BestOfN and Refine extend it, and None has no extend().
            try:
                with dspy.context(lm=found, adapter=chosen, trace=[], caller_modules=None, **own, **settings):
                    yield
            finally:
                if (histories := settings.get(HISTORIES)) is not None:
                    histories.forget()

    def _adapter(self, ctx: Context, adapter: Adapter, lm: Any, record: Record | None) -> dspy.Adapter:
        if adapter is None:
            return default_adapter(lm, record)
        imports = self.imports_of(ctx)
        return adapter_named(adapter, lm, record, self.lms.get, lambda own: self.own_adapters.get(own, imports))
