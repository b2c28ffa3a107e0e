"""`rag`: look up passages for a question, then answer from them.

A retriever of the host's is called in this process on both routes (in a thread beside the loop, if it blocks); DSPy's
ColBERTv2 is called in a worker, and takes the whole program there.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput, SettingsError, UnknownName
from ...signatures.field import InputField
from ...types.chunk import Chunk
from ...types.prediction import Prediction, with_facts
from ..calling.program import Program
from ..options.routing import GENERAL_POOL, Candidate, Reason
from ..worker import worker_answers
from .strategy import Strategy, require_function

if TYPE_CHECKING:
    from ...lm.record import LM
    from ...pools.supervising import MadeCall

REMOTE = ("dspy.ColBERTv2",)
Found = tuple[dict[str, Any], list[Any]]  # the inputs with the context, and the passages


@dataclass(frozen=True)
class RetrievalAugmented(Strategy):
    """A program that answers from what it looked up; see `dspex.rag`."""

    retriever: Any = None
    k: int = 3
    query: str = ""
    context: str = "context"
    settings: Mapping[str, Any] = field(default_factory=dict)  # of a retriever that workers hold

    @classmethod
    def over(
        cls,
        inner: Program,
        *,
        retriever: Any = None,
        k: int = 3,
        query: str | None = None,
        context: str = "context",
        **settings: Any,
    ) -> RetrievalAugmented:
        """Return the program over `inner`.

        Raises:
            SettingsError, UnknownName, InvalidInput: options that cannot be.
        """
        _check_retriever(retriever, settings)
        if k < 1:
            raise InvalidInput(f"At least one passage is needed, not {k}.", field="k")
        if inner.is_open:
            if query is None:
                raise SettingsError(f"Which input of {inner!r} is looked up? Say it: query='question'.", key="query")
            own = {"retriever": retriever, "k": k, "query": query, "context": context, "settings": settings}
            return cls.made("dspex.RAG", inner, **own)
        if context not in inner.signature.fields:
            if inner.state is not None:
                raise SettingsError(f"A saved program needs the input {context!r} for its passages.", key="context")
            added = inner.signature.prepend(context, InputField(), list[str])
            inner = replace(inner, signature=added)
        others = [name for name in inner.inputs if name != context]
        if not others or (query is not None and query not in others):
            raise UnknownName("input", query or "the query", others, where=repr(inner))
        own = {"retriever": retriever, "k": k, "query": query or others[0], "context": context, "settings": settings}
        return cls.made("dspex.RAG", inner, **own)

    # -- natively ------------------------------------------------------------------------------------------------

    def run_here(self, inputs: Mapping[str, Any]) -> Prediction:
        given, passages = self._found(inputs)
        return _with_passages(self.inner.run_here(given), passages)

    async def arun_here(self, inputs: Mapping[str, Any]) -> Prediction:
        given, passages = await self._afound(inputs)
        return _with_passages(await self.inner.arun_here(given), passages)

    def stream_here(self, inputs: Mapping[str, Any]) -> Iterator[Chunk | Prediction]:
        given, passages = self._found(inputs)
        for item in self.inner.stream_here(given):
            yield item if isinstance(item, Chunk) else _with_passages(item, passages)

    async def astream_here(self, inputs: Mapping[str, Any]) -> AsyncIterator[Chunk | Prediction]:
        given, passages = await self._afound(inputs)
        async for item in self.inner.astream_here(given):
            yield item if isinstance(item, Chunk) else _with_passages(item, passages)

    # -- in a worker -----------------------------------------------------------------------------------------------

    def run_in_worker(self, inputs: Mapping[str, Any], **how: Any) -> tuple[Prediction, MadeCall | None]:
        given, passages = self._found(inputs, **how)
        prediction, call = self.inner.run_in_worker(given, **how)
        return _with_passages(prediction, passages), call

    async def arun_in_worker(self, inputs: Mapping[str, Any], **how: Any) -> tuple[Prediction, MadeCall | None]:
        given, passages = await self._afound(inputs, **how)
        prediction, call = await self.inner.arun_in_worker(given, **how)
        return _with_passages(prediction, passages), call

    def stream_in_worker(self, inputs: Mapping[str, Any]) -> Iterator[Chunk | Prediction]:
        given, passages = self._found(inputs)
        for item in self.inner.stream_in_worker(given):
            yield item if isinstance(item, Chunk) else _with_passages(item, passages)

    async def astream_in_worker(self, inputs: Mapping[str, Any]) -> AsyncIterator[Chunk | Prediction]:
        given, passages = await self._afound(inputs)
        async for item in self.inner.astream_in_worker(given):
            yield item if isinstance(item, Chunk) else _with_passages(item, passages)

    # -- looking at it -------------------------------------------------------------------------------------------

    def candidate(self, lm: LM | None) -> Candidate:
        inner = super().candidate(lm)
        return replace(inner, obstacle=(Reason.RETRIEVER, self.retriever)) if self._is_remote else inner

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.inputs_named(self.described)

    def inputs_named(self, described: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(name for name in described["inputs"] if name != self.context)

    def to_wire(self) -> dict[str, Any]:
        raise SettingsError(
            f"{self.module} looks up its passages for each call; optimize or evaluate the program that it asks, or "
            f"score it here with dspex.map.",
            key="program",
        )

    # ============================================================================================================

    @property
    def _is_remote(self) -> bool:
        return isinstance(self.retriever, str)

    def _found(self, inputs: Mapping[str, Any], **how: Any) -> Found:
        if self._is_remote:
            pool = self.supervisor_used.pool(GENERAL_POOL)
            call = pool.invoke("retrieve", self._request(inputs), **self._lookup_options(how))
            passages = worker_answers.passages(call)
        else:
            passages = self._searched(inputs)
            if inspect.isawaitable(passages):
                if inspect.iscoroutine(passages):
                    passages.close()
                raise InvalidInput("The retriever is asynchronous: use await program.acall(...).", field="retriever")
        return self._with_found(inputs, passages)

    async def _afound(self, inputs: Mapping[str, Any], **how: Any) -> Found:
        if self._is_remote:
            pool = self.supervisor_used.pool(GENERAL_POOL)
            call = await pool.ainvoke("retrieve", self._request(inputs), **self._lookup_options(how))
            return self._with_found(inputs, worker_answers.passages(call))
        asearch = getattr(self.retriever, "asearch", None)
        if asearch is not None:
            return self._with_found(inputs, await asearch(self._asked(inputs), self.k))
        passages = await asyncio.to_thread(self._searched, inputs)
        return self._with_found(inputs, await passages if inspect.isawaitable(passages) else passages)

    def _lookup_options(self, how: Mapping[str, Any]) -> dict[str, Any]:
        options = {"timeout": self.timeout, **{name: value for name, value in how.items() if name != "retry"}}
        return {**options, "idempotent": how.get("retry", True) and self.may_repeat}

    def _request(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        asked = str(self._asked(inputs))
        return {"retriever": self.retriever, "options": dict(self.settings), "query": asked, "k": self.k}

    def _searched(self, inputs: Mapping[str, Any]) -> Any:
        search: Callable[..., Any] = getattr(self.retriever, "search", self.retriever)
        asked = self._asked(inputs)
        return search(asked, self.k) if self._takes_k else search(asked)

    @cached_property
    def _takes_k(self) -> bool:
        """Whether the retriever is told how many passages are wanted; a `dspy.Embeddings` knows for itself."""
        return not _knows_k(self.retriever)

    def _asked(self, inputs: Mapping[str, Any]) -> Any:
        if self.query not in inputs:
            raise InvalidInput(f"The input {self.query!r} is missing; it is what is looked up.", field=self.query)
        return inputs[self.query]

    def _with_found(self, inputs: Mapping[str, Any], passages: Any) -> Found:
        found = list(getattr(passages, "passages", passages))[: self.k]  # DSPy's retrievers give a prediction
        return {self.context: [_text(passage) for passage in found], **inputs}, found


def _check_retriever(retriever: Any, settings: Mapping[str, Any]) -> None:
    if isinstance(retriever, str):
        if retriever not in REMOTE:
            raise UnknownName("retriever", retriever, REMOTE)
        if not settings.get("url"):
            raise SettingsError(
                f"{retriever} needs the url of its server, such as url='http://127.0.0.1:8893'.", key="url"
            )
    elif settings:
        raise UnknownName("option", min(settings), ("retriever", "k", "query", "context"), where="rag")
    elif not callable(getattr(retriever, "search", retriever)):
        raise SettingsError(
            "A retriever is an index with search(query, k), a function (query, k), one of DSPy's, or 'dspy.ColBERTv2'.",
            key="retriever",
        )
    else:
        searches = getattr(retriever, "search", retriever)
        own = ("query",) if _knows_k(retriever) else ("query", "k")
        require_function(searches, "retriever", "retriever", *own, may_await=True)


def _knows_k(retriever: Any) -> bool:
    """Whether it is called with a query alone, and finds as many passages as it was made for."""
    if hasattr(retriever, "search") or not isinstance(getattr(retriever, "k", None), int):
        return False
    try:
        require_function(retriever, "retriever", "retriever", "query", "k", may_await=True)
    except SettingsError:
        return True
    return False


def _text(passage: Any) -> str:
    if isinstance(passage, str):
        return passage
    found = passage.get("text") if isinstance(passage, Mapping) else getattr(passage, "text", None)
    if not isinstance(found, str):
        raise InvalidInput(f"A passage is a text, or holds one as 'text'; this one is a {type(passage).__name__}.")
    return found


def _with_passages(made: Any, passages: list[Any]) -> Prediction:
    completions = [{**each, "passages": passages} for each in made.completions]
    return with_facts(made, {**made.to_dict(), "passages": passages}, completions=completions)
