"""Retrieve passages with a retriever of DSPy's or of the user's module.

Nothing is cached here: DSPy keeps ColBERTv2's answers for ever, under function and arguments, so its caches are off
in workers (`dspy_setup.setup`). Any thread. Not covered: `dspy.Embeddings`, which starts a thread that a fork loses and
needs an embedder that is code; put such a retriever into a module of the pool's `imports`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from ..context import Context
from .code.user_imports import UserImports
from .dspy_errors import invalid_input, unknown_name
from .values.wire_values import to_wire

NAMES = ("dspy.ColBERTv2",)
_COLBERT_OPTIONS = frozenset({"url", "port", "post_requests"})
_REFUSED = {
    "dspy.Embeddings": "its index and its thread would have to be built in every worker",
    "dspy.Retrieve": "it only calls the retriever that is configured; name that one",
}


def retrieve(
    imports: UserImports,
    ctx: Context,
    retriever: str,
    query: str,
    k: int = 10,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the best `k` passages for a query: {"passages": [{"text", ...}]}, best first.

    Raises:
        Failure: UnknownName, InvalidInput; what the retriever itself raises is left as it is.
    """
    found = _made(retriever, dict(options or {}), imports)
    return {"passages": [_passage(one) for one in _listed(found(query, k=k))][:k]}


def _made(name: str, options: dict[str, Any], imports: UserImports) -> Any:
    if name == "dspy.ColBERTv2":
        for option in options.keys() - _COLBERT_OPTIONS:
            raise unknown_name("option", option, _COLBERT_OPTIONS, where=name)
        return dspy.ColBERTv2(**options)
    if name in _REFUSED:
        raise invalid_input(f"{name} is not offered: {_REFUSED[name]}. Use a class of the pool's imports.")
    if ":" not in name:
        raise unknown_name("retriever", name, NAMES)
    made = imports.resolve_own(name, "retriever")
    return made(**options) if isinstance(made, type) else made


def _listed(found: Any) -> Sequence[Any]:
    passages = getattr(found, "passages", found)
    if isinstance(passages, str | Mapping) or not isinstance(passages, Sequence):
        raise invalid_input(f"The retriever gave a {type(passages).__name__}; a list of passages is needed.")
    return passages


def _passage(one: Any) -> dict[str, Any]:
    if isinstance(one, str):
        return {"text": one}
    facts: dict[str, Any] = to_wire(dict(one.items()))
    # GET answers carry the text twice, POST answers once (DSPy 3.4.1): one name for both.
    long_text = facts.pop("long_text", None)
    return {"text": long_text, **facts} if "text" not in facts else facts
