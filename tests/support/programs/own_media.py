"""A user's own modules that show a model sound and a file, in the ways in which DSPy asks."""

from __future__ import annotations

from typing import Any

import dspy

SOUND = dspy.Audio(data="AAAA", audio_format="wav")
FILE = dspy.File(file_data="data:application/pdf;base64,AAAA", filename="a.pdf")
SIG = dspy.Signature("sound: dspy.Audio, file: dspy.File -> answer")


class Shows(dspy.Module):
    """Asks the call's language model, or one of its own."""

    def __init__(self, model: str = "", model_type: Any = "chat") -> None:
        super().__init__()
        self.predict = dspy.Predict(SIG)
        self.lm = dspy.LM(model, model_type=model_type, cache=False) if model else None

    def forward(self, question: str) -> Any:
        return self.predict(sound=SOUND, file=FILE, **self._asked)

    @property
    def _asked(self) -> dict[str, Any]:
        return {"lm": self.lm} if self.lm is not None else {}


class Awaits(Shows):
    """The same, awaited."""

    forward = None

    async def aforward(self, question: str) -> Any:
        return await self.predict.acall(sound=SOUND, file=FILE, **self._asked)


class AtOnce(Shows):
    """Asks three times at once."""

    def forward(self, question: str) -> Any:
        given = {"sound": SOUND, "file": FILE}
        return dspy.Parallel(num_threads=3, disable_progress_bar=True)([(self.predict, given)] * 3)[-1]


class Remembers(Shows):
    """Gives what DSPy's history holds of the last request."""

    def forward(self, question: str) -> Any:
        super().forward(question)
        shown = dspy.settings.lm.history[-1]["messages"][-1]["content"]
        return dspy.Prediction(answer=" ".join(block["type"] for block in shown))
