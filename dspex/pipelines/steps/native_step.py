"""`native(...)`: functions and classes of the host as steps, in this process.

Runs on the calling thread in `run` (in one beside it where a deadline applies), and in a thread of its own in `arun`;
async functions run on the caller's event loop in `arun` and on the pipeline's private one in `run`.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...errors import InvalidReturn, SettingsError
from ..core.dataflow import Flow, Reads, Writes
from ..core.parameters import Parameters
from ..core.snapshots import Snapshot
from ..core.step import Made, Step, StepJob, checked_policy, names_of

_PLAIN = (str, int, float, bool, bytes, list, tuple, set, frozenset)


def native(
    what: Any = None,
    /,
    *,
    name: str | None = None,
    writes: Sequence[str] | str | None = None,
    into: str | None = None,
    when: Any = None,
    timeout: float | None = None,
    retry: int | None = None,
    fallback: Any = None,
    keep: Sequence[str] = (),
    **options: Any,
) -> Step:
    """Give a step that runs in this process.

    `what` is one of:

    - a function: its parameters are what it reads (`**state`: everything), those with defaults need not be there;
      `options` go to the parameters of these names instead.
    - a class or object with `run(state, **options)`; a class is made once, without arguments, if its `run` needs that.
    - a signature (or `spec="question -> answer"`): asks the language model natively and writes the output fields.
    - a program (`dspex.predictor(...)`, `dspex.load(...)`): runs where its router decides.
    - `dspex.template("...")`: renders it.
    - `dspex.Cache`, with `ttl=` in seconds: see `cache_step`.

    A function that returns a mapping writes its items: those in `writes`, or declared by a TypedDict as return type,
    or, where nothing is declared, all. What is returned beyond the declared names goes to the step's record, or is
    written too where `keep` names it. Any other value needs `into=`, the name that it is written under. None writes
    nothing.

    `when` is a function of the state, or a name; `timeout` is in seconds for all attempts together; `retry` counts
    further attempts (default 0); `fallback` is a step or function that runs in its place when it failed, and may read
    `error`.

    Raises:
        SettingsError, UnknownName: at once, for what could never run.
    """
    policy = checked_policy(
        when=when, timeout=timeout, retry=retry, fallback=fallback_step(fallback, writes=writes, into=into)
    )
    common: dict[str, Any] = {"name": name, "policy": policy, "into": into, "keep": names_of(keep, "keep")}
    special = _special(what, options)
    if special is not None:
        if writes is not None:
            raise SettingsError("writes= is for functions: this step knows what it writes.", key="writes")
        return special(**common)
    if writes is not None and into is not None:
        raise SettingsError("Give writes= or into=, not both: into= collects the whole value.", key="into")
    if inspect.isclass(what) or (not callable(what) and hasattr(what, "run")):
        function, first = _run_method(what), 1
    elif callable(what):
        function, first = what, 0
    else:
        raise SettingsError(f"dspex.native takes a function, a class with run(), or a signature, not {_kind(what)}.")
    label = getattr(what, "__name__", type(what).__name__)
    parameters = Parameters.of(function, "step" if label == "<lambda>" else label)
    parameters.check_options(options, first=first)
    declared = _declared(function) if writes is None else Writes.of(names_of(writes, "writes"))
    return NativeStep(
        parameters=parameters,
        takes_state=first == 1,
        options=options,
        declared=declared,
        result=_hint(function),
        **common,
    )


@dataclass(frozen=True, kw_only=True)
class NativeStep(Step):
    """A function of the host."""

    kind: ClassVar[str] = "native"

    parameters: Parameters
    takes_state: bool = False  # `run(state, **options)` instead of parameters by name
    options: Mapping[str, Any] = field(default_factory=dict)
    declared: Writes | None = None
    result: Any = None  # the return annotation

    @property
    def default_name(self) -> str:
        return self.parameters.label

    @property
    def own_flow(self) -> Flow:
        reads = Reads(is_everything=True) if self.takes_state else self.parameters.reads(self.options)
        if self.into is not None:
            return Flow(reads, Writes.of((self.into, *self.keep)))
        if self.result is type(None):
            return Flow(reads, Writes())
        return Flow(reads, (self.declared or Writes(is_open=True)) | Writes.of(self.keep))

    def check(self, *, is_collected: bool) -> None:
        if self.into is None and self.declared is None and not is_collected and _never_has_names(self.result):
            raise SettingsError(
                f"The step {self.name or self.default_name!r} returns {_shown(self.result)}, which has no names for "
                f"the state: give into='...', or return a dict and give writes=[...].",
                key="into",
            )

    async def perform(self, job: StepJob) -> Made:
        if self.takes_state:
            call = functools.partial(self.parameters.function, Snapshot(job.state), **self.options)
        else:
            call = self.parameters.bound(job.state, self.options, job.node.name)  # type: ignore[assignment]
        value = await job.driver.call(call, job.deadline)
        if self.into is not None or (job.node.is_collected and self.declared is None):
            return Made(value, extra=_items(value))
        writes, extra = self._named(value, job.node.name)
        return Made(value, writes, extra=extra)

    def _named(self, value: Any, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The items to write, and the others."""
        if value is None and self.declared is None:
            return {}, {}
        if not isinstance(value, Mapping):
            raise InvalidReturn(
                f"The step {name!r} returned a {type(value).__name__}, which has no names for the state: give "
                f"into='...', or return a dict and give writes=[...]."
            )
        items = dict(value)
        if bad := [key for key in items if not isinstance(key, str)]:
            raise InvalidReturn(f"The step {name!r} returned a dict with the key {bad[0]!r}; names are str.")
        if self.declared is None:
            return items, {}
        if lacking := sorted(self.declared.certain - items.keys()):
            raise InvalidReturn(
                f"The step {name!r} declares to write {', '.join(map(repr, lacking))} and did not return it; it "
                f"returned {', '.join(map(repr, items)) or 'nothing'}."
            )
        written = {key: items.pop(key) for key in tuple(items) if key in self.declared.possible}
        return written, items


