"""Programs by kind: a signature, or another program, made into something to call; and where it would run.

dspex.predictor("best_of_n", "question -> answer", reward_fn=is_short, N=5)
dspex.best_of_n("question -> answer", reward_fn=is_short, N=5)              # the same
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import InvalidInput, SettingsError, SignatureError, UnknownName
from ..services.tools import named
from ..signatures.signature import Signature, signature
from .program import CALL_OPTIONS, Program
from .routing import NATIVE_MODULES, OPTIMIZER_POOL, Decision, Reason

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


def predictor(kind: str, what: Any, **options: Any) -> Program:
    """Give a program of this kind over a signature: "predict", "chain_of_thought", "react" (tools=), "best_of_n", ...

    The kinds that ask another program ("best_of_n", "refine", "majority", "assertions", "rag") take a program too, or
    the name of the module that they ask as `module=` (default "predict"). `lm`, `adapter`, `config`, `implementation`,
    `timeout`, `supervisor`, `demos`, `rollout_id` and `use_native_function_calling` say how it is called; other options
    are the module's own (as `N` and `reward_fn` of best_of_n).

    Raises:
        UnknownName: a kind, module or option that does not exist.
        SignatureError: a signature that cannot be read.
    """
    module = KINDS.get(kind, kind)
    if module not in KINDS.values() and ":" not in module:
        raise UnknownName("predictor", kind, [*KINDS, *KINDS.values()])
    how = {name: options.pop(name) for name in CALL_OPTIONS & options.keys()}
    program = _made(module, what, options)
    return program.using(**how) if how else program


def chain_of_thought(sig: Any, **options: Any) -> Program:
    """Give a program that reasons before it answers (`dspy.ChainOfThought`)."""
    return predictor("chain_of_thought", sig, **options)


def react(sig: Any, tools: Sequence[Callable[..., Any]], **options: Any) -> Program:
    """Give an agent (`dspy.ReAct`) whose tools are Python functions that run in this process."""
    return predictor("react", sig, tools=tools, **options)


def best_of_n(what: Any, **options: Any) -> Program:
    """Give a program that asks N times and takes the best answer (`dspy.BestOfN`).

    `what` is a signature or a program. `reward_fn(inputs, prediction)` gives a number, in this process; N (3) attempts
    are made at most, each at temperature 1.0 under a rollout id of its own; the first reward of at least `threshold`
    ends them (None: the highest of all). `fail_count` is DSPy's: how many attempts may fail before one is raised.
    """
    return predictor("best_of_n", what, **options)


def refine(what: Any, **options: Any) -> Program:
    """Give a program that asks again, with advice on what was wrong, until the reward is enough (`dspy.Refine`).

    Options as for `best_of_n`. In a worker, the advice is a model's, as in DSPy. With `implementation="native"` it is
    the feedback that the reward gives (`{"score": 0.2, "feedback": "..."}`), else the score: fewer requests, and not
    DSPy's prompts.
    """
    return predictor("refine", what, **options)


def majority(what: Any, **options: Any) -> Program:
    """Give a program that takes the commonest of n (5) answers (`dspy.majority`; self-consistency with reasoning).

    `field` is the output that votes (default: the last), `normalize` makes of its value what is compared.
    """
    return predictor("majority", what, **options)


def assertions(what: Any, checks: Sequence[Callable[..., Any]], **options: Any) -> Program:
    """Give a program that asks again, with what was wrong as a hint, until every check holds.

    A check gets (inputs, prediction), in this process, and returns True or None, else False or what is wrong. After
    `attempts` (3) CheckFailed is raised, or with on_failure="return" the answer with the fewest failures is taken.
    """
    return predictor("assertions", what, checks=checks, **options)


def rag(retriever: Any, what: Any, **options: Any) -> Program:
    """Give a program that looks up the k (3) best passages for its question and answers with them.

    `retriever` is an index (`search(query, k)`), a function `(query, k)`, or "dspy.ColBERTv2" with `url=`. The texts go
    to the input `context` (`context="other"`), which is added if the signature lacks it; the query is the first other
    input (`query="name"`). The passages are in the prediction as `passages`.
    """
    return predictor("rag", what, retriever=retriever, **options)


def explain(kind: str, sig: Any = None, **options: Any) -> Decision:
    """Say where a program of this kind would run, and why; nothing is called.

    Raises:
        NotConfigured: it depends on the LM, and none is configured.
    """
    if kind in ("optimize", "optimizer"):
        return Decision("python", OPTIMIZER_POOL, Reason.OPTIMIZER)
    if sig is None:
        raise InvalidInput("explain needs the signature too, such as explain('predict', 'question -> answer').")
    return predictor(kind, sig, **options).decision


def _made(module: str, what: Any, options: dict[str, Any]) -> Program:
    if module not in NATIVE_MODULES:
        from . import strategies  # at first need: a process that only predicts never imports them

        if module in strategies.STRATEGIES:
            return strategies.STRATEGIES[module](_asked(what, options), **options)
    if isinstance(what, Program):
        raise InvalidInput(f"{module} is made of a signature, not of a program.")
    return _plain(module, what, options)


def _asked(what: Any, options: dict[str, Any]) -> Program:
    """The program that a strategy asks: as it was given, or made of a signature, a module's name and its tools."""
    module = options.pop("module", None)
    if isinstance(what, Program) or isinstance(getattr(what, "program", None), Program):
        if module is not None:
            raise SettingsError("module= goes with a signature; this program is of a module already.", key="module")
        return what if isinstance(what, Program) else what.program
    described: dict[str, Any] = {"module": module or "predict"} if not isinstance(module, Mapping) else dict(module)
    name = KINDS.get(str(described["module"]), str(described["module"]))
    if name not in KINDS.values() and ":" not in name:
        raise UnknownName("predictor", name, [*KINDS, *KINDS.values()])
    own: dict[str, Any] = {key: options.pop(key) for key in ("tools", "allow_markers") if key in options}
    return _plain(name, what, {**dict(described.get("options") or {}), **own})


def _plain(module: str, sig: Any, options: dict[str, Any]) -> Program:
    known = sig if isinstance(sig, Signature) else signature(sig)
    if module == "dspy.ChainOfThought" and "reasoning" in known.input_fields:
        raise SignatureError(f"{module} adds the output 'reasoning', which is an input of '{known}': rename it.")
    tools = named(options.pop("tools", ()))
    allow_markers = bool(options.pop("allow_markers", False))
    return Program(module, known, _plain_options(module, options), tools, allow_markers=allow_markers)


def _plain_options(module: str, options: dict[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        if callable(value):
            raise SettingsError(f"The option {name!r} of {module} is a function; workers take plain data.", key=name)
    return options
