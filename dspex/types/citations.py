"""`Citations` and `Document`: what a model cites, as values; only workers render and read them.

Fields and names are those of their DSPy namesakes (dspy/adapters/types/citation.py and document.py, 3.4.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import pydantic

from .custom_type import DspyType


class _WorkerType(DspyType):
    """The base of the types that a signature may name and only a worker can render."""

    def format(self) -> Any:
        # Plain data, in which a marker is looked for: the blocks are the worker's.
        return {name: getattr(self, name) for name in type(self).model_fields}


class Citation(_WorkerType):
    """One cited passage, with its place in a document."""

    type: str = "char_location"
    cited_text: str
    document_index: int
    document_title: str | None = None
    start_char_index: int
    end_char_index: int
    supported_text: str | None = None


_Citation = Citation  # inside Citations the name is its own attribute, as in DSPy


class Citations(_WorkerType):
    """Passages that the model cites: a list of `Citations.Citation`."""

    dspy_name: ClassVar[str] = "dspy.experimental.Citations"
    Citation: ClassVar[type[_Citation]] = _Citation
    citations: list[_Citation]

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, list):
            return {"citations": value}
        return {"citations": [value]} if isinstance(value, dict) and "cited_text" in value else value

    def __iter__(self) -> Iterator[_Citation]:  # type: ignore[override]  # of the passages, as in DSPy
        return iter(self.citations)

    def __len__(self) -> int:
        return len(self.citations)

    def __getitem__(self, at: int) -> _Citation:
        return self.citations[at]


class Document(_WorkerType):
    """A document that the model may cite."""

    dspy_name: ClassVar[str] = "dspy.experimental.Document"
    data: str
    title: str | None = None
    media_type: Literal["text/plain", "application/pdf"] = "text/plain"
    context: str | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return {"data": value} if isinstance(value, str) else value