def fallback_step(given: Any, *, writes: Any = None, into: str | None = None) -> Step | None:
    """Give the step for `fallback=`: a step, or what `native` takes; a function declares what the step declares.

    Raises:
        SettingsError: it is nothing that can run.
    """
    if given is None or isinstance(given, Step):
        return given
    if hasattr(given, "as_step"):
        return typing.cast(Step, given.as_step())
    is_function = callable(given) and not inspect.isclass(given)
    return native(given, writes=writes if is_function and into is None else None)


def _special(what: Any, options: dict[str, Any]) -> Callable[..., Step] | None:
    """The maker of a step for what is no function: signatures, templates, caches."""
    from ...lm.cache import Cache
    from ...programs.program import Program
    from ...programs.saving import Optimized
    from ...signatures.signature import Signature, signature
    from ...templates import PromptTemplate

    if what is Cache:
        from ..core.step_cache import cache_step

        return functools.partial(_made_with, cache_step, options)
    if what is Signature or what is signature or what is None or isinstance(what, str | Signature):
        from .program_step import signature_step

        spec = options.pop("spec", what if isinstance(what, str | Signature) else None)
        if spec is None:
            raise SettingsError("dspex.native needs a function, a class with run(), a signature, or spec='a -> b'.")
        return functools.partial(signature_step, spec, options)
    if isinstance(what, Program | Optimized):
        from .program_step import ProgramStep

        if options:
            raise SettingsError(f"A program takes no option {next(iter(options))!r} here: use program.using(...).")
        program = what.program if isinstance(what, Optimized) else what
        return functools.partial(ProgramStep, program=program, label=program.module)
    if isinstance(what, PromptTemplate):
        from .template_step import TemplateStep

        if options:
            raise SettingsError(f"A template takes no option {next(iter(options))!r}: it reads the state.")
        return functools.partial(TemplateStep, template=what)
    return None


def _made_with(make: Callable[..., Step], options: dict[str, Any], **common: Any) -> Step:
    policy = common.pop("policy")
    if policy.when or policy.fallback or policy.retry or common.pop("into") or common.pop("keep"):
        raise SettingsError("A cache step takes ttl=, max_entries= and name= only.")
    return make(**options, **common)


def _run_method(what: Any) -> Callable[..., Any]:
    if not hasattr(what, "run"):
        raise SettingsError(f"The class {what.__name__} has no run(state, **options); give a function of it instead.")
    if not inspect.isclass(what):
        return typing.cast(Callable[..., Any], what.run)
    if isinstance(inspect.getattr_static(what, "run"), staticmethod | classmethod):
        return typing.cast(Callable[..., Any], what.run)  # type: ignore[attr-defined]
    try:
        made: Any = what()
        return typing.cast(Callable[..., Any], made.run)
    except TypeError as error:
        raise SettingsError(
            f"The class {what.__name__} cannot be made without arguments ({error}): give an object of it."
        ) from error


def _hint(function: Any) -> Any:
    """The return annotation; None where there is none, or it cannot be resolved here."""
    function = getattr(function, "func", function)
    if not inspect.isroutine(function):
        function = getattr(type(function), "__call__", function)  # noqa: B004 - its annotations are wanted
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # names that exist for the type checker only; any code may run in an annotation
        return None
    return hints.get("return")


def _declared(function: Any) -> Writes | None:
    """What a TypedDict as the return type says."""
    hint = _hint(function)
    if hint is None or not typing.is_typeddict(hint):
        return None
    # Not `__required_keys__`: with postponed annotations it takes NotRequired fields for required ones (PEP 655).
    fields = typing.get_type_hints(hint, include_extras=True)
    maybe = {name for name, kind in fields.items() if _may_lack(kind, hint.__total__)}
    return Writes.of(fields.keys() - maybe, maybe)


def _may_lack(kind: Any, is_total: bool) -> bool:
    origin = typing.get_origin(kind)
    return origin is typing.NotRequired or (not is_total and origin is not typing.Required)


def _never_has_names(hint: Any) -> bool:
    origin = typing.get_origin(hint) or hint
    if origin in (typing.Union, types.UnionType):
        return all(_never_has_names(part) for part in typing.get_args(hint))
    return inspect.isclass(origin) and issubclass(origin, _PLAIN) and not issubclass(origin, collections.abc.Mapping)


def _items(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _shown(hint: Any) -> str:
    return hint.__name__ if inspect.isclass(hint) and not typing.get_args(hint) else str(hint)


def _kind(what: Any) -> str:
    return f"a {type(what).__name__}"
