"""A user's own DSPy programs that make language models of their own, in the ways that DSPy's documentation has."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy

SIG = "question -> answer"
STRONG = dspy.LM("openai/strong-model", temperature=0.9)  # when the module is imported
executor = ThreadPoolExecutor(2)  # which outlives calls


class Asking(dspy.Module):
    """Asks an LM of its own, in one of the ways."""

    def __init__(self, model: str = "openai/strong-model", way: str = "context", **options: Any) -> None:
        super().__init__()
        self.lm = dspy.LM(model, **options)
        self.way = way
        self.predict = dspy.Predict(SIG)
        if way == "predictor.lm":
            self.predict.lm = self.lm
        if way == "set_lm":
            self.set_lm(self.lm)

    def forward(self, question: str) -> Any:
        return getattr(self, f"_{self.way.replace('.', '_')}", self._asked)(question)

    def _asked(self, question: str) -> Any:
        return self.predict(question=question)

    def _context(self, question: str) -> Any:
        with dspy.context(lm=self.lm):
            return self.predict(question=question)

    def _argument(self, question: str) -> Any:
        return self.predict(question=question, lm=self.lm)

    def _copy(self, question: str) -> Any:
        with dspy.context(lm=self.lm.copy(temperature=0.5, rollout_id=3)):
            return self.predict(question=question)

    def _config(self, question: str) -> Any:
        with dspy.context(lm=self.lm):
            return self.predict(question=question, config={"max_tokens": 33, "top_p": 0.5})

    def _direct_call(self, question: str) -> Any:
        return {"answer": self.lm(question)[0]}

    def _configure(self, question: str) -> Any:
        dspy.configure(lm=self.lm)
        return self.predict(question=question)

    def _json(self, question: str) -> Any:
        with dspy.context(lm=self.lm, adapter=dspy.JSONAdapter()):
            return self.predict(question=question)

    def _thread(self, question: str) -> Any:
        found: list[Any] = []

        def ask() -> None:
            found.append(dspy.Predict(SIG)(question=question, lm=dspy.LM(self.lm.model)))

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        return found[0]

    def _executor(self, question: str) -> Any:
        return executor.submit(self._context, question).result()

    def _executor_default(self, question: str) -> Any:
        return executor.submit(self._asked, question).result()

    def _parallel(self, question: str) -> Any:
        with dspy.context(lm=self.lm):
            pairs = [(self.predict, dspy.Example(question=question).with_inputs("question"))] * 2
            return dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)[1]

    def _awaited(self, question: str) -> Any:
        async def ask() -> Any:
            with dspy.context(lm=self.lm):
                return await self.predict.acall(question=question)

        return asyncio.run(ask())

    def _at_import(self, question: str) -> Any:
        with dspy.context(lm=STRONG):
            return self.predict(question=question)


class ReadsItsKey(dspy.Module):
    """Reads its key from the environment, as DSPy's documentation has it."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.lm = dspy.LM("openai/gpt-4o-mini", api_key=os.environ["OPENAI_API_KEY"], **options)

    def forward(self, question: str) -> Any:
        return dspy.Predict(SIG)(question=question, lm=self.lm)


class OnlyAwaiting(dspy.Module):
    """Awaits, with an LM of its own."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.predict = dspy.Predict(SIG)
        self.lm = dspy.LM(model)

    async def aforward(self, question: str) -> Any:
        with dspy.context(lm=self.lm):
            return await self.predict.acall(question=question)


class TwoSteps(dspy.Module):
    """Two predictors, which ask whatever LM they are given."""

    def __init__(self) -> None:
        super().__init__()
        self.generate_query = dspy.ChainOfThought("question -> query")
        self.answer = dspy.Predict("question, query -> answer")

    def forward(self, question: str) -> Any:
        query = self.generate_query(question=question).query
        return self.answer(question=question, query=query)


class KeepsAsking(dspy.Module):
    """Makes an LM for each call, with a key of its own, as a service for many customers does."""

    def forward(self, base: str, count: int) -> Any:
        answers = []
        for number in range(count):
            lm = dspy.LM("openai/tenant-model", api_base=base, api_key=f"key-of-tenant-{number:04d}")
            answers.append(dspy.Predict(SIG)(question=str(number), lm=lm).answer)
        return {"answers": answers}


class Subclassed(dspy.LM):
    """A user's LM: it adds something to what it is asked."""

    def forward(self, prompt: Any = None, messages: Any = None, **options: Any) -> Any:
        return super().forward(prompt, [*messages, {"role": "user", "content": "Be brief."}], **options)


class AskingSubclassed(dspy.Module):
    def forward(self, question: str) -> Any:
        return dspy.Predict(SIG)(question=question, lm=Subclassed("openai/strong-model"))


class Heating(dspy.Module):
    """Asks for several answers."""

    def __init__(self, model: str, **options: Any) -> None:
        super().__init__()
        self.predict = dspy.Predict(SIG, n=2)
        self.lm = dspy.LM(model, **options)

    def forward(self, question: str) -> Any:
        return self.predict(question=question, lm=self.lm)


class Embedding(dspy.Module):
    """Embeds texts, as modules that retrieve do."""

    def __init__(self, model: str = "openai/small-embedder", **options: Any) -> None:
        super().__init__()
        self.embedder = dspy.Embedder(model, batch_size=2, **options)

    def forward(self, texts: list[str]) -> Any:
        return {"vectors": self.embedder(texts).tolist(), "one": self.embedder(texts[0]).tolist()}


class EmbeddingAwaited(Embedding):
    async def aforward(self, texts: list[str]) -> Any:
        return {"vectors": (await self.embedder.acall(texts)).tolist()}


class Holding(dspy.Module):
    """Embeds by what it was given, and tells what of it is here."""

    def __init__(self, embedder: Any) -> None:
        super().__init__()
        self.embedder = embedder

    def forward(self, texts: list[str]) -> Any:
        held = f"{vars(self.embedder)} {getattr(self.embedder.model, 'kwargs', '')} {dict(os.environ)}"
        return {"vectors": self.embedder(texts).tolist(), "kind": type(self.embedder).__name__, "held": held}


class OwnEmbedder(dspy.Embedder):
    """An embedder of the user's class."""


class Looking(dspy.Module):
    """Asks an index of the host's."""

    def __init__(self, tools: list[Any]) -> None:
        super().__init__()
        self.search = tools[0]

    def forward(self, question: str) -> Any:
        return {"passages": self.search(query=question, k=1)}


class Scoring(dspy.Module):
    """Retrieves by DSPy's own index, with scores, and where FAISS would be needed."""

    def forward(self, question: str) -> Any:
        embedder = dspy.Embedder("openai/small-embedder", batch_size=2)
        search = dspy.retrievers.EmbeddingsWithScores(["aa", "a", "aaaa"], embedder, k=2)
        found = search(question)
        try:
            dspy.retrievers.Embeddings(["aa", "a"], embedder, brute_force_threshold=1)
            faiss = ""
        except ImportError as error:
            faiss = str(error)
        return {"passages": found.passages, "scores": found.scores, "faiss": faiss}


class Searching(dspy.Module):
    """Retrieves by DSPy's own index."""

    def forward(self, question: str) -> Any:
        embedder = dspy.Embedder("openai/small-embedder")
        search = dspy.retrievers.Embeddings(["aa", "a", "aaaa"], embedder, k=1)
        return {"passages": search(question).passages}
