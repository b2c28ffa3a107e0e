"""DSPy's own value types, for the parent: code, reasoning, conversation history, and all of them by name.

Each has the fields, the name and the prompt form of its DSPy namesake (dspy/adapters/types, 3.4.1). `Image`, `Audio`,
`File` and `Tool` have files of their own, a tool's calls are in `tool_calls.py`, what only workers render in
`citations.py`. Importing this file imports pydantic; a signature that names none of these types never does.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, ClassVar, Final

import pydantic

from .audio import Audio
from .citations import Citations, Document
from .custom_type import DspyType
from .file import File
from .image import Image
from .tool import Tool
from .tool_calls import ToolCallResults, ToolCalls

_FROZEN: Final = pydantic.ConfigDict(frozen=True, str_strip_whitespace=True, validate_assignment=True, extra="forbid")
_FENCE: Final = "```"


class Code(DspyType):
    """Source text; `Code["java"]` is the type of another language. A Markdown fence around it is taken off."""

    dspy_name: ClassVar[str] = "dspy.Code"
    language: ClassVar[str] = "python"
    code: str

    def __class_getitem__(cls, language: Any) -> Any:
        return code_of(language) if isinstance(language, str) else super().__class_getitem__(language)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, cls):
            return value
        text = value.get("code") if isinstance(value, dict) else value
        if not isinstance(text, str):
            raise ValueError("code is a string, or a mapping with the string under 'code'")
        return {"code": _unfenced(text)}

    @classmethod
    def description(cls) -> str:
        # The words are DSPy's: they are part of the prompt that this type must give, byte for byte.
        return (
            "Code represented in a string, specified in the `code` field. If this is an output field, the code "
            f"field should follow the markdown code block format, e.g. \n```{cls.language.lower()}\n{{code}}\n```"
            f"\nProgramming language: {cls.language}"
        )

    def format(self) -> str:
        return self.code

    def to_wire(self) -> str:
        return self.code


class Reasoning(DspyType):
    """A model's reasoning: text, under a name of its own, with everything that text has."""

    dspy_name: ClassVar[str] = "dspy.Reasoning"
    content: str

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, cls):
            return value
        text = value.get("content") if isinstance(value, dict) else value
        if not isinstance(text, str):
            raise ValueError("reasoning is a string, or a mapping with the string under 'content'")
        return {"content": text}

    def format(self) -> str:
        return self.content

    def to_wire(self) -> str:
        return self.content

    def __repr__(self) -> str:
        return repr(self.content)

    def __eq__(self, other: object) -> bool:
        return self.content == (other.content if isinstance(other, Reasoning) else other)

    def __hash__(self) -> int:
        return hash(self.content)

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, at: Any) -> str:
        return self.content[at]

    def __contains__(self, part: object) -> bool:
        return part in self.content  # type: ignore[operator]

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]  # of its letters, as in DSPy
        return iter(self.content)

    def __add__(self, other: Any) -> Any:
        if isinstance(other, Reasoning):
            return Reasoning(content=self.content + other.content)
        return self.content + other if isinstance(other, str) else NotImplemented

    def __radd__(self, other: Any) -> Any:
        return other + self.content if isinstance(other, str) else NotImplemented

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__") and hasattr(str, name):  # strip, lower, split, ...
            return getattr(self.content, name)
        raise AttributeError(
            f"A reasoning has no {name!r}. It is read as text: str(reasoning), reasoning.content, or any method of str."
        )


class History(pydantic.BaseModel):
    """The past turns of a conversation: `History(messages=[{"question": "...", "answer": "..."}])`, in order.

    Each turn maps names of the signature's fields to their values.
    """

    dspy_name: ClassVar[str] = "dspy.History"
    model_config = _FROZEN
    messages: list[dict[str, Any]]


_BY_NAME: Final = {
    kind.__name__: kind
    for kind in (Image, Audio, File, Code, Reasoning, History, Tool, ToolCalls, ToolCallResults, Citations, Document)
}


def by_name(name: str) -> Any:
    """Return the class that stands for `dspy.<name>`."""
    return _BY_NAME[name]


@functools.lru_cache(maxsize=64)
def code_of(language: str) -> type[Code]:
    """`Code` for another language; the same class each time."""
    made = pydantic.create_model(f"Code_{language}", __base__=Code, __module__=__name__)
    made.language = language
    made.dspy_name = f"dspy.Code[{language!r}]"
    return made


def _unfenced(text: str) -> str:
    """Return the content of a text's first fence, without the language beside it, as DSPy's two expressions find it.

    They are ```[^\\n]*\\n(.*?)``` and, where that finds nothing, ```(.*?)```; a row of fences takes them n² steps.
    """
    begin = text.find(_FENCE)
    if begin < 0:
        return text
    last = text.rfind(_FENCE)
    line_end = text.find("\n", begin + len(_FENCE))
    if 0 <= line_end < last:
        return text[line_end + 1 : text.find(_FENCE, line_end + 1)].strip()
    end = text.find(_FENCE, begin + len(_FENCE))
    return text if end < 0 else text[begin + len(_FENCE) : end].strip()
