"""Make programs by kind, from a signature or another program; and explain where one would run.

dspex.predictor("best_of_n", "question -> answer", reward_fn=is_short, N=5)
dspex.best_of_n("question -> answer", reward_fn=is_short, N=5)              # the same
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack

from ...errors import InvalidInput, SettingsError, SignatureError
from ...lm.given_lms import takes_lms
from ...services.tools import named
from ...signatures.signature import Signature, signature
from ..calling.program import Program
from ..modules.chain_comparison import ChainComparison
from ..modules.module import own_module
from ..modules.named_signatures import signature_for
from ..options.program_kinds import MadeOptions, ModuleOptions, StrategyOptions, module_of, require_options
from ..options.routing import NATIVE_MODULES, OPTIMIZER_POOL, Decision, Reason

if TYPE_CHECKING:
    from ...adapters.given_adapter import AdapterLike
    from ...defaults import LMLike
    from ...pools.supervising import Supervising
    from ..calling.program import S
    from ..options.program_options import CallConfig
    from ..options.routing import Implementation
    from ..saving.optimized import Optimized

    # Of `class QA(dspex.Signature)` checkers see the class.
    Described: TypeAlias = type[S] | Signature | str | Mapping[str, Any]
    Asked: TypeAlias = Program[S] | Optimized[S] | type[S] | Signature | str | Mapping[str, Any]


def _with_kind(make: Callable[..., Any]) -> Callable[..., Any]:
    """Let a call without a kind or a signature be told the right one, in the place of Python's TypeError."""

    @functools.wraps(make)
    def checked(*arguments: Any, **options: Any) -> Any:
        kind = arguments[0] if arguments else options.get("kind")
        if (len(arguments) < 2 and "what" not in options) or not isinstance(kind, str) or "->" in kind:
            raise _misplaced(kind)
        return make(*arguments, **options)

    return checked


def predictor(
    kind: str,
    what: Asked[S],
    *,
    lm: LMLike | None = None,
    lms: Mapping[str, LMLike] | None = None,
    adapter: AdapterLike | None = None,
    config: CallConfig | Mapping[str, Any] | None = None,
    implementation: Implementation | None = None,
    timeout: float | None = None,
    supervisor: Supervising | None = None,
    demos: Sequence[Mapping[str, Any]] | None = None,
    rollout_id: int | None = None,
    use_native_function_calling: bool | None = None,
    idempotent: bool | None = None,
    trace: bool | None = None,
    history: bool | int | None = None,
    callbacks: Sequence[Any] | None = None,
    **options: Any,
) -> Program[S]:
    """Return a program of this kind over a signature: "predict", "chain_of_thought", "react" (tools=), "best_of_n", ...

    The kinds that ask another program ("best_of_n", "refine", "majority", "assertions", "rag") take a program too, or
    the name of the module that they ask as `module=` (default "predict"). The named parameters say how it is called,
    see `Program.using`; None is the default, or what the given program has. Other options are the kind's own (as `N`
    and `reward_fn` of best_of_n), or arguments of a user's "package.module:Class".

    Raises:
        UnknownName: a kind, module or option that does not exist.
        SettingsError, InvalidInput: a value that cannot be.
        SignatureError: a signature that cannot be read.
    """
    module = module_of(kind)
    require_options(module, options)
    asked = signature_for(what, supervisor) if isinstance(what, str) else what
    program = _made(module, asked, options)
    how = {
        "lm": lm,
        "lms": lms,
        "adapter": adapter,
        "config": config,
        "implementation": implementation,
        "timeout": timeout,
        "supervisor": supervisor,
        "demos": demos,
        "rollout_id": rollout_id,
        "use_native_function_calling": use_native_function_calling,
        "idempotent": idempotent,
        "trace": trace,
        "history": history,
        "callbacks": callbacks,
    }
    given: Any = {name: value for name, value in how.items() if value is not None}
    return program.using(**given) if given else program


