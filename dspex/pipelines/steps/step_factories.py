"""Make steps: `native` and `python`. Those of other steps are made in `composite_factories`."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import SettingsError
from ...lm.given_lms import takes_lms
from ..core.plan import Plan
from ..core.step import Step, checked_policy, names_of
from ..core.step_cache import cache_step
from .composite_steps import PipelineStep
from .module_runnable import ModuleRunnable
from .named_runnables import as_stateful, label_of, own_program, runnable_of
from .native_step import function_step
from .open_program_step import OpenProgramStep
from .program_step import ProgramStep, signature_step
from .template_step import TemplateStep
from .worker_step import RunnableStep

if TYPE_CHECKING:
    from ...adapters.given_adapter import AdapterLike
    from ...defaults import LMLike
    from ...programs.options.program_options import CallConfig
    from ...signatures.signature import SignatureLike


def native(
    what: Any = None,
    /,
    *,
    name: str | None = None,
    writes: Sequence[str] | str | None = None,
    into: str | None = None,
    when: Callable[..., Any] | str | None = None,
    timeout: float | None = None,
    retry: int | None = None,
    fallback: Any = None,
    keep: Sequence[str] | str = (),
    **options: Any,
) -> Step:
    """Return a step that runs in this process.

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
    return function_step(what, options, writes, **common)


@takes_lms
def python(
    what: Any,
    /,
    *,
    signature: SignatureLike | Mapping[str, Any] | None = None,
    lm: LMLike | None = None,
    adapter: AdapterLike | None = None,
    config: CallConfig | Mapping[str, Any] | None = None,
    demos: Sequence[Mapping[str, Any]] | None = None,
    tools: Sequence[Callable[..., Any]] | None = None,
    rollout_id: int | None = None,
    use_native_function_calling: bool | None = None,
    idempotent: bool | None = None,
    name: str | None = None,
    into: str | None = None,
    when: Callable[..., Any] | str | None = None,
    timeout: float | None = None,
    retry: int | None = None,
    fallback: Any = None,
    keep: Sequence[str] | str = (),
    stateful: bool = False,
    **options: Any,
) -> Step:
    """Return a step that runs in a worker.

    `what` is one of:

    - a module's name ("dspy.ChainOfThought", "dspy.ReAct", "package.module:Class") with `signature=`: it reads the
      signature's inputs and writes its outputs; what a module adds (`reasoning`, `trajectory`) and its `usage` are in
      the step's record, or written too where `keep` names them.
    - a module of yours without a signature ("package.module:Class", the class, a live module): it reads what its
      `forward` takes, and writes all that it returns.
    - a program: `dspex.predictor(...)`, `dspex.optimize(...)`, `dspex.load(...)`.
    - a retriever's name ("dspy.ColBERTv2"): reads `query` (`query="other_name"`), gives `passages`, or `into=`.
    - an optimizer's name ("dspy.MIPROv2") with `signature=`, `trainset=`, `metric=`, `task=`, `max_examples=` and its
      own options: optimizes once, keeps the winner, and runs that.
    - any object with the methods of `pipelines.steps.runnable.Runnable`.

    `lm`, `adapter`, ... say how a module named so is called, see `Program.using`; other options are the module's own.

    `timeout` is in seconds for all attempts together. `retry=n` allows n further attempts after any error that may
    pass; without it, only a step that is made of LM requests alone (`dspy.Predict`, `dspy.ChainOfThought`), or whose
    program says `idempotent=True`, is tried once more if its worker died. `stateful=True` says that the worker keeps
    something for the run's session.

    Raises:
        SettingsError, UnknownName, SignatureError: at once, for what could never run.
    """
    how = {
        "lm": lm,
        "adapter": adapter,
        "config": config,
        "demos": demos,
        "tools": tools,
        "rollout_id": rollout_id,
        "use_native_function_calling": use_native_function_calling,
        "idempotent": idempotent,
    }
    given = {key: value for key, value in how.items() if value is not None}
    policy = checked_policy(when=when, timeout=timeout, retry=retry, fallback=fallback_step(fallback, into=into))
    program = own_program(what, signature, {**options, **given})
    if program is not None and program.is_open:
        label, kept = program.name_shown, names_of(keep, "keep")
        return OpenProgramStep(name=name, policy=policy, into=into, keep=kept, program=program, label=label)
    made = runnable_of(what, signature, {**options, **given}) if program is None else ModuleRunnable(program)
    if stateful and not made.is_stateful:
        made = as_stateful(made)
    label = what if isinstance(what, str) else label_of(made)
    return RunnableStep(name=name, policy=policy, into=into, keep=names_of(keep, "keep"), runnable=made, label=label)


def as_step(given: Any) -> Step:
    """Return the step for a step, a pipeline, a list of steps, or whatever `native` takes."""
    if isinstance(given, Step):
        return given
    if hasattr(given, "as_step"):
        made: Step = given.as_step()
        return made
    if isinstance(given, list | tuple):
        return PipelineStep(inner=Plan.of(tuple(map(as_step, given)), "steps"))
    return native(given)


def fallback_step(given: Any, *, writes: Any = None, into: str | None = None) -> Step | None:
    """Return the step for `fallback=`: a step, or what `native` takes; a function declares what the step declares.

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
    """Return the maker of a step for what is no function: signatures, templates, caches."""
    from ...lm.cache import Cache
    from ...programs.calling.program import Program
    from ...programs.saving.optimized import Optimized
    from ...signatures.signature import Signature, signature
    from ...templates import PromptTemplate
    from ...types.dspy_objects import is_signature_class

    if what is Cache:
        return functools.partial(_made_with, cache_step, options)
    is_one = isinstance(what, str | Signature) or is_signature_class(what)
    if is_one or what is Signature or what is signature or what is None:
        spec = options.pop("spec", what if is_one else None)
        if spec is None:
            raise SettingsError("dspex.native needs a function, a class with run(), a signature, or spec='a -> b'.")
        return functools.partial(signature_step, spec, options)
    if isinstance(what, Program | Optimized):
        if options:
            raise SettingsError(f"A program takes no option {next(iter(options))!r} here: use program.using(...).")
        program = what.program if isinstance(what, Optimized) else what
        kind = OpenProgramStep if program.is_open else ProgramStep
        return functools.partial(kind, program=program, label=program.name_shown)
    if isinstance(what, PromptTemplate):
        if options:
            raise SettingsError(f"A template takes no option {next(iter(options))!r}: it reads the state.")
        return functools.partial(TemplateStep, template=what)
    return None


def _made_with(make: Callable[..., Step], options: dict[str, Any], **common: Any) -> Step:
    policy = common.pop("policy")
    if policy.when or policy.fallback or policy.retry or common.pop("into") or common.pop("keep"):
        raise SettingsError("A cache step takes ttl=, max_entries= and name= only.")
    return make(**options, **common)
