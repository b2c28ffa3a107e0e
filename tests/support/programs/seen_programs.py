"""A user's DSPy programs that are looked at: several predictors, threads, awaiting, output of every kind."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import warnings
from typing import Any

import dspy
from dspy.utils.callback import with_callbacks


class TwoSteps(dspy.Module):
    """Two predictors with an output of the same name, one inside ChainOfThought."""

    def __init__(self) -> None:
        super().__init__()
        self.draft = dspy.ChainOfThought("question -> answer")
        self.final = dspy.Predict("question, draft -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        draft = self.draft(question=question).answer
        return dspy.Prediction(answer=self.final(question=question, draft=draft).answer)


class Parallel(dspy.Module):
    """Asks one predictor for several questions, in DSPy's threads."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, questions: list[str]) -> dspy.Prediction:
        pairs = [(self.ask, dspy.Example(question=each).with_inputs("question")) for each in questions]
        rows = dspy.Parallel(num_threads=4, disable_progress_bar=True)(pairs)
        return dspy.Prediction(answers=[row.answer for row in rows])


class Awaiting(dspy.Module):
    """Two predictors that are asked at the same time, on one thread."""

    def __init__(self) -> None:
        super().__init__()
        self.left = dspy.Predict("question -> answer")
        self.right = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        left, right = await asyncio.gather(
            self.left.acall(question=f"left {question}"), self.right.acall(question=f"right {question}")
        )
        return dspy.Prediction(answer=f"{left.answer} {right.answer}")


class Failing(dspy.Module):
    """Goes on after a predictor that failed."""

    def __init__(self) -> None:
        super().__init__()
        self.bad = dspy.Predict("question -> number: int")
        self.good = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        try:
            self.bad(question=question)
        except Exception:
            pass
        return self.good(question=question)


class OwnLM(dspy.Module):
    """Has an LM of its own making for one predictor, which a capture must not ask either."""

    def __init__(self, model: str, base: str, key: str) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.ask.lm = dspy.LM(model, api_base=base, api_key=key)

    def forward(self, question: str) -> dspy.Prediction:
        return self.ask(question=question)


class Dying(dspy.Module):
    """Its process ends while it waits for an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        os.write(2, b"last words\n")
        threading.Timer(0.5, os._exit, [3]).start()
        return self.ask(question=question)


class Answering(dspy.BaseLM):
    """Answers by itself, past DSPy's records."""

    @with_callbacks
    def __call__(self, prompt: Any = None, messages: Any = None, **options: Any) -> list[Any]:
        return ["[[ ## answer ## ]]\nmine\n\n[[ ## completed ## ]]"]


class OwnAnswers(dspy.Module):
    """Has such an LM."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.ask.lm = Answering("mine")

    def forward(self, question: str) -> dspy.Prediction:
        return self.ask(question=question)


class Tooled(dspy.Module):
    """Calls a tool itself."""

    def __init__(self) -> None:
        super().__init__()
        self.look = dspy.Tool(_look, name="look")

    def forward(self, word: str) -> dspy.Prediction:
        return dspy.Prediction(found=self.look(word=word))


def _look(word: str) -> str:
    return word.upper()


class Speaking(dspy.Module):
    """Writes wherever one can write."""

    def forward(self, word: str) -> str:
        print(f"print {word}")
        sys.stderr.write(f"stderr {word}\n")
        warnings.warn(f"warning {word}", stacklevel=1)
        logging.getLogger("my.app").info("info %s", word)
        logging.getLogger("my.app").warning("warned %s", word)
        os.write(1, f"raw {word}\n".encode())
        subprocess.run(["echo", f"child {word}"], check=True)
        thread = threading.Thread(target=print, args=(f"thread {word}",))
        thread.start()
        thread.join()
        print("unfinished", end="")
        return word


class Chattering(dspy.Module):
    """Prints in DSPy's threads."""

    def forward(self, words: list[str]) -> list[Any]:
        def say(word: str) -> str:
            print(f"row {word}")
            return word

        return dspy.Parallel(num_threads=2, disable_progress_bar=True)([(say, (word,)) for word in words])