def _misplaced(kind: Any) -> SettingsError:
    """Return the error of `predictor` where the kind or the signature is missing; it names the right call."""
    is_kind = isinstance(kind, str) and "->" not in kind
    named, sig = (kind, "question -> answer") if is_kind else ("predict", kind)
    shown = sig.name if isinstance(sig, Signature) else repr(sig)
    return SettingsError(
        f"A predictor is made of a kind, then a signature: dspex.predictor({named!r}, {shown}). Kinds are 'predict', "
        f"'chain_of_thought', 'react' and others.",
        key="what" if is_kind else "kind",
    )


if not TYPE_CHECKING:  # a decorator would hide from checkers that the signature types the program
    predictor = takes_lms(_with_kind(predictor))


@takes_lms
def chain_of_thought(sig: Described[S], **options: Unpack[ModuleOptions]) -> Program[S]:
    """Return a program that reasons before it answers (`dspy.ChainOfThought`)."""
    return predictor("chain_of_thought", sig, **_passed(options))


@takes_lms
def react(
    sig: Described[S],
    tools: Sequence[Callable[..., Any]],
    *,
    max_iters: int | None = None,
    **options: Unpack[MadeOptions],
) -> Program[S]:
    """Return an agent (`dspy.ReAct`) whose tools are Python functions that run in this process.

    It asks at most `max_iters` (20) times for a tool.
    """
    return predictor("react", sig, tools=tools, **_passed(options, max_iters=max_iters))


@takes_lms
def best_of_n(
    what: Asked[S],
    *,
    reward_fn: Callable[..., Any] | str | Mapping[str, Any] | None = None,
    N: int = 3,
    threshold: float | None = None,
    fail_count: int | None = None,
    **options: Unpack[StrategyOptions],
) -> Program[S]:
    """Return a program that asks N times and takes the best answer (`dspy.BestOfN`).

    `what` is a signature or a program. `reward_fn(inputs, prediction)` gives a number, in this process; N attempts are
    made at most, each at temperature 1.0 under a rollout id of its own; the first reward of at least `threshold` ends
    them (None: the highest of all). `fail_count` is DSPy's: how many attempts may fail before one is raised.
    """
    own: dict[str, Any] = {"reward_fn": reward_fn, "N": N, "threshold": threshold, "fail_count": fail_count}
    return predictor("best_of_n", what, **own, **_passed(options))


@takes_lms
def refine(
    what: Asked[S],
    *,
    reward_fn: Callable[..., Any] | str | Mapping[str, Any] | None = None,
    N: int = 3,
    threshold: float | None = None,
    fail_count: int | None = None,
    **options: Unpack[StrategyOptions],
) -> Program[S]:
    """Return a program that asks again, with advice on what was wrong, until the reward is enough (`dspy.Refine`).

    Options as for `best_of_n`. In a worker, the advice is a model's, as in DSPy. With `implementation="native"` it is
    the feedback that the reward gives (`{"score": 0.2, "feedback": "..."}`), else the score: fewer requests, and not
    DSPy's prompts.
    """
    own: dict[str, Any] = {"reward_fn": reward_fn, "N": N, "threshold": threshold, "fail_count": fail_count}
    return predictor("refine", what, **own, **_passed(options))


@takes_lms
def majority(
    what: Asked[S],
    *,
    n: int = 5,
    field: str | None = None,
    normalize: Callable[[Any], Any] | None = None,
    **options: Unpack[StrategyOptions],
) -> Program[S]:
    """Return a program that takes the commonest of n answers (`dspy.majority`; self-consistency with reasoning).

    `field` is the output that votes (default: the last), `normalize` makes of its value what is compared.
    """
    return predictor("majority", what, n=n, field=field, normalize=normalize, **_passed(options))


@takes_lms
def assertions(
    what: Asked[S],
    checks: Sequence[Callable[..., bool | str | None]],
    *,
    attempts: int = 3,
    on_failure: Literal["raise", "return"] = "raise",
    **options: Unpack[StrategyOptions],
) -> Program[S]:
    """Return a program that asks again, with what was wrong as a hint, until every check holds.

    A check gets (inputs, prediction), in this process, and returns True or None, else False or what is wrong. After
    `attempts` CheckFailed is raised, or with on_failure="return" the answer with the fewest failures is taken.
    """
    own: dict[str, Any] = {"checks": checks, "attempts": attempts, "on_failure": on_failure}
    return predictor("assertions", what, **own, **_passed(options))


