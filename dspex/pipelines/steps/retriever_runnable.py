"""Run a retriever as a pipeline's step: search for each query in a worker, and return the passages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import SettingsError, UnknownName
from ...programs.options.program_options import require_whole
from ...programs.options.routing import GENERAL_POOL
from ...programs.worker import worker_answers
from .runnable import RunnableOutcome, Scope, invoke, options_of

if TYPE_CHECKING:
    from ...pools.supervising import MadeCall

RETRIEVERS = ("dspy.ColBERTv2",)
COLBERT_OPTIONS = frozenset({"url", "port", "post_requests"})


@dataclass(frozen=True, init=False)
class RetrieverRunnable:
    """Searches for the input field that `query` names, and outputs `passages`."""

    name: str
    query: str
    k: int
    options: Mapping[str, Any]
    pool: str = GENERAL_POOL
    may_repeat: bool = False
    is_stateful: bool = False
    outputs: tuple[str, ...] = ("passages",)
    optional_inputs: frozenset[str] = frozenset()

    def __init__(
        self, name: str, *, query: str = "query", k: int = 3, idempotent: bool = False, **options: Any
    ) -> None:
        for option in options.keys() - COLBERT_OPTIONS:
            raise UnknownName("option", option, COLBERT_OPTIONS | {"query", "k", "idempotent"}, where=name)
        require_whole("k", k)
        if not options.get("url"):
            raise SettingsError(f"{name} needs the url of its server, such as url='http://127.0.0.1:8893'.", key="url")
        if not isinstance(idempotent, bool):
            raise SettingsError(f"idempotent is {idempotent!r}; it is True or False.", key="idempotent")
        for field_, value in (
            *(("name", name), ("query", query), ("k", k), ("options", options)),
            ("may_repeat", idempotent),
        ):
            object.__setattr__(self, field_, value)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.query,)

    def run(self, inputs: Mapping[str, Any], scope: Scope) -> RunnableOutcome:
        calls = [
            invoke(scope.supervisor, GENERAL_POOL, "retrieve", arguments, scope)
            for arguments in self._each(inputs[self.query])
        ]
        return self._outcome(calls)

    async def arun(self, inputs: Mapping[str, Any], scope: Scope) -> RunnableOutcome:
        pool = scope.supervisor.pool(GENERAL_POOL)
        jobs = [
            pool.ainvoke("retrieve", arguments, **options_of(scope)) for arguments in self._each(inputs[self.query])
        ]
        return self._outcome(await asyncio.gather(*jobs))

    def _each(self, query: Any) -> list[dict[str, Any]]:
        """Return one request for each query: the field may hold one or a list of them."""
        queries = [query] if isinstance(query, str) else list(query)
        options = {"url": self.options["url"], **self.options}
        return [{"retriever": self.name, "options": dict(options), "query": str(one), "k": self.k} for one in queries]

    def _outcome(self, calls: Sequence[MadeCall]) -> RunnableOutcome:
        """Return the passages of all queries, the best score first, each once."""
        found: dict[str, dict[str, Any]] = {}
        for call in calls:
            for passage in worker_answers.passages(call):
                known = found.get(passage["text"])
                if known is None or _score(passage) > _score(known):
                    found[passage["text"]] = passage
        passages = sorted(found.values(), key=_score, reverse=True)
        last = calls[-1] if calls else None
        worker = last.worker_name if last is not None else ""
        generation = last.generation if last is not None else None
        return RunnableOutcome({"passages": passages}, {}, f"python:{worker}", worker, generation)


def _score(passage: Mapping[str, Any]) -> float:
    return float(passage.get("score") or 0)