@takes_lms
def rag(
    retriever: Any,
    what: Asked[S],
    *,
    k: int = 3,
    query: str | None = None,
    context: str = "context",
    url: str | None = None,
    port: int | None = None,
    post_requests: bool | None = None,
    **options: Unpack[StrategyOptions],
) -> Program[S]:
    """Return a program that looks up the k best passages for its question and answers with them.

    `retriever` is an index (`search(query, k)`), a function `(query, k)`, or "dspy.ColBERTv2" with `url=` (and its
    `port` and `post_requests`). The texts go to the input `context` (`context="other"`), which is added if the
    signature lacks it; the query is the first other input (`query="name"`). The passages are in the prediction as
    `passages`.
    """
    own: dict[str, Any] = {"retriever": retriever, "k": k, "query": query, "context": context}
    return predictor("rag", what, **own, **_passed(options, url=url, port=port, post_requests=post_requests))


@takes_lms
def explain(
    kind: str,
    sig: Asked[Any] | None = None,
    *,
    lm: LMLike | None = None,
    adapter: AdapterLike | None = None,
    implementation: Implementation | None = None,
    supervisor: Supervising | None = None,
    **options: Any,
) -> Decision:
    """Return where a program of this kind would run, and why; nothing is called. Options as for `predictor`.

    Raises:
        NotConfigured: it depends on the LM, and none is configured.
    """
    if kind in ("optimize", "optimizer"):
        return Decision("python", OPTIMIZER_POOL, Reason.OPTIMIZER)
    if sig is None:
        raise InvalidInput("explain needs the signature too, such as explain('predict', 'question -> answer').")
    how: dict[str, Any] = {"lm": lm, "adapter": adapter, "implementation": implementation, "supervisor": supervisor}
    return predictor(kind, sig, **how, **options).decision


def _passed(options: Any, **own: Any) -> dict[str, Any]:
    """Return the options to pass on, with those of the kind's own that were given."""
    return {**options, **{name: value for name, value in own.items() if value is not None}}


def _made(module: str, what: Any, options: dict[str, Any]) -> Program:
    if module not in NATIVE_MODULES:
        from .. import strategies  # at first need: a process that only predicts never imports them

        if module in strategies.STRATEGIES:
            return strategies.STRATEGIES[module](_asked(what, options), **options)
    if isinstance(what, Program):
        raise InvalidInput(f"{module} is made of a signature, not of a program.")
    return _plain(module, what, options)


def _asked(what: Any, options: dict[str, Any]) -> Program:
    """Return the program that a strategy asks: as it was given, or made of a signature, a module's name and its tools.

    Raises:
        UnknownName, SettingsError, SignatureError: none can be made.
    """
    given = {name: options.pop(name, None) for name in ("module", "tools", "allow_markers")}
    own: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if isinstance(what, Program) or isinstance(getattr(what, "program", None), Program):
        for key in own:
            raise SettingsError(f"{key}= goes with a signature; this program is made already.", key=key)
        return what if isinstance(what, Program) else what.program
    module = own.pop("module", "predict")
    described: Mapping[str, Any] = module if isinstance(module, Mapping) else {"module": module}
    name = module_of(described.get("module", "predict"))
    inner = dict(described.get("options") or {})
    require_options(name, inner)
    return _plain(name, what, {**inner, **own})


def _plain(module: str, sig: Any, options: dict[str, Any]) -> Program:
    known = sig if isinstance(sig, Signature) else signature(sig)
    if module == "dspy.ChainOfThought" and "reasoning" in known.input_fields:
        raise SignatureError(f"{module} adds the output 'reasoning', which is an input of '{known}': rename it.")
    tools = named(options.pop("tools", ()))
    allow_markers = options.pop("allow_markers", False)
    if ":" in module:
        return own_module(module, known, tools, options, allow_markers=allow_markers)
    kind = ChainComparison if module == "dspy.MultiChainComparison" else Program
    return kind(module, known, _plain_options(module, options), tools, allow_markers=allow_markers)


def _plain_options(module: str, options: dict[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        if callable(value):
            raise SettingsError(f"The option {name!r} of {module} is a function; workers take plain data.", key=name)
    return options
